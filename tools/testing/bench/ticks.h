/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ticks of the TSC that are somebody's work. How long an emulated device takes
 * depends on how busy the machine is, and if all wait for it the emulated clock jumps.
 * So there is always something to run: a thread of least priority, which counts the
 * ticks that nobody else wanted.
 */
#ifndef BENCH_TICKS_H
#define BENCH_TICKS_H

/* Ticks since some moment, and how many of them so far nobody wanted. */
unsigned long long ticks_now(void);
unsigned long long ticks_soaked(void);

/* Starts the thread. */
void ticks_start(void);

#endif
