/* SPDX-License-Identifier: GPL-2.0 */
/* Pinned guest pages. */
#ifndef VTDS_PIN_H
#define VTDS_PIN_H

#include <linux/atomic.h>
#include <linux/xarray.h>

struct mm_struct;
struct page;
struct pin_block;
struct vtds_vm;

/* Pages that vtds_pin_range() does at most. */
#define VTDS_PIN_BATCH	512

/* A power of two: half a GiB of guest memory */
#define VTDS_PIN_RECENT	256

/**
 * struct vtds_pins - the pinned pages of a guest
 * @blocks: struct pin_block for each VTDS_PIN_BATCH pages, of those pinned for
 *	reading [0] and for writing [1]
 * @recent: some of them that were used last
 * @mm: the VMM, which is charged
 * @count: pinned pages, idle ones included
 * @idle: pages that nobody uses, kept for the next one
 * @idle_max: how many of them may be kept
 * @batch: scratch of vtds_pin_range()
 */
struct vtds_pins {
	struct xarray blocks[2];
	struct pin_block *recent[2][VTDS_PIN_RECENT];
	struct mm_struct *mm;
	atomic64_t count;
	atomic64_t idle;
	u64 idle_max;
	struct page *batch[VTDS_PIN_BATCH];
};

void vtds_pins_init(struct vtds_pins *pins, struct mm_struct *mm);
void vtds_pins_fini(struct vtds_pins *pins);
int vtds_pin(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn, bool write, u64 *pfn);
unsigned int vtds_pin_range(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn,
			    unsigned int n, bool write, u64 *pfns, int *err);
void vtds_unpin(struct vtds_pins *pins, u64 gfn, unsigned long n, bool write);
void vtds_pins_trim(struct vtds_pins *pins, u64 gfn, u64 last_gfn);
u64 vtds_pin_lookup(struct vtds_pins *pins, u64 gfn, bool write);

#endif /* VTDS_PIN_H */
