// SPDX-License-Identifier: GPL-2.0
/*
 * Micro benchmark: what one change of the guest's tables costs, in the bare-metal
 * guest of the selftests, beside what KVM and the host IOMMU cost by themselves
 * (vtds_floor). For a machine where the TSC counts instructions: "run --icount".
 *
 * micro ADDRESS [loop]: ADDRESS is a PCI device without a driver, for the floor.
 * An edu device is bound to vtd_shadow. Prints JSON.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "env.h"
#include "floor/floor.h"

/* Guest memory for data: huge pages, as VMMs have it. */
#define DATA_GPA	0x200000000ull
#define DATA_BYTES	SIZE_1G
#define DATA_SLOT	8

#define MAP_IOVA	0x40000000ull	/* of what is measured; aligned to 1 GiB */
#define ROUNDS		15
#define BURST		64
#define TABLE		512

static struct env env;
static struct dom dom;
static char *data;
static int floor_fd;
static unsigned int floor_devfn;
static struct guest_write burst[TABLE];
static u64 entries[TABLE];		/* GPA of each entry of the leaf table */

/* ---- time ---- */

static u64 now(void)
{
	return __builtin_ia32_rdtsc();
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* The median is free of timer interrupts, if what is measured is short. */
static u64 median(u64 *v, unsigned int n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

/* ---- output ---- */

static void print_result(const char *name, double insn, double floor)
{
	static const char *sep = "";

	printf("%s\n  \"%s\": {\"insn\": %.1f, \"floor_insn\": %.1f}", sep, name, insn, floor);
	fflush(stdout);
	sep = ",";
}

/* ---- the guest's writes ---- */

static u64 leaf(unsigned int page)
{
	return env.fmt->leaf(DATA_GPA + page * PAGE_BYTES, 1, PERM_RW);
}

static void burst_set(unsigned int i, u64 gpa, u64 value)
{
	burst[i] = (struct guest_write) { .op = GUEST_STORE, .width = 8, .gpa = gpa,
					  .value = value };
}

/* Has the vCPU carry out the first @n writes of the burst; the ticks that it takes. */
static u64 burst_run(struct vm *vm, unsigned int n)
{
	struct guest_write cmd = { .op = GUEST_BATCH, .count = n, .value = GPA_BATCH };
	u64 start;

	memcpy(vm_host(vm, GPA_BATCH), burst, n * sizeof(burst[0]));
	start = now();
	vm_exec(vm, 0, &cmd);
	return now() - start;
}

/* Entering and leaving the guest once, without a write. */
static u64 burst_base(struct vm *vm)
{
	u64 v[ROUNDS];
	int i;

	for (i = 0; i < ROUNDS; i++)
		v[i] = burst_run(vm, 0);
	return median(v, ROUNDS);
}

static u64 map_burst(unsigned int n, unsigned int first_page)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		burst_set(i, entries[i], leaf(first_page + i));
	return burst_run(&env.vm, n);
}

static u64 unmap_burst(unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		burst_set(i, entries[i], 0);
	return burst_run(&env.vm, n);
}

static u64 timed_flush(void)
{
	u64 start = now();

	env_flush(&env);
	return now() - start;
}

/* ---- the floor ---- */

struct floor {
	double untracked;	/* write, no tracking */
	double trap;		/* write, empty callback */
	double map;		/* iommu_map of a page, host table is there */
	double map_fresh;	/* the same, a table full, with its allocation */
	double pin;
	double unpin;
	double unmap[TABLE + 1];	/* by number: all in one run, without flush */
	double sync[TABLE + 1];
};

static struct floor floor_;

static double floor_burst(struct vm *vm, u64 gpa)
{
	u64 base = burst_base(vm), v[ROUNDS];
	int r, i;

	for (i = 0; i < BURST; i++)
		burst_set(i, gpa + 8 * i, i);
	for (r = 0; r < ROUNDS; r++)
		v[r] = burst_run(vm, BURST) - base;
	return median(v, ROUNDS) / (double)BURST;
}

/* A VM of its own, that the module does not know. */
static void floor_writes(void)
{
	struct floor_track track = { 0 };
	struct vm vm;
	u64 gpa;
	int fd;

	vm_create(&vm, 1);
	gpa = vm_alloc(&vm, 1);
	floor_.untracked = floor_burst(&vm, gpa);
	fd = open("/dev/vtds_floor", O_RDWR);
	track.vm_fd = vm.fd;
	track.gfn = gpa / PAGE_BYTES;
	if (fd < 0 || ioctl(fd, FLOOR_TRACK, &track))
		fatal("FLOOR_TRACK");
	floor_.trap = floor_burst(&vm, gpa);
	close(fd);
	vm_destroy(&vm);
}

static struct floor_pages floor_once(unsigned int nr)
{
	struct floor_pages arg = { .devfn = floor_devfn, .nr = nr, .addr = (uintptr_t)data,
		.iova = MAP_IOVA, .unmap_each = nr };

	if (ioctl(floor_fd, FLOOR_PAGES, &arg))
		fatal("FLOOR_PAGES");
	return arg;
}

static void floor_pages(unsigned int nr)
{
	u64 v[6][ROUNDS];
	int r;

	for (r = 0; r < ROUNDS; r++) {
		struct floor_pages p = floor_once(nr);

		v[0][r] = p.map_fresh;
		v[1][r] = p.map;
		v[2][r] = p.unmap;
		v[3][r] = p.sync;
		v[4][r] = p.pin;
		v[5][r] = p.unpin;
	}
	floor_.unmap[nr] = median(v[2], ROUNDS);
	floor_.sync[nr] = median(v[3], ROUNDS);
	if (nr != TABLE)
		return;
	floor_.map_fresh = median(v[0], ROUNDS) / (double)nr;
	floor_.map = median(v[1], ROUNDS) / (double)nr;
	floor_.pin = median(v[4], ROUNDS) / (double)nr;
	floor_.unpin = median(v[5], ROUNDS) / (double)nr;
}

static void measure_floor(void)
{
	floor_fd = open("/dev/vtds_floor", O_RDWR);
	if (floor_fd < 0)
		fatal("/dev/vtds_floor");
	floor_writes();
	floor_pages(1);
	floor_pages(BURST);
	floor_pages(TABLE);
	print_result("floor_trapped_write", floor_.trap, floor_.untracked);
	print_result("floor_iommu_map", floor_.map, floor_.map);
	print_result("floor_iommu_unmap_1", floor_.unmap[1] + floor_.sync[1],
		     floor_.unmap[1] + floor_.sync[1]);
	print_result("floor_pin_page", floor_.pin, floor_.pin);
	print_result("floor_unpin_page", floor_.unpin, floor_.unpin);
}

/* ---- leaf writes ---- */

static void measure_untracked(void)
{
	print_result("untracked_write", floor_burst(&env.vm, vm_alloc(&env.vm, 1)),
		     floor_.untracked);
}

/* Each round maps other pages than the last one did: none of them is pinned yet. */
static void measure_map_unmap(void)
{
	u64 base = burst_base(&env.vm), map[ROUNDS], unmap[ROUNDS];
	int r;

	for (r = 0; r < ROUNDS; r++) {
		map[r] = map_burst(BURST, r * BURST) - base;
		unmap[r] = unmap_burst(BURST) - base;
		env_flush(&env);
	}
	print_result("write_map", median(map, ROUNDS) / (double)BURST,
		     floor_.trap + floor_.map);
	print_result("write_unmap", median(unmap, ROUNDS) / (double)BURST, floor_.trap);
}

/* The same few pages again and again, as a guest's buffers are. */
static double map_again(void)
{
	u64 base = burst_base(&env.vm), map[ROUNDS];
	int r;

	for (r = 0; r < ROUNDS; r++) {
		map[r] = map_burst(BURST, 0) - base;
		unmap_burst(BURST);
		env_flush(&env);
	}
	return median(map, ROUNDS) / (double)BURST;
}

/* The guest writes what is there already, as AMD's driver does after each change. */
static void measure_same(void)
{
	u64 base = burst_base(&env.vm), same[ROUNDS];
	int r;

	map_burst(BURST, 0);
	for (r = 0; r < ROUNDS; r++)
		same[r] = map_burst(BURST, 0) - base;
	unmap_burst(BURST);
	env_flush(&env);
	print_result("write_same", median(same, ROUNDS) / (double)BURST, floor_.trap);
}

/* Put back before the flush; another page over what is queued; over what is mapped. */
static void measure_remap(void)
{
	u64 base = burst_base(&env.vm), back[ROUNDS], other[ROUNDS], over[ROUNDS];
	double change = floor_.trap + floor_.unmap[1] + floor_.sync[1] + floor_.map;
	int r;

	for (r = 0; r < ROUNDS; r++) {
		map_burst(BURST, 0);
		unmap_burst(BURST);
		back[r] = map_burst(BURST, 0) - base;
		unmap_burst(BURST);
		other[r] = map_burst(BURST, BURST) - base;
		over[r] = map_burst(BURST, 2 * BURST) - base;
		unmap_burst(BURST);
		env_flush(&env);
	}
	print_result("write_put_back", median(back, ROUNDS) / (double)BURST, floor_.trap);
	print_result("write_remap_queued", median(other, ROUNDS) / (double)BURST, change);
	print_result("write_remap", median(over, ROUNDS) / (double)BURST, change);
}

static void measure_invalidate(unsigned int n)
{
	char name[32];
	u64 v[ROUNDS];
	int r;

	for (r = 0; r < ROUNDS; r++) {
		map_burst(n, 0);
		unmap_burst(n);
		v[r] = timed_flush();
	}
	snprintf(name, sizeof(name), "invalidate_%u", n);
	print_result(name, median(v, ROUNDS), floor_.unmap[n] + floor_.sync[n]);
}

/* Pages that do not follow one another, as buffers of a Linux guest. */
static void measure_invalidate_scattered(void)
{
	u64 v[ROUNDS];
	int r, i;

	for (r = 0; r < ROUNDS; r++) {
		for (i = 0; i < BURST; i++)
			burst_set(i, entries[i], leaf(i * 37 % BURST * 100));
		burst_run(&env.vm, BURST);
		unmap_burst(BURST);
		v[r] = timed_flush();
	}
	print_result("invalidate_64_scattered", median(v, ROUNDS),
		     floor_.unmap[BURST] + floor_.sync[BURST]);
}

/* ---- tables ---- */

static u64 timed_write(u64 gpa, u64 value)
{
	burst_set(0, gpa, value);
	return burst_run(&env.vm, 1);
}

/* Tables that nobody looks at yet are written by the VMM. */
static u64 table_build(u64 gpa, u64 step, u32 level)
{
	u64 table = vm_alloc(&env.vm, 1);
	u64 *entry = vm_host(&env.vm, table);
	unsigned int i;

	for (i = 0; i < TABLE; i++)
		entry[i] = env.fmt->leaf(gpa + i * step, level, PERM_RW);
	return table;
}

/* Pages that were never mapped before, or always the same. */
static void measure_link(const char *suffix, bool fresh)
{
	u64 base = burst_base(&env.vm), link[ROUNDS], unlink[ROUNDS];
	u64 table = table_build(DATA_GPA, PAGE_BYTES, 1), i;
	u64 at = dom_entry(&env, &dom, MAP_IOVA + 2 * SIZE_2M, 2), *entry;
	char name[32];
	int r;

	entry = vm_host(&env.vm, table);
	for (r = 0; r < ROUNDS; r++) {
		for (i = 0; fresh && i < TABLE; i++)
			entry[i] = leaf((r + 16) * TABLE + i);
		link[r] = timed_write(at, env.fmt->link(table, 2, PERM_RW)) - base;
		unlink[r] = timed_write(at, 0) - base;
		env_flush(&env);
	}
	snprintf(name, sizeof(name), "link_512%s", suffix);
	print_result(name, median(link, ROUNDS), floor_.trap + TABLE * floor_.map_fresh);
	snprintf(name, sizeof(name), "unlink_512%s", suffix);
	print_result(name, median(unlink, ROUNDS),
		     floor_.trap + floor_.unmap[TABLE] + floor_.sync[TABLE]);
}

/* With a second vCPU the devices' BARs are taken away first: see gate.c. */
static void measure_link_gated(void)
{
	if (ioctl(env.vm.fd, KVM_CREATE_VCPU, 1) < 0)
		fatal("KVM_CREATE_VCPU");
	dom_set(&env, 0, &dom);
	measure_link("_gated", false);
}

/* Sum of a value that a file shows, maybe for several things. */
static u64 proc_value(const char *path, const char *format)
{
	u64 value, sum = 0;
	char line[128];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, format, &value) == 1)
			sum += value;
	fclose(f);
	return sum;
}

