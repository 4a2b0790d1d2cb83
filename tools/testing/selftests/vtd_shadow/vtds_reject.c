// SPDX-License-Identifier: GPL-2.0
/*
 * What the guest or the VMM gets wrong is not mapped, and told: each reason that
 * can be provoked, with the event's fields and the counter. No DMA here.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "test.h"

FIXTURE(reject) {
	struct env e;
	struct dom d;
	u64 iova;
	u64 a;
};

FIXTURE_VARIANT(reject) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(reject, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(reject, amd) { .fmt = &fmt_amd };

static void start(struct env *e, struct dom *d, struct env_options o)
{
	o.nr_devs = 1;
	env_open(e, &o);
	*d = dom_alloc(e, 3);
	dom_set(e, 0, d);
}

#define START(...)								\
	do {									\
		start(&self->e, &self->d, (struct env_options) {		\
		      .fmt = variant->fmt, __VA_ARGS__ });			\
		self->a = vm_alloc(&self->e.vm, 1);				\
		ASSERT_TRUE(is_state(&self->e, 0, VTDS_STATE_SHADOW));		\
	} while (0)

FIXTURE_SETUP(reject)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	self->iova = 0x1234567000ull;
}

FIXTURE_TEARDOWN(reject)
{
	EXPECT_TRUE(has_no_event(&self->e));
	env_detach(&self->e, 0);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

static u64 rejects(struct env *e, u32 reason)
{
	return env_stats(e).rejects[reason];
}

/*
 * The vCPU writes @value as the entry of @level for @iova: refused for @reason,
 * with one event, and counted once. Then a good entry in the same place works.
 */
static bool is_refused(struct env *e, const struct dom *d, u64 iova, u32 level, u64 value,
		       u32 reason, u64 event_gpa)
{
	u64 at = dom_entry(e, d, iova, level), before = rejects(e, reason);
	u64 events = env_stats(e).events, start = iova & ~(level_bytes(level) - 1);
	u64 good = vm_alloc(&e->vm, 1), link = 0;

	vm_write64(&e->vm, at, value);
	env_flush(e);
	if (!is_unmapped(e, 0, iova) || !next_event_is(e, reason, start, event_gpa, level) ||
	    !has_no_event(e))
		return false;
	if (rejects(e, reason) != before + 1 || env_stats(e).events != events + 1) {
		fprintf(stderr, "# reason %u is counted %llu times, %llu events\n", reason,
			(rejects(e, reason) - before),
			(env_stats(e).events - events));
		return false;
	}
	/* written again as it is: not a change, not told again */
	vm_write64(&e->vm, at, value);
	if (!has_no_event(e))
		return false;
	if (level > 1) {
		link = vm_alloc(&e->vm, 1);
		vm_write64(&e->vm, link + 8 * table_index(iova, 1), e->fmt->leaf(good, 1, PERM_RW));
	}
	if (level > 2) {
		vm_write64(&e->vm, at, 0);
		return is_unmapped(e, 0, iova);
	}
	vm_write64(&e->vm, at, link ? e->fmt->link(link, 2, PERM_RW) :
		   e->fmt->leaf(good, 1, PERM_RW));
	return is_mapped(e, 0, iova, good + (iova & 0xfff), SIZE_4K, PERM_RW);
}

TEST_F(reject, address_above_width)
{
	struct env *e = &self->e;
	u64 high = 1ull << 40;
	u32 level;

	START(.gpa_bits = 40);
	for (level = 1; level <= e->levels; level++)
		ASSERT_TRUE(is_refused(e, &self->d, self->iova + level * SIZE_2M, level,
				       level == 1 ? e->fmt->leaf(high | self->a, 1, PERM_RW) :
				       e->fmt->link(high | self->a, level, PERM_RW),
				       VTDS_REASON_RESERVED_BITS, IGNORE));
}

/* AMD has no such promise: all sizes are allowed. */
TEST_F(reject, leaf_size_not_promised)
{
	struct env *e = &self->e;

	START(.page_sizes = SIZE_4K);
	if (e->fmt == &fmt_amd) {
		dom_map(e, &self->d, SIZE_1G, GPA_DATA_2M, 2, PERM_RW);
		ASSERT_TRUE(is_mapped(e, 0, SIZE_1G, GPA_DATA_2M, SIZE_2M, PERM_RW));
		return;
	}
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 2,
			       e->fmt->leaf(GPA_DATA_2M, 2, PERM_RW),
			       VTDS_REASON_RESERVED_BITS, IGNORE));
	ASSERT_TRUE(is_refused(e, &self->d, self->iova + SIZE_1G, 3,
			       e->fmt->leaf(0, 3, PERM_RW),
			       VTDS_REASON_RESERVED_BITS, IGNORE));
}

