/* SPDX-License-Identifier: GPL-2.0 */
/* Statements about what a device reaches. False comes with a line that says why. */
#ifndef VTDS_TEST_CHECK_H
#define VTDS_TEST_CHECK_H

#include "env.h"

/* The endpoint's state, by VTDS_IOC_TRANSLATE. */
bool is_state(struct env *e, u32 dev, u32 state);

/* The module and the host domain map @iova to @gpa, with that leaf size. */
bool is_mapped(struct env *e, u32 dev, u64 iova, u64 gpa, u64 leaf_bytes, u32 perm);

/* Neither the module nor the host domain maps @iova; nothing is waiting. */
bool is_unmapped(struct env *e, u32 dev, u64 iova);

/* Removed by the guest, but neither flushed nor unmapped yet. */
bool is_queued(struct env *e, u32 dev, u64 iova);

/* The module agrees with a walk of the guest's tables as they are now. */
bool is_as_walked(struct env *e, u32 dev, u64 iova);

/*
 * The device reads and writes @gpa when it uses @iova: byte by byte, and nothing
 * beside it. Takes two transfers; true without one if the device is not edu.
 */
bool dma_reaches(struct env *e, u32 dev, u64 iova, u64 gpa, u32 bytes);

/* One event, with these values. IGNORE takes any value. */
#define IGNORE	(~0ull)
bool next_event_is(struct env *e, u32 reason, u64 iova, u64 gpa, u64 level);
bool has_no_event(struct env *e);

/* Reads and forgets all events; returns how many there were, lost ones included. */
u64 drain_events(struct env *e);

/* Nothing is left of the devices that were attached: no table, no page, no trap. */
bool is_released(struct env *e);

/* The same, when a device has been closed and not detached: that may take a moment. */
bool is_released_soon(struct env *e);

/* A page that nobody may touch. */
void *bad_pointer(void);

void sleep_ms(unsigned int ms);

#endif
