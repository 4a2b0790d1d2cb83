// SPDX-License-Identifier: GPL-2.0
/*
 * smp: vCPUs that map pages at the same time, each in a leaf table of its own or all
 * in the same one. Prints how many times as much they get done as one alone, as
 * JSON. For a machine with several processors, whose clock is that on the wall.
 *
 * The floor: the same number of trapped writes, each vCPU to a page of its own, in a VM
 * where nobody does anything with them. What they lack is KVM's and the machine's.
 *
 * An edu device is bound to vtd_shadow, and vtds_floor is loaded.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "env.h"
#include "floor/floor.h"

#define MAP_IOVA	0x40000000ull
#define VCPUS		4
#define BURST		128	/* maps of each vCPU in a round: so many share a table */
#define ROUNDS		41
#define CASES		8

enum kind { FLOOR, DIFFERENT, SAME };

static const struct {
	unsigned int vcpus;
	enum kind kind;
	unsigned int one;	/* case to compare with */
} cases[CASES] = {
	{ 1, FLOOR, 0 }, { 2, FLOOR, 0 }, { 4, FLOOR, 0 },
	{ 1, DIFFERENT, 3 }, { 2, DIFFERENT, 3 }, { 4, DIFFERENT, 3 },
	{ 2, SAME, 3 }, { 4, SAME, 3 },
};

static struct env env;
static u64 entries[VCPUS + 1][512];	/* GPA of each entry of each table */
static struct vm floor_vm;
static u64 floor_page[VCPUS];

/* What the threads share: one for each vCPU, for the whole run. */
static struct guest_write burst[VCPUS][BURST];
static struct vm *vm;
static u64 start[VCPUS], end[VCPUS];
static sem_t go[VCPUS], undo[VCPUS], done;
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

/*
 * Starts its burst when all of the round are there. The same thread undoes it:
 * the first KVM_RUN of another one waits for an RCU grace period.
 */
static void *vcpu_thread(void *arg)
{
	unsigned int cpu = (uintptr_t)arg;

	for (;;) {
		sem_wait(&go[cpu]);
		atomic_fetch_sub(&awaited, 1);
		while (atomic_load(&awaited))
			sched_yield();
		start[cpu] = now();
		vm_batch(vm, cpu, burst[cpu], BURST);
		end[cpu] = now();
		sem_post(&done);
		sem_wait(&undo[cpu]);
		vm_batch(vm, cpu, burst[cpu], BURST);
		sem_post(&done);
	}
	return NULL;
}

static u64 leaf(u64 page)
{
	return env.fmt->leaf(GPA_DATA_2M + page * PAGE_BYTES, 1, PERM_RW);
}

static u64 target(unsigned int cpu, enum kind kind, unsigned int i)
{
	switch (kind) {
	case FLOOR:
		return floor_page[cpu] + i * sizeof(u64);
	case DIFFERENT:
		return entries[cpu][i];
	default:
		return entries[VCPUS][cpu * BURST + i];
	}
}

static void burst_fill(unsigned int cpu, enum kind kind, bool map)
{
	unsigned int i;

	for (i = 0; i < BURST; i++)
		burst[cpu][i] = (struct guest_write) {
			.op = GUEST_STORE, .width = 8, .gpa = target(cpu, kind, i),
			.value = map ? leaf(cpu * BURST + i) : 0,
		};
}

/* Ticks from the first one's start to the last one's end. */
static u64 measure(unsigned int vcpus, enum kind kind)
{
	u64 first = ~0ull, last = 0;
	unsigned int cpu;

	vm = kind == FLOOR ? &floor_vm : &env.vm;
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
		sem_post(&undo[cpu]);
	}
	for (cpu = 0; cpu < vcpus; cpu++)
		sem_wait(&done);
	env_flush(&env);
	return last - first;
}

static void prepare_floor(void)
{
	struct floor_track track = { 0 };
	unsigned int cpu;
	int fd;

	vm_create(&floor_vm, VCPUS);
	track.vm_fd = floor_vm.fd;
	for (cpu = 0; cpu < VCPUS; cpu++) {
		floor_page[cpu] = vm_alloc(&floor_vm, 1);
		track.gfn = floor_page[cpu] / PAGE_BYTES;
		fd = open("/dev/vtds_floor", O_RDWR);	/* tracks one page */
		if (fd < 0 || ioctl(fd, FLOOR_TRACK, &track))
			fatal("FLOOR_TRACK");
	}
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
		if (sem_init(&go[i], 0, 0) || sem_init(&undo[i], 0, 0) ||
		    pthread_create(&thread, NULL, vcpu_thread, (void *)i))
			fatal("thread");
}

static const char *const kind_names[] = {
	[FLOOR] = "floor", [DIFFERENT] = "different", [SAME] = "same",
};

int main(void)
{
	static u64 ticks[CASES][ROUNDS];
	unsigned int c, r;

	vm_hold_kvm();
	prepare_floor();
	prepare();
	/* In turn, so that what else the machine does is the same for all. */
	for (r = 0; r < ROUNDS; r++)
		for (c = 0; c < CASES; c++)
			ticks[c][r] = measure(cases[c].vcpus, cases[c].kind);
	for (c = 0; c < CASES; c++)
		qsort(ticks[c], ROUNDS, sizeof(u64), compare);
	printf("[");
	for (c = 0; c < CASES; c++) {
		const u64 *one = ticks[cases[c].one];
		double n = cases[c].vcpus;

		printf("%s\n {\"vcpus\": %u, \"tables\": \"%s\", \"processors\": %ld, ",
		       c ? "," : "", cases[c].vcpus, kind_names[cases[c].kind],
		       sysconf(_SC_NPROCESSORS_ONLN));
		printf("\"speedup\": %.2f, \"speedup_median\": %.2f}",
		       n * one[ROUNDS / 20] / ticks[c][ROUNDS / 20],
		       n * one[ROUNDS / 2] / ticks[c][ROUNDS / 2]);
	}
	printf("]\n");
	fflush(stdout);
	_exit(0);
}