/* Leaves of 512 GiB and more: not in VT-d, not for us in AMD. */
TEST_F(reject, leaf_at_top_level)
{
	struct env *e = &self->e;
	u32 reason;

	START(.levels = 5);
	reason = e->fmt == &fmt_vtd ? VTDS_REASON_RESERVED_BITS : VTDS_REASON_UNSUPPORTED;
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 4, e->fmt->leaf(0, 4, PERM_RW),
			       reason, IGNORE));
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 5, e->fmt->leaf(0, 5, PERM_RW),
			       reason, IGNORE));
}

/* AMD does not look at the address bits below the size. */
TEST_F(reject, superpage_not_aligned)
{
	struct env *e = &self->e;
	u64 entry;

	START();
	entry = e->fmt->leaf(GPA_DATA_2M + SIZE_4K, 2, PERM_RW);
	if (e->fmt == &fmt_amd) {
		vm_write64(&e->vm, dom_entry(e, &self->d, SIZE_1G, 2), entry);
		ASSERT_TRUE(is_mapped(e, 0, SIZE_1G, GPA_DATA_2M, SIZE_2M, PERM_RW));
		return;
	}
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 2, entry, VTDS_REASON_RESERVED_BITS,
			       IGNORE));
}

TEST_F(reject, leaf_is_not_ram)
{
	struct env *e = &self->e;

	START();
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 1,
			       e->fmt->leaf(GPA_NOTHING, 1, PERM_RW),
			       VTDS_REASON_NOT_RAM, GPA_NOTHING));
	ASSERT_TRUE(is_refused(e, &self->d, self->iova + SIZE_2M, 2,
			       e->fmt->leaf(GPA_NOTHING, 2, PERM_RW),
			       VTDS_REASON_NOT_RAM, GPA_NOTHING));
}

/*
 * Slot 0 ends inside of this leaf: what is RAM is mapped, as hardware would have
 * it, the rest is a hole, told once.
 */
TEST_F(reject, superpage_with_a_hole)
{
	struct env *e = &self->e;
	struct vtds_stats before;

	START();
	dom_entry(e, &self->d, SIZE_1G, 3);
	before = env_stats(e);
	dom_map(e, &self->d, SIZE_1G, 0, 3, PERM_RW);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_NOT_RAM, SIZE_1G, GPA_RAM_END, 3));
	EXPECT_EQ(1, rejects(e, VTDS_REASON_NOT_RAM));
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G + self->a, self->a, SIZE_1G, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G + GPA_RAM_END - 1, GPA_RAM_END - 1, SIZE_1G,
			      PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G + GPA_RAM_END));
	ASSERT_TRUE(is_unmapped(e, 0, 2 * SIZE_1G - 1));
	ASSERT_TRUE(dma_reaches(e, 0, SIZE_1G + self->a, self->a, 512));
	EXPECT_EQ(before.pinned_pages + GPA_RAM_END / SIZE_4K, env_stats(e).pinned_pages);
	dom_unmap(e, &self->d, SIZE_1G, 3);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G + self->a));
	EXPECT_EQ(before.mappings, env_stats(e).mappings);
	EXPECT_EQ(before.pinned_pages, env_stats(e).pinned_pages);
}

TEST_F(reject, writable_leaf_of_read_only_memory)
{
	struct env *e = &self->e;

	START();
	vm_slot_add(&e->vm, SLOT_READONLY);
	ASSERT_TRUE(is_refused(e, &self->d, self->iova, 1,
			       e->fmt->leaf(GPA_READONLY, 1, PERM_RW),
			       VTDS_REASON_READ_ONLY, GPA_READONLY));
	dom_map(e, &self->d, self->iova, GPA_READONLY, 1, PERM_R);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, GPA_READONLY, SIZE_4K, PERM_R));
}

