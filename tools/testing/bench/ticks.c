// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <sched.h>

#include "ticks.h"

static volatile unsigned long long soaked;

unsigned long long ticks_now(void)
{
	return __builtin_ia32_rdtsc();
}

unsigned long long ticks_soaked(void)
{
	return soaked;
}

/* A longer step than that of the loop means that somebody else was running. */
static void *soak(void *unused)
{
	const struct sched_param param = { 0 };
	unsigned long long last, next;

	sched_setscheduler(0, SCHED_IDLE, &param);
	for (last = ticks_now();; last = next) {
		next = ticks_now();
		if (next - last < 50)
			soaked += next - last;
	}
	return NULL;
}

void ticks_start(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, soak, NULL))
		err(1, "thread");
}
