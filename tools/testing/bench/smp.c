// SPDX-License-Identifier: GPL-2.0
/*
 * smp: vCPUs that map pages at the same time, each in a leaf table of its own or all
 * in the same one. Prints how many times as much they get done as one alone, as
 * JSON. For a machine with several processors, whose clock is that on the wall.
 *
 * An edu device is bound to vtd_shadow.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "env.h"

#define MAP_IOVA	0x40000000ull
#define VCPUS		4
#define BURST		128	/* maps of each vCPU in a round: so many share a table */
#define ROUNDS		41

#define CASES		5

enum kind { DIFFERENT, SAME };

static const struct {
	unsigned int vcpus;
	enum kind kind;
} cases[CASES] = {
	{ 1, DIFFERENT }, { 2, DIFFERENT }, { 4, DIFFERENT }, { 2, SAME }, { 4, SAME },
};

static struct env env;
static u64 entries[VCPUS + 1][512];	/* GPA of each entry of each table */

/* What the threads share: one for each vCPU, for the whole run. */
static struct guest_write burst[VCPUS][BURST];
static u64 start[VCPUS], end[VCPUS];
static sem_t go[VCPUS], done;
static atomic_uint awaited;

static u64 now(void)
{
	return __builtin_ia32_rdtsc();
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Starts its burst when all of the round are there. */
static void *vcpu_thread(void *arg)
{
	unsigned int cpu = (uintptr_t)arg;

	for (;;) {
		sem_wait(&go[cpu]);
		atomic_fetch_sub(&awaited, 1);
		while (atomic_load(&awaited))
			sched_yield();
		start[cpu] = now();
		vm_batch(&env.vm, cpu, burst[cpu], BURST);
		end[cpu] = now();
		sem_post(&done);
	}
	return NULL;
}

static u64 leaf(u64 page)
{
	return env.fmt->leaf(GPA_DATA_2M + page * PAGE_BYTES, 1, PERM_RW);
}

static void burst_fill(unsigned int cpu, enum kind kind, bool map)
{
	unsigned int i;

	for (i = 0; i < BURST; i++) {
		u64 page = cpu * BURST + i;

		burst[cpu][i] = (struct guest_write) {
			.op = GUEST_STORE, .width = 8,
			.gpa = kind == SAME ? entries[VCPUS][page] : entries[cpu][i],
			.value = map ? leaf(page) : 0,
		};
	}
}

/* Ticks from the first one's start to the last one's end. */
static u64 measure(unsigned int vcpus, enum kind kind)
{
	u64 first = ~0ull, last = 0;
	unsigned int cpu;

	atomic_store(&awaited, vcpus);
	for (cpu = 0; cpu < vcpus; cpu++) {
		burst_fill(cpu, kind, true);
		sem_post(&go[cpu]);
	}
	for (cpu = 0; cpu < vcpus; cpu++)
		sem_wait(&done);
	for (cpu = 0; cpu < vcpus; cpu++) {
		first = start[cpu] < first ? start[cpu] : first;
		last = end[cpu] > last ? end[cpu] : last;
		burst_fill(cpu, kind, false);
		vm_batch(&env.vm, cpu, burst[cpu], BURST);
	}
	env_flush(&env);
	return last - first;
}

static void prepare(void)
{
	const struct env_options options = { .fmt = &fmt_vtd, .nr_devs = 1,
					     .nr_vcpus = VCPUS, .pin_cache = 65536 };
	pthread_t thread;
	struct dom dom;
	uintptr_t i, t;

	env_open(&env, &options);
	dom = dom_alloc(&env, 1);
	dom_set(&env, 0, &dom);
	for (t = 0; t <= VCPUS; t++) {
		u64 iova = MAP_IOVA + t * SIZE_2M;

		for (i = 0; i < 512; i++)
			entries[t][i] = dom_entry(&env, &dom, iova + i * PAGE_BYTES, 1);
	}
	sem_init(&done, 0, 0);
	for (i = 0; i < VCPUS; i++)
		if (sem_init(&go[i], 0, 0) || pthread_create(&thread, NULL, vcpu_thread, (void *)i))
			fatal("thread");
}

static const char *kind_name(enum kind kind)
{
	return kind == SAME ? "same" : "different";
}

int main(void)
{
	static u64 ticks[CASES][ROUNDS];
	unsigned int c, r;

	vm_hold_kvm();
	prepare();
	/* In turn, so that what else the machine does is the same for all. */
	for (r = 0; r < ROUNDS; r++)
		for (c = 0; c < CASES; c++)
			ticks[c][r] = measure(cases[c].vcpus, cases[c].kind);
	for (c = 0; c < CASES; c++)
		qsort(ticks[c], ROUNDS, sizeof(u64), compare);
	printf("[");
	for (c = 0; c < CASES; c++) {
		const char *tables = kind_name(cases[c].kind);
		double n = cases[c].vcpus;

		printf("%s\n {\"vcpus\": %u, \"tables\": \"%s\", \"processors\": %ld, ",
		       c ? "," : "", cases[c].vcpus, tables, sysconf(_SC_NPROCESSORS_ONLN));
		printf("\"speedup\": %.2f, \"speedup_median\": %.2f}",
		       n * ticks[0][ROUNDS / 20] / ticks[c][ROUNDS / 20],
		       n * ticks[0][ROUNDS / 2] / ticks[c][ROUNDS / 2]);
	}
	printf("]\n");
	fflush(stdout);
	_exit(0);
}