/* The host's MSI window. */
TEST_F(reject, reserved_region)
{
	struct env *e = &self->e;

	START();
	dom_map(e, &self->d, 0xfee00000, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_unmapped(e, 0, 0xfee00000));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_RESERVED_REGION, 0xfee00000, IGNORE, 1));
	EXPECT_EQ(1, rejects(e, VTDS_REASON_RESERVED_REGION));
	/* in a larger leaf it is a hole */
	dom_unmap(e, &self->d, 0xfee00000, 1);
	dom_map(e, &self->d, 0xfee00000, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_RESERVED_REGION, 0xfee00000, IGNORE, 2));
	ASSERT_TRUE(is_unmapped(e, 0, 0xfee00000));
	ASSERT_TRUE(is_unmapped(e, 0, 0xfeefffff));
	ASSERT_TRUE(is_mapped(e, 0, 0xfef00000, GPA_DATA_2M + 0x100000, SIZE_2M, PERM_RW));
	/* beside it */
	dom_map(e, &self->d, 0xfee00000 - SIZE_4K, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, 0xfee00000 - 1, self->a + 0xfff, SIZE_4K, PERM_RW));
}

TEST_F(reject, aperture)
{
	struct env *e = &self->e;
	u64 beyond;

	START(.levels = 5);
	beyond = e->last_iova + 1;
	if (!beyond || beyond >> 57) {
		/* wider than these tables: then their last page is fine */
		beyond = 1ull << 57;
		dom_map(e, &self->d, beyond - SIZE_4K, self->a, 1, PERM_RW);
		ASSERT_TRUE(is_mapped(e, 0, beyond - SIZE_4K, self->a, SIZE_4K, PERM_RW));
		return;
	}
	dom_map(e, &self->d, beyond, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_unmapped(e, 0, beyond));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_APERTURE, beyond, IGNORE, IGNORE));
	EXPECT_EQ(1, rejects(e, VTDS_REASON_APERTURE));
	/* the last page inside of it is fine */
	dom_map(e, &self->d, beyond - SIZE_4K, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, beyond - SIZE_4K, self->a, SIZE_4K, PERM_RW));
}

TEST_F(reject, table_is_not_ram)
{
	struct env *e = &self->e;
	u32 level;

	START();
	for (level = 2; level <= e->levels; level++)
		ASSERT_TRUE(is_refused(e, &self->d, self->iova, level,
				       e->fmt->link(GPA_NOTHING, level, PERM_RW),
				       VTDS_REASON_TABLE_ACCESS, GPA_NOTHING));
}

/* As root, RLIMIT_MEMLOCK holds only without this capability. */
static void drop_cap_ipc_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		fatal("capget");
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	data[0].permitted &= ~(1u << CAP_IPC_LOCK);
	data[0].inheritable &= ~(1u << CAP_IPC_LOCK);
	if (syscall(SYS_capset, &header, data))
		fatal("capset");
}

/* Of /proc/self/status, in KiB. */
static u64 locked_kb(void)
{
	char line[256];
	unsigned long long kb = ~0ull;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmLck: %llu", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

TEST_F(reject, memlock_limit)
{
	struct env *e = &self->e;
	struct rlimit limit;
	u64 i, before;

	START();
	/* tables are pinned and charged as well: have them all */
	dom_entry(e, &self->d, self->iova, 1);
	dom_entry(e, &self->d, self->iova + SIZE_1G, 2);
	before = locked_kb();
	limit.rlim_cur = before * 1024 + 4 * SIZE_4K;
	limit.rlim_max = limit.rlim_cur;
	drop_cap_ipc_lock();
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	for (i = 0; i < 4; i++) {
		dom_map(e, &self->d, self->iova + i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, 1,
			PERM_RW);
		ASSERT_TRUE(is_mapped(e, 0, self->iova + i * SIZE_4K,
				      GPA_DATA_2M + i * SIZE_4K, SIZE_4K, PERM_RW));
	}
	EXPECT_EQ(before + 16, locked_kb());
	/* pinned once, however often it is mapped */
	dom_map(e, &self->d, self->iova + 4 * SIZE_4K, GPA_DATA_2M, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, self->iova + 4 * SIZE_4K, GPA_DATA_2M, SIZE_4K, PERM_RW));
	EXPECT_EQ(before + 16, locked_kb());

	dom_map(e, &self->d, self->iova + 5 * SIZE_4K, GPA_DATA_2M + 9 * SIZE_4K, 1, PERM_RW);
	ASSERT_TRUE(is_unmapped(e, 0, self->iova + 5 * SIZE_4K));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_PIN, self->iova + 5 * SIZE_4K,
				  GPA_DATA_2M + 9 * SIZE_4K, 1));
	EXPECT_EQ(1, rejects(e, VTDS_REASON_PIN));
	/* a superpage that fits only in part is not mapped, and leaves nothing pinned */
	dom_unmap(e, &self->d, self->iova, 1);
	dom_unmap(e, &self->d, self->iova + 4 * SIZE_4K, 1);
	env_flush(e);
	EXPECT_EQ(before + 12, locked_kb());
	dom_map(e, &self->d, self->iova + SIZE_1G, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_PIN, IGNORE, IGNORE, 2));
	EXPECT_EQ(before + 12, locked_kb());
	dom_map(e, &self->d, self->iova, GPA_DATA_2M + 9 * SIZE_4K, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, GPA_DATA_2M + 9 * SIZE_4K, SIZE_4K, PERM_RW));
	EXPECT_EQ(before + 16, locked_kb());
	/* nor does one more table fit */
	i = dom_entry(e, &self->d, self->iova + 5 * SIZE_2M, 2);
	vm_write64(&e->vm, i, e->fmt->link(vm_alloc(&e->vm, 1), 2, PERM_RW));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_PIN, IGNORE, IGNORE, 2));
	env_set_root(e, false);
	EXPECT_GE(before, locked_kb());
}

