// SPDX-License-Identifier: GPL-2.0
/*
 * Events: what a guest does wrong goes here and to the tracepoints, never to the
 * kernel log. When nobody reads, the newest are dropped and counted.
 */
#include <linux/sched.h>

#include "event.h"

/** vtds_events_init() - start with an empty queue */
void vtds_events_init(struct vtds_events *events)
{
	mutex_init(&events->reader);
	spin_lock_init(&events->lock);
	INIT_KFIFO(events->fifo);
	init_waitqueue_head(&events->wait);
}

/**
 * vtds_events_report() - queue an event
 * @events: queue
 * @reject: what happened
 *
 * Context: process; does not sleep.
 */
void vtds_events_report(struct vtds_events *events, const struct vtds_reject *reject)
{
	struct vtds_event event = {
		.reason = reject->reason,
		.requester_id = reject->requester_id,
		.iova = reject->iova,
		.gpa = reject->gpa,
		.level = reject->level,
	};

	spin_lock(&events->lock);
	event.lost = events->lost;
	events->total++;
	if (kfifo_put(&events->fifo, event)) {
		events->lost = 0;
	} else {
		events->lost++;
		events->total_lost++;
	}
	spin_unlock(&events->lock);
	wake_up_interruptible(&events->wait);
}

/**
 * vtds_events_peek() - look at the oldest event
 * @events: queue
 * @event: out
 *
 * Context: events->reader held. Return: false if there is none.
 */
bool vtds_events_peek(struct vtds_events *events, struct vtds_event *event)
{
	bool got;

	lockdep_assert_held(&events->reader);
	spin_lock(&events->lock);
	got = kfifo_peek(&events->fifo, event);
	spin_unlock(&events->lock);
	return got;
}

/**
 * vtds_events_take() - take the oldest event away
 * @events: queue
 *
 * Context: events->reader held since vtds_events_peek().
 */
void vtds_events_take(struct vtds_events *events)
{
	lockdep_assert_held(&events->reader);
	spin_lock(&events->lock);
	kfifo_skip(&events->fifo);
	spin_unlock(&events->lock);
}

/** vtds_events_pending() - whether there is an event to read */
bool vtds_events_pending(struct vtds_events *events)
{
	bool pending;

	spin_lock(&events->lock);
	pending = !kfifo_is_empty(&events->fifo);
	spin_unlock(&events->lock);
	return pending;
}