/*
 * The module's memory, but for a constant: what is not free, less what the host's
 * IOMMU driver took. Free are also the pages that processors keep for themselves.
 */
static int64_t used_bytes(void)
{
	int64_t pages;

	proc_value("/proc/sys/vm/stat_refresh", "%llu");
	pages = proc_value("/proc/vmstat", "nr_free_pages %llu") +
		proc_value("/proc/vmstat", "nr_iommu_pages %llu") +
		proc_value("/proc/zoneinfo", " count: %llu");
	return -pages * PAGE_BYTES;
}

/* A domain of DATA_BYTES, @times side by side in leaves of @level. */
static struct dom big_build(u32 level, unsigned int times)
{
	u64 step = level_bytes(level), span = TABLE * step, done, table, *entry;
	struct dom big = dom_alloc(&env, dom.id);

	for (done = 0; done < DATA_BYTES; done += span) {
		unsigned int i;

		table = table_build(DATA_GPA + done, step, level);
		for (i = 0; i < times; i++) {
			u64 iova = MAP_IOVA + i * DATA_BYTES + done;

			entry = vm_host(&env.vm, dom_entry(&env, &big, iova, level + 1));
			*entry = env.fmt->link(table, level + 1, PERM_RW);
		}
	}
	return big;
}

static u64 attach(const struct dom *big)
{
	u64 start;

	env.fmt->set_device(&env, 0, DEV_BLOCKED, NULL);
	env_flush(&env);
	if (env_stats(&env).mappings)
		fatal("not all is unmapped");
	start = now();
	dom_set(&env, 0, big);
	return now() - start;
}