TEST_F(reject, limit_of_mappings)
{
	struct env *e = &self->e;
	u64 i;

	START(.max_mappings = 16);
	for (i = 0; i < 17; i++)
		dom_map(e, &self->d, self->iova + i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, 1,
			PERM_RW);
	EXPECT_EQ(16, env_stats(e).mappings);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_LIMIT, self->iova + 16 * SIZE_4K, IGNORE, 1));
	ASSERT_TRUE(is_unmapped(e, 0, self->iova + 16 * SIZE_4K));
	dom_unmap(e, &self->d, self->iova, 1);
	env_flush(e);
	dom_map(e, &self->d, self->iova + 20 * SIZE_4K, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, self->iova + 20 * SIZE_4K, self->a, SIZE_4K, PERM_RW));
}

/* It holds for what is there in the end, not for both while one takes over. */
TEST_F(reject, limit_of_mappings_when_the_domain_changes)
{
	struct env *e = &self->e;
	struct dom other;
	u64 i;

	START(.max_mappings = 16);
	other = dom_alloc(e, e->levels);
	for (i = 0; i < 12; i++) {
		dom_map(e, &self->d, self->iova + i * SIZE_4K, self->a, 1, PERM_RW);
		dom_map(e, &other, self->iova + i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, 1,
			PERM_RW);
	}
	dom_set(e, 0, &other);
	for (i = 0; i < 12; i++)
		ASSERT_TRUE(is_mapped(e, 0, self->iova + i * SIZE_4K,
				      GPA_DATA_2M + i * SIZE_4K, SIZE_4K, PERM_RW));
	EXPECT_EQ(12, env_stats(e).mappings);
	drain_events(e);
}

/* The same of tables: there is not even room for the new top table. */
TEST_F(reject, limit_of_tables_when_the_domain_changes)
{
	struct env *e = &self->e;
	struct dom other;

	START(.max_tables = 4);
	other = dom_alloc(e, e->levels);
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	dom_map(e, &self->d, self->iova + SIZE_2M, self->a, 1, PERM_RW);
	EXPECT_EQ(4, env_stats(e).tables);
	dom_map(e, &other, self->iova, GPA_DATA_2M, 1, PERM_RW);
	dom_set(e, 0, &other);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, GPA_DATA_2M, SIZE_4K, PERM_RW));
	drain_events(e);
}

/* It counts 4 KiB pages, however they are mapped. */
TEST_F(reject, limit_of_mappings_by_superpages)
{
	struct env *e = &self->e;

	START(.max_mappings = 1000);
	dom_map(e, &self->d, SIZE_1G, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G, GPA_DATA_2M, SIZE_2M, PERM_RW));
	dom_map(e, &self->d, SIZE_1G + SIZE_2M, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_LIMIT, SIZE_1G + SIZE_2M, IGNORE, 2));
	ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G + SIZE_2M));
	dom_unmap(e, &self->d, SIZE_1G, 2);
	env_flush(e);
	dom_unmap(e, &self->d, SIZE_1G + SIZE_2M, 2);
	dom_map(e, &self->d, SIZE_1G + SIZE_2M, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G + SIZE_2M, GPA_DATA_2M, SIZE_2M, PERM_RW));
}

