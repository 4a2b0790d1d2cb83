/* SPDX-License-Identifier: GPL-2.0 */
/* The events that a VMM reads. */
#ifndef VTDS_EVENT_H
#define VTDS_EVENT_H

#include <linux/kfifo.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "reason.h"

#define VTDS_EVENTS	256

/**
 * struct vtds_events - a bounded queue of events
 * @reader: held from looking at an event to taking it
 * @lock: protects the rest
 * @fifo: events not yet read
 * @lost: events dropped since the last one in @fifo
 * @total: events reported
 * @total_lost: of these, dropped
 * @wait: readers
 */
struct vtds_events {
	struct mutex reader;	/* outside of lock */
	spinlock_t lock;	/* everything below */
	DECLARE_KFIFO(fifo, struct vtds_event, VTDS_EVENTS);
	u32 lost;
	u64 total;
	u64 total_lost;
	wait_queue_head_t wait;
};

void vtds_events_init(struct vtds_events *events);
void vtds_events_report(struct vtds_events *events, const struct vtds_reject *reject);
bool vtds_events_peek(struct vtds_events *events, struct vtds_event *event);
void vtds_events_take(struct vtds_events *events);
bool vtds_events_pending(struct vtds_events *events);

#endif /* VTDS_EVENT_H */