/* All at once, by one store to the context entry; no page is pinned before. */
static void measure_attach(void)
{
	struct dom pages = big_build(1, 1), superpages = big_build(2, 1);
	u64 leaves = DATA_BYTES / SIZE_4K, insn;
	int64_t used = used_bytes();

	env_inv(&env, VTDS_INV_MEMORY);
	insn = attach(&pages);
	if (env_stats(&env).mappings != leaves)
		fatal("not all is mapped");
	print_result("bytes_per_page", (used_bytes() - used) / (double)leaves, 0);
	print_result("attach_1g_4k", insn, leaves * floor_.map_fresh);
	print_result("attach_1g_4k_again", attach(&pages), leaves * floor_.map_fresh);
	env_inv(&env, VTDS_INV_MEMORY);
	leaves = DATA_BYTES / SIZE_2M;
	print_result("attach_1g_2m", attach(&superpages), leaves * floor_.map);
	print_result("attach_1g_2m_again", attach(&superpages), leaves * floor_.map);
}

/* ---- scale ---- */

static void print_scale(struct dom *big)
{
	static const char *sep = "";
	struct vtds_stats stats;
	unsigned int i;
	double insn;

	for (i = 0; i < TABLE; i++)
		entries[i] = dom_entry(&env, big, 8 * DATA_BYTES + i * PAGE_BYTES, 1);
	attach(big);
	stats = env_stats(&env);
	insn = map_again();
	printf("%s\n  {\"mappings\": %llu, \"tables\": %llu, \"write_map_again\": %.1f}", sep,
	       stats.mappings, stats.tables, insn);
	fflush(stdout);
	sep = ",";
}