/* All of 512 entries point to their own table: 512^n tables if nobody counted. */
TEST_F(reject, table_bomb)
{
	struct env *e = &self->e;
	u64 bomb, at;
	u32 level;

	START(.max_tables = 40, .max_mappings = 4000);
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	level = e->last_iova >> 40 ? 4 : 3;
	bomb = vm_alloc(&e->vm, 1);
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_REP_STOS, .gpa = bomb,
		.value = e->fmt->link(bomb, level - 1, PERM_RW), .width = 8, .count = 512 });
	at = dom_entry(e, &self->d, level_bytes(level), level);
	vm_write64(&e->vm, at, e->fmt->link(bomb, level, PERM_RW));
	EXPECT_GE(40, env_stats(e).tables);
	EXPECT_GE(4000, env_stats(e).mappings);
	EXPECT_LE(1, rejects(e, VTDS_REASON_LIMIT));
	EXPECT_LE(1, drain_events(e));
	vm_write64(&e->vm, bomb + 8 * 17, 0);
	vm_write64(&e->vm, bomb + 8 * 17, e->fmt->link(bomb, level - 1, PERM_RW));
	EXPECT_GE(40, env_stats(e).tables);
	/* it goes as a whole, and what was there before still works */
	vm_write64(&e->vm, at, 0);
	env_flush(e);
	drain_events(e);
	EXPECT_EQ(1, env_stats(e).mappings);
	EXPECT_EQ(e->levels, env_stats(e).tables);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	dom_map(e, &self->d, self->iova + SIZE_2M, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, self->iova + SIZE_2M, self->a, SIZE_4K, PERM_RW));
}

/* Root and context entries of VT-d. */
FIXTURE(context) {
	struct env e;
	struct dom d;
	u64 root_at;
	u64 at;
	u64 a;
};

FIXTURE_SETUP(context)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(&fmt_vtd))
		SKIP(return, NOT_OFFERED);
	start(e, &self->d, (struct env_options) { .fmt = &fmt_vtd, .gpa_bits = 40 });
	self->a = vm_alloc(&e->vm, 1);
	dom_map(e, &self->d, 0, self->a, 1, PERM_RW);
	self->root_at = e->root_gpa + 16 * (e->rid[0] >> 8);
	self->at = (vm_read64(&e->vm, self->root_at) & ~0xfffull) + 16 * (e->rid[0] & 0xff);
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
}

FIXTURE_TEARDOWN(context)
{
	struct env *e = &self->e;

	drain_events(e);
	env_detach(e, 0);
	EXPECT_TRUE(is_released(e));
	env_close(e);
}

/* The entry at @at becomes @bad: blocked, told, counted; @good makes it well again. */
static bool blocks(struct env *e, u64 at, u64 bad, u64 good, u32 reason)
{
	u64 before = rejects(e, reason);

	vm_write64(&e->vm, at, bad);
	if (!is_state(e, 0, VTDS_STATE_BLOCKED) || !is_unmapped(e, 0, 0) ||
	    !next_event_is(e, reason, 0, IGNORE, 0) || rejects(e, reason) <= before)
		return false;
	vm_write64(&e->vm, at, good);
	drain_events(e);
	return is_state(e, 0, VTDS_STATE_SHADOW);
}

TEST_F(context, root_entry_reserved)
{
	struct env *e = &self->e;
	u64 good = vm_read64(&e->vm, self->root_at);

	ASSERT_TRUE(blocks(e, self->root_at, good | 2, good, VTDS_REASON_ROOT_RESERVED));
	ASSERT_TRUE(blocks(e, self->root_at, good | 1ull << 40, good,
			   VTDS_REASON_ROOT_RESERVED));
	ASSERT_TRUE(blocks(e, self->root_at + 8, 1, 0, VTDS_REASON_ROOT_RESERVED));
}

/* Another context table, and back, by one store each. */
TEST_F(context, root_entry_changes)
{
	struct env *e = &self->e;
	struct dom other = dom_alloc(e, 4);
	u64 first = vm_read64(&e->vm, self->root_at), second, b = vm_alloc(&e->vm, 1);

	dom_map(e, &other, 0, b, 1, PERM_RW);
	vm_write64(&e->vm, self->root_at, 0);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	dom_set(e, 0, &other);
	second = vm_read64(&e->vm, self->root_at);
	ASSERT_NE(first, second);
	ASSERT_TRUE(is_mapped(e, 0, 0, b, SIZE_4K, PERM_RW));
	vm_write64(&e->vm, self->root_at, first);
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, 0, self->a, 256));
	vm_store(&e->vm, self->root_at, second, 4);
	ASSERT_TRUE(is_mapped(e, 0, 0, b, SIZE_4K, PERM_RW));
	EXPECT_TRUE(has_no_event(e));
}

TEST_F(context, context_table_not_ram)
{
	struct env *e = &self->e;
	u64 good = vm_read64(&e->vm, self->root_at);

	ASSERT_TRUE(blocks(e, self->root_at, GPA_NOTHING | 1, good,
			   VTDS_REASON_CONTEXT_ACCESS));
}

TEST_F(context, context_entry_reserved)
{
	struct env *e = &self->e;
	u64 lo = vm_read64(&e->vm, self->at), hi = vm_read64(&e->vm, self->at + 8);

	ASSERT_TRUE(blocks(e, self->at, lo | 1ull << 40, lo, VTDS_REASON_CONTEXT_RESERVED));
	ASSERT_TRUE(blocks(e, self->at, lo | 1 << 4, lo, VTDS_REASON_CONTEXT_RESERVED));
	ASSERT_TRUE(blocks(e, self->at + 8, hi | 1ull << 24, hi, VTDS_REASON_CONTEXT_RESERVED));
}

TEST_F(context, context_entry_asks_too_much)
{
	struct env *e = &self->e;
	u64 lo = vm_read64(&e->vm, self->at), hi = vm_read64(&e->vm, self->at + 8);

	/* no device TLB was promised; translation type 3 does not exist */
	ASSERT_TRUE(blocks(e, self->at, lo | 1 << 2, lo, VTDS_REASON_CONTEXT_INVALID));
	ASSERT_TRUE(blocks(e, self->at, lo | 3 << 2, lo, VTDS_REASON_CONTEXT_INVALID));
	/* address widths of 2 and 6 levels */
	ASSERT_TRUE(blocks(e, self->at + 8, hi & ~7ull, hi, VTDS_REASON_CONTEXT_INVALID));
	ASSERT_TRUE(blocks(e, self->at + 8, (hi & ~7ull) | 4, hi,
			   VTDS_REASON_CONTEXT_INVALID));
}

TEST_F(context, top_table_not_ram)
{
	struct env *e = &self->e;
	u64 lo = vm_read64(&e->vm, self->at);

	vm_write64(&e->vm, self->at, GPA_NOTHING | 1);
	ASSERT_TRUE(is_unmapped(e, 0, 0));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_TABLE_ACCESS, IGNORE, GPA_NOTHING, IGNORE));
	vm_write64(&e->vm, self->at, lo);
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
}

TEST_F(context, root_table_not_ram)
{
	struct env *e = &self->e;
	u64 good = e->root_gpa;

	e->root_gpa = GPA_NOTHING;
	env_set_root(e, true);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_ROOT_ACCESS, IGNORE, GPA_NOTHING, 0));
	EXPECT_LE(1, rejects(e, VTDS_REASON_ROOT_ACCESS));
	e->root_gpa = good;
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
}

/* Device table entries of AMD, which count when the guest has them invalidated. */
FIXTURE(device_entry) {
	struct env e;
	struct dom d;
	u64 at;
	u64 a;
};

FIXTURE_SETUP(device_entry)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(&fmt_amd))
		SKIP(return, NOT_OFFERED);
	start(e, &self->d, (struct env_options) { .fmt = &fmt_amd, .gpa_bits = 40 });
	self->a = vm_alloc(&e->vm, 1);
	dom_map(e, &self->d, 0, self->a, 1, PERM_RW);
	self->at = e->root_gpa + 32 * e->rid[0];
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
}