static void measure_scale(void)
{
	struct dom some = dom_alloc(&env, dom.id), many = big_build(1, 1), most = big_build(1, 4);

	dom_map(&env, &some, MAP_IOVA, DATA_GPA, 1, PERM_RW);
	print_scale(&some);
	print_scale(&many);
	print_scale(&most);
}

/* ---- */

static void add_data(void)
{
	struct kvm_userspace_memory_region region = {
		.slot = DATA_SLOT,
		.guest_phys_addr = DATA_GPA,
		.memory_size = DATA_BYTES,
	};

	data = mmap(NULL, DATA_BYTES + SIZE_2M, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		fatal("mmap of data");
	data = (char *)(((uintptr_t)data + SIZE_2M - 1) & ~(SIZE_2M - 1));
	madvise(data, DATA_BYTES, MADV_HUGEPAGE);
	madvise(data, DATA_BYTES, MADV_POPULATE_WRITE);
	region.userspace_addr = (uintptr_t)data;
	if (ioctl(env.vm.fd, KVM_SET_USER_MEMORY_REGION, &region))
		fatal("memory slot for data");
}

/* The library's contexts keep no idle pages pinned; QEMU's do. */
static void attach_with_cache(void)
{
	env.setup.pin_cache = 4 * DATA_BYTES / PAGE_BYTES;
	close(env.ctx);
	env.ctx = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (env.ctx < 0 || ioctl(env.ctx, VTDS_IOC_SETUP, &env.setup))
		fatal("VTDS_IOC_SETUP");
	env_set_root(&env, true);
	env_attach(&env, 0);
}

static void prepare(void)
{
	const struct env_options options = { .fmt = &fmt_vtd, .nr_devs = 1,
					     .not_attached = true };
	unsigned int i;

	env_open(&env, &options);
	add_data();
	attach_with_cache();
	dom = dom_alloc(&env, 1);
	dom_set(&env, 0, &dom);
	for (i = 0; i < TABLE; i++)
		entries[i] = dom_entry(&env, &dom, MAP_IOVA + i * PAGE_BYTES, 1);
	/* One mapping stays, so that the tables do. */
	dom_map(&env, &dom, MAP_IOVA + SIZE_2M, DATA_GPA, 1, PERM_RW);
}

/* What profile takes apart: maps, unmaps and invalidations without end. */
static void loop(void)
{
	puts("loop");
	fflush(stdout);
	for (;;) {
		map_burst(BURST, 0);
		unmap_burst(BURST);
		env_flush(&env);
	}
}

int main(int argc, char **argv)
{
	unsigned int slot, function;

	if (argc < 2 || sscanf(argv[1], "0000:00:%x.%x", &slot, &function) != 2)
		fatal("usage: micro 0000:00:SLOT.FUNCTION [loop]");
	floor_devfn = slot << 3 | function;
	prepare();
	if (argc > 2 && !strcmp(argv[2], "loop"))
		loop();
	printf("{\"micro\": {");
	measure_floor();
	measure_untracked();
	measure_map_unmap();
	print_result("write_map_again", map_again(), floor_.trap + floor_.map);
	measure_same();
	measure_remap();
	measure_invalidate(1);
	measure_invalidate(BURST);
	measure_invalidate_scattered();
	measure_invalidate(TABLE);
	measure_link("", true);
	measure_link("_again", false);
	measure_attach();
	measure_link_gated();
	printf("},\n\"scale\": [");
	measure_scale();
	printf("]}\n");
	env_close(&env);
	return 0;
}