FIXTURE_TEARDOWN(device_entry)
{
	env_detach(&self->e, 0);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

static bool entry_blocks(struct env *e, u64 at, u64 bad, u32 reason)
{
	u64 good = vm_read64(&e->vm, at), before = rejects(e, reason);

	vm_write64(&e->vm, at, bad);
	env_inv_device(e, 0);
	if (!is_state(e, 0, VTDS_STATE_BLOCKED) || !is_unmapped(e, 0, 0) ||
	    !next_event_is(e, reason, 0, IGNORE, 0) || rejects(e, reason) <= before)
		return false;
	vm_write64(&e->vm, at, good);
	env_inv_device(e, 0);
	drain_events(e);
	return is_state(e, 0, VTDS_STATE_SHADOW);
}

TEST_F(device_entry, refused)
{
	struct env *e = &self->e;
	u64 q0 = vm_read64(&e->vm, self->at);

	ASSERT_TRUE(entry_blocks(e, self->at, q0 | 1 << 2, VTDS_REASON_CONTEXT_RESERVED));
	ASSERT_TRUE(entry_blocks(e, self->at, q0 | 1ull << 63, VTDS_REASON_CONTEXT_RESERVED));
	ASSERT_TRUE(entry_blocks(e, self->at, q0 | 1ull << 40, VTDS_REASON_CONTEXT_RESERVED));
	ASSERT_TRUE(entry_blocks(e, self->at, q0 | 7 << 9, VTDS_REASON_CONTEXT_INVALID));
	/* guest translation (GCR3) */
	ASSERT_TRUE(entry_blocks(e, self->at, q0 | 1ull << 55, VTDS_REASON_UNSUPPORTED));
}

TEST_F(device_entry, outside_of_the_table)
{
	struct env *e = &self->e;

	/* 128 entries: not that of requester id 0x118, but that of 0x10 */
	e->root_bytes = SIZE_4K;
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, 0, self->a, SIZE_4K, PERM_RW));
	env_detach(e, 0);
	e->rid[0] = 0x118;
	env_attach(e, 0);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	drain_events(e);
}

/* Every power of two between two levels fills several entries. */
TEST_F(device_entry, leaf_of_any_power_of_two)
{
	struct env *e = &self->e;
	u64 bytes, i, n, unit, value;
	u32 level;

	for (bytes = 2 * SIZE_4K; bytes <= 2 * SIZE_2M; bytes *= 2) {
		if (bytes == SIZE_2M)
			continue;
		level = bytes > SIZE_2M ? 2 : 1;
		unit = level_bytes(level);
		n = bytes / unit;
		value = e->fmt->leaf(GPA_DATA_2M, level, PERM_RW) | 7 << 9 |
			((bytes / 2 - 1) & ~0xfffull);
		for (i = 0; i < n; i++)
			vm_write64(&e->vm, dom_entry(e, &self->d, SIZE_1G + i * unit, level),
				   value);
		for (i = 0; i < n; i += n / 2)
			ASSERT_TRUE(is_mapped(e, 0, SIZE_1G + i * unit + 0x123,
					      GPA_DATA_2M + i * unit + 0x123, unit, PERM_RW));
		ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G + bytes));
		for (i = 0; i < n; i++)
			dom_unmap(e, &self->d, SIZE_1G + i * unit, level);
		env_flush(e);
		dom_unmap(e, &self->d, SIZE_1G, 2);
		ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G));
	}
	EXPECT_TRUE(has_no_event(e));
}

TEST_F(device_entry, levels_are_skipped)
{
	struct env *e = &self->e;
	u64 table = vm_alloc(&e->vm, 1), at = self->d.top_gpa + 8, iova = 1ull << 39;

	vm_write64(&e->vm, table + 8 * 7, e->fmt->leaf(self->a, 1, PERM_RW));
	/* level 4 points to a leaf table: link() of level 2 has next level 1 */
	vm_write64(&e->vm, at, e->fmt->link(table, 2, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova + 7 * SIZE_4K, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova + SIZE_2M + 7 * SIZE_4K));
	ASSERT_TRUE(is_unmapped(e, 0, iova + SIZE_1G + 7 * SIZE_4K));
	ASSERT_TRUE(dma_reaches(e, 0, iova + 7 * SIZE_4K, self->a, 256));
	vm_write64(&e->vm, table + 8 * 7, 0);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, iova + 7 * SIZE_4K));
	/* a level may not be repeated */
	vm_write64(&e->vm, at, e->fmt->link(table, 5, PERM_RW));
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_RESERVED_BITS, iova, IGNORE, 4));
}

/* Events: the file as such. */
FIXTURE(events) {
	struct env e;
	struct dom d;
};

FIXTURE_VARIANT(events) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(events, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(events, amd) { .fmt = &fmt_amd };

FIXTURE_SETUP(events)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	start(&self->e, &self->d, (struct env_options) { .fmt = variant->fmt });
}

FIXTURE_TEARDOWN(events)
{
	env_close(&self->e);
}

/* @nr refused leaf entries in a row; those of different rounds differ. */
static void provoke(struct env *e, const struct dom *d, u32 nr, u32 round)
{
	static struct guest_write w[512];
	u64 at = dom_entry(e, d, 0, 1);
	u32 i;

	for (i = 0; i < nr; i++)
		w[i] = (struct guest_write) { .op = GUEST_STORE, .width = 8, .gpa = at + 8 * i,
			.value = e->fmt->leaf(GPA_NOTHING + (i + round) * SIZE_4K, 1, PERM_RW) };
	vm_batch(&e->vm, 0, w, nr);
}

static short poll_ctx(struct env *e)
{
	struct pollfd p = { .fd = e->ctx, .events = POLLIN };

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

TEST_F(events, read_and_poll)
{
	struct env *e = &self->e;
	struct vtds_event ev[8];
	u32 i;

	EXPECT_EQ(0, poll_ctx(e));
	EXPECT_EQ(-1, read(e->ctx, ev, sizeof(ev)));
	EXPECT_EQ(EAGAIN, errno);
	provoke(e, &self->d, 5, 0);
	EXPECT_EQ(POLLIN, poll_ctx(e) & POLLIN);
	EXPECT_EQ(-1, read(e->ctx, ev, sizeof(ev[0]) - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(e->ctx, bad_pointer(), sizeof(ev)));
	EXPECT_EQ(EFAULT, errno);
	/* whole events only; a bad buffer costs none */
	ASSERT_EQ(2 * sizeof(ev[0]), read(e->ctx, ev, 3 * sizeof(ev[0]) - 1));
	ASSERT_EQ(3 * sizeof(ev[0]), read(e->ctx, ev + 2, 6 * sizeof(ev[0])));
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(VTDS_REASON_NOT_RAM, ev[i].reason);
		EXPECT_EQ(e->rid[0], ev[i].requester_id);
		EXPECT_EQ(i * SIZE_4K, ev[i].iova);
		EXPECT_EQ(GPA_NOTHING + i * SIZE_4K, ev[i].gpa);
		EXPECT_EQ(1, ev[i].level);
		EXPECT_EQ(0, ev[i].lost);
	}
	EXPECT_EQ(0, poll_ctx(e));
	EXPECT_EQ(5, env_stats(e).events);
	EXPECT_EQ(5, rejects(e, VTDS_REASON_NOT_RAM));
}

static void *read_one(void *arg)
{
	struct env *e = arg;
	static struct vtds_event ev;

	return read(e->ctx, &ev, sizeof(ev)) == sizeof(ev) ? &ev : NULL;
}

TEST_F(events, read_waits)
{
	struct env *e = &self->e;
	pthread_t reader;
	void *ev;

	ASSERT_EQ(0, fcntl(e->ctx, F_SETFL, 0));
	ASSERT_EQ(0, pthread_create(&reader, NULL, read_one, e));
	sleep_ms(100);
	EXPECT_EQ(EBUSY, pthread_tryjoin_np(reader, &ev));
	provoke(e, &self->d, 1, 0);
	ASSERT_EQ(0, pthread_join(reader, &ev));
	ASSERT_TRUE(!!ev);
	EXPECT_EQ(VTDS_REASON_NOT_RAM, ((struct vtds_event *)ev)->reason);
}

/* Nobody reads: events are dropped, and it is known how many. */
TEST_F(events, overflow)
{
	struct env *e = &self->e;
	struct vtds_stats s;
	u32 round;

	for (round = 0; round < 20 && !env_stats(e).events_lost; round++)
		provoke(e, &self->d, 512, round);
	s = env_stats(e);
	ASSERT_LT(0, s.events_lost);
	EXPECT_EQ(512 * round, s.events);
	EXPECT_EQ(s.events, rejects(e, VTDS_REASON_NOT_RAM));
	EXPECT_GT(s.events, s.events_lost);
	/* the next event that is not lost tells how many were */
	EXPECT_GE(s.events, drain_events(e));
	provoke(e, &self->d, 1, round);
	EXPECT_EQ(1, env_stats(e).events - s.events);
	EXPECT_EQ(s.events_lost, env_stats(e).events_lost);
}

/* Every event is read or told as lost. */
TEST_F(events, all_are_accounted_for)
{
	struct env *e = &self->e;
	u64 seen;
	u32 round;

	for (round = 0; round < 20 && !env_stats(e).events_lost; round++)
		provoke(e, &self->d, 512, round);
	seen = drain_events(e);
	provoke(e, &self->d, 1, round);
	seen += drain_events(e);
	EXPECT_EQ(env_stats(e).events, seen);
}

TEST_HARNESS_MAIN
