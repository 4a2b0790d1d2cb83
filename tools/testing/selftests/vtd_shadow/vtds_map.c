// SPDX-License-Identifier: GPL-2.0
/*
 * What the guest maps is what the device reaches, as soon as the instruction that
 * wrote the entry has retired. No DMA here goes wrong on purpose: the host's IOMMU
 * has nothing to complain of (vtds_fault has those).
 */
#include "test.h"

/* An IOVA with a different index at each level, as far as the host can go. */
static u64 some_iova(struct env *e)
{
	u64 iova = 0x1234567000ull;

	if (e->levels > 3 && e->last_iova >> 40)
		iova |= 1ull << 39;
	return iova;
}

FIXTURE(map) {
	struct env e;
	struct dom d;
	u64 iova;
	u64 a, b;
};

FIXTURE_VARIANT(map) {
	const struct fmt *fmt;
	u32 levels;
};

FIXTURE_VARIANT_ADD(map, vtd_3) { .fmt = &fmt_vtd, .levels = 3 };
FIXTURE_VARIANT_ADD(map, vtd_4) { .fmt = &fmt_vtd, .levels = 4 };
FIXTURE_VARIANT_ADD(map, vtd_5) { .fmt = &fmt_vtd, .levels = 5 };
FIXTURE_VARIANT_ADD(map, amd_3) { .fmt = &fmt_amd, .levels = 3 };
FIXTURE_VARIANT_ADD(map, amd_4) { .fmt = &fmt_amd, .levels = 4 };
FIXTURE_VARIANT_ADD(map, amd_6) { .fmt = &fmt_amd, .levels = 6 };

FIXTURE_SETUP(map)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(&self->e, &(struct env_options) { .fmt = variant->fmt,
		 .levels = variant->levels, .nr_devs = 1 });
	self->d = dom_alloc(&self->e, 1);
	dom_set(&self->e, 0, &self->d);
	self->iova = some_iova(&self->e);
	self->a = vm_alloc(&self->e.vm, 1);
	self->b = vm_alloc(&self->e.vm, 1);
	ASSERT_TRUE(is_state(&self->e, 0, VTDS_STATE_SHADOW));
	ASSERT_TRUE(is_unmapped(&self->e, 0, self->iova));
}

/* Every test of this fixture leaves the guest with valid tables: no complaints. */
FIXTURE_TEARDOWN(map)
{
	EXPECT_TRUE(has_no_event(&self->e));
	env_detach(&self->e, 0);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

TEST_F(map, map_unmap_remap)
{
	struct env *e = &self->e;
	u64 iova = self->iova;

	dom_map(e, &self->d, iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, iova + 0x123, self->a + 0x123, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova - 1));
	ASSERT_TRUE(is_unmapped(e, 0, iova + SIZE_4K));
	ASSERT_TRUE(dma_reaches(e, 0, iova + 1, self->a + 1, 4000));

	dom_unmap(e, &self->d, iova, 1);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, iova));

	dom_map(e, &self->d, iova, self->b, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, iova, self->b, 64));

	/* changed in place: the new value counts before any invalidation */
	dom_map(e, &self->d, iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, iova, self->a, SIZE_4K, PERM_RW));
	env_flush(e);
	ASSERT_TRUE(is_mapped(e, 0, iova, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, iova, self->a, 64));
}

/* Removed and put back before the guest invalidates: the same and another page. */
TEST_F(map, put_back_without_invalidation)
{
	struct env *e = &self->e;
	struct vtds_stats before, after;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	dom_unmap(e, &self->d, self->iova, 1);
	before = env_stats(e);
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	after = env_stats(e);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	EXPECT_EQ(before.writes + 1, after.writes);
	EXPECT_EQ(0, after.queued);

	dom_unmap(e, &self->d, self->iova, 1);
	dom_map(e, &self->d, self->iova, self->b, 1, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 64));
}

/* Fewer permissions may wait for an invalidation, more may not. */
TEST_F(map, leaf_permissions)
{
	static const u32 to[] = { PERM_R, PERM_W, PERM_RW, PERM_W, PERM_R, PERM_RW };
	struct env *e = &self->e;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(to); i++) {
		dom_map(e, &self->d, self->iova, self->a, 1, to[i]);
		if (to[i] != PERM_RW)
			env_flush(e);
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, to[i]));
	}
}

TEST_F(map, link_permissions)
{
	struct env *e = &self->e;
	u64 at, child;
	u32 level;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	for (level = e->levels; level > 1; level--) {
		at = dom_entry(e, &self->d, self->iova, level);
		child = e->fmt->decode(e, vm_read64(&e->vm, at), level, 0).gpa;
		vm_write64(&e->vm, at, e->fmt->link(child, level, PERM_R));
		env_flush(e);
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_R));
		vm_write64(&e->vm, at, e->fmt->link(child, level, PERM_W));
		env_flush(e);
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_W));
		/* nothing is left of R here and W below */
		dom_map(e, &self->d, self->iova, self->a, 1, PERM_R);
		env_flush(e);
		ASSERT_TRUE(is_unmapped(e, 0, self->iova));
		vm_write64(&e->vm, at, e->fmt->link(child, level, PERM_RW));
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_R));
		dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	}
}

/* The permitted direction of each works for real DMA; the other is in vtds_fault. */
TEST_F(map, one_way_dma)
{
	struct env *e = &self->e;
	u8 *a = vm_host(&e->vm, self->a), *b = vm_host(&e->vm, self->b);

	if (!dev_can_dma(&e->dev[0]))
		SKIP(return, "device is not edu");
	memset(a, 0xa5, SIZE_4K);
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_R);
	dom_map(e, &self->d, self->iova + SIZE_4K, self->b, 1, PERM_W);
	edu_read(&e->dev[0], self->iova, 0, 2048);
	edu_write(&e->dev[0], self->iova + SIZE_4K, 0, 2048);
	EXPECT_EQ(0, memcmp(a, b, 2048));
	EXPECT_EQ(0, b[2048]);
}

TEST_F(map, leaf_of_2m)
{
	struct env *e = &self->e;
	u64 iova = self->iova & ~(SIZE_2M - 1), last = SIZE_2M - 1, table, i, at;

	dom_map(e, &self->d, iova, GPA_DATA_2M, 2, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, iova, GPA_DATA_2M, SIZE_2M, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova + last, GPA_DATA_2M + last, SIZE_2M, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova - 1));
	ASSERT_TRUE(is_unmapped(e, 0, iova + SIZE_2M));
	EXPECT_EQ(1, env_stats(e).mappings);
	ASSERT_TRUE(dma_reaches(e, 0, iova + 0x1ff801, GPA_DATA_2M + 0x1ff801, 2000));
	ASSERT_TRUE(dma_reaches(e, 0, iova + 0xff801, GPA_DATA_2M + 0xff801, 4000));

	/* a table in place of the leaf, with other pages behind it; then back */
	at = dom_entry(e, &self->d, iova, 2);
	table = vm_alloc(&e->vm, 1);
	for (i = 0; i < 8; i++)
		vm_write64(&e->vm, table + 8 * i,
			   e->fmt->leaf(GPA_DATA_2M + SIZE_2M + i * SIZE_4K, 1, PERM_RW));
	vm_write64(&e->vm, at, e->fmt->link(table, 2, PERM_RW));
	env_flush(e);
	for (i = 0; i < 8; i++)
		ASSERT_TRUE(is_mapped(e, 0, iova + i * SIZE_4K,
				      GPA_DATA_2M + SIZE_2M + i * SIZE_4K, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova + 8 * SIZE_4K));
	ASSERT_TRUE(dma_reaches(e, 0, iova + 2 * SIZE_4K + 100,
				GPA_DATA_2M + SIZE_2M + 2 * SIZE_4K + 100, 4000));
	vm_write64(&e->vm, at, e->fmt->leaf(GPA_DATA_2M, 2, PERM_R));
	env_flush(e);
	ASSERT_TRUE(is_mapped(e, 0, iova + last, GPA_DATA_2M + last, SIZE_2M, PERM_R));
}

/* Neighbouring leaves stay apart: one can go without the others. */
TEST_F(map, contiguous_leaves_stay_single)
{
	struct env *e = &self->e;
	u64 iova = self->iova & ~(SIZE_2M - 1), i;
	static struct guest_write w[512];

	for (i = 0; i < 512; i++)
		w[i] = (struct guest_write) { .op = GUEST_STORE, .width = 8,
			.gpa = dom_entry(e, &self->d, iova, 1) + 8 * i,
			.value = e->fmt->leaf(GPA_DATA_2M + i * SIZE_4K, 1, PERM_RW) };
	vm_batch(&e->vm, 0, w, 512);
	EXPECT_EQ(512, env_stats(e).mappings);
	for (i = 0; i < 512; i += 37)
		ASSERT_TRUE(is_mapped(e, 0, iova + i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K,
				      SIZE_4K, PERM_RW));
	dom_unmap(e, &self->d, iova + 256 * SIZE_4K, 1);
	env_flush(e);
	ASSERT_TRUE(is_mapped(e, 0, iova + 255 * SIZE_4K, GPA_DATA_2M + 255 * SIZE_4K,
			      SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova + 256 * SIZE_4K));
	ASSERT_TRUE(is_mapped(e, 0, iova + 257 * SIZE_4K, GPA_DATA_2M + 257 * SIZE_4K,
			      SIZE_4K, PERM_RW));
	EXPECT_EQ(511, env_stats(e).mappings);
	ASSERT_TRUE(dma_reaches(e, 0, iova + 255 * SIZE_4K, GPA_DATA_2M + 255 * SIZE_4K, 4000));
}

/* The third leaf of make_subtree(): in another table, if the host goes that far. */
static u64 far_from(struct env *e, u64 iova, u32 level)
{
	u64 far = iova ^ (level_bytes(level) * 3);

	return far <= e->last_iova ? far : iova ^ (2 * SIZE_4K);
}

/* A tree of @level with three leaves, which is linked nowhere yet. */
static struct dom make_subtree(struct env *e, u64 iova, u32 level, u64 a, u64 b)
{
	struct dom sub = { .top_gpa = vm_alloc(&e->vm, 1), .levels = level };
	u64 mask = level_bytes(level + 1) - 1, inside = iova & mask;

	dom_map(e, &sub, inside, a, 1, PERM_RW);
	dom_map(e, &sub, inside ^ SIZE_4K, b, 1, PERM_R);
	dom_map(e, &sub, far_from(e, iova, level) & mask, b, 1, PERM_W);
	return sub;
}

TEST_F(map, populated_tables_linked_and_unlinked)
{
	struct env *e = &self->e;
	u64 iova = self->iova, far, at;
	struct vtds_stats before;
	struct dom sub;
	u32 level;

	for (level = e->levels - 1; level; level--) {
		sub = make_subtree(e, iova, level, self->a, self->b);
		far = far_from(e, iova, level);
		at = dom_entry(e, &self->d, iova, level + 1);
		vm_write64(&e->vm, at, 0);
		env_flush(e);
		ASSERT_TRUE(is_unmapped(e, 0, iova));
		before = env_stats(e);

		vm_write64(&e->vm, at, e->fmt->link(sub.top_gpa, level + 1, PERM_RW));
		ASSERT_TRUE(is_mapped(e, 0, iova, self->a, SIZE_4K, PERM_RW));
		ASSERT_TRUE(is_mapped(e, 0, iova ^ SIZE_4K, self->b, SIZE_4K, PERM_R));
		ASSERT_TRUE(is_mapped(e, 0, far, self->b, SIZE_4K, PERM_W));
		EXPECT_LT(before.tables, env_stats(e).tables);

		vm_write64(&e->vm, at, 0);
		env_flush(e);
		ASSERT_TRUE(is_unmapped(e, 0, iova));
		ASSERT_TRUE(is_unmapped(e, 0, iova ^ SIZE_4K));
		ASSERT_TRUE(is_unmapped(e, 0, far));
		EXPECT_EQ(before.tables, env_stats(e).tables);
		EXPECT_EQ(before.tracked_pages, env_stats(e).tracked_pages);

		vm_write64(&e->vm, at, e->fmt->link(sub.top_gpa, level + 1, PERM_RW));
		ASSERT_TRUE(is_mapped(e, 0, iova, self->a, SIZE_4K, PERM_RW));
	}
	ASSERT_TRUE(dma_reaches(e, 0, iova, self->a, 128));
}

/* One leaf table in three places: a write to it counts in all of them. */
TEST_F(map, table_linked_thrice)
{
	struct env *e = &self->e;
	u64 table = vm_alloc(&e->vm, 1), at[3], iova[3], entry;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		iova[i] = self->iova + i * SIZE_2M;
		at[i] = dom_entry(e, &self->d, iova[i], 2);
		vm_write64(&e->vm, at[i], e->fmt->link(table, 2, i == 2 ? PERM_R : PERM_RW));
	}
	entry = table + 8 * table_index(self->iova, 1);
	vm_write64(&e->vm, entry, e->fmt->leaf(self->a, 1, PERM_RW));
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(is_mapped(e, 0, iova[i], self->a, SIZE_4K,
				      i == 2 ? PERM_R : PERM_RW));
	vm_write64(&e->vm, at[0], 0);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, iova[0]));
	vm_write64(&e->vm, entry, e->fmt->leaf(self->b, 1, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, iova[0]));
	ASSERT_TRUE(is_mapped(e, 0, iova[1], self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova[2], self->b, SIZE_4K, PERM_R));
	vm_write64(&e->vm, entry, 0);
	env_flush(e);
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(is_unmapped(e, 0, iova[i]));
}

/*
 * The same page as leaf table and as table of level 2: its entry is a leaf in the
 * one role (bit 7 is not looked at there) and a 2 MiB leaf in the other.
 */
TEST_F(map, one_page_in_two_roles)
{
	struct env *e = &self->e;
	u64 iova = self->iova & ~(SIZE_1G - 1), table = vm_alloc(&e->vm, 1), at3, at2, in_l2;

	at3 = dom_entry(e, &self->d, iova, 3);
	vm_write64(&e->vm, at3, e->fmt->link(table, 3, PERM_RW));
	/* entry 0: the page itself, as the leaf table of the first 2 MiB */
	at2 = table;
	vm_write64(&e->vm, at2, e->fmt->link(table, 2, PERM_RW));
	in_l2 = table + 8 * 5;
	vm_write64(&e->vm, in_l2, e->fmt->leaf(GPA_DATA_2M, 2, PERM_RW));
	ASSERT_TRUE(is_as_walked(e, 0, iova));
	ASSERT_TRUE(is_as_walked(e, 0, iova + 5 * SIZE_4K));
	ASSERT_TRUE(is_as_walked(e, 0, iova + 5 * SIZE_2M));
	ASSERT_TRUE(is_mapped(e, 0, iova + 5 * SIZE_2M, GPA_DATA_2M, SIZE_2M, PERM_RW));
	vm_write64(&e->vm, in_l2, 0);
	vm_write64(&e->vm, at2, 0);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, iova));
	ASSERT_TRUE(is_unmapped(e, 0, iova + 5 * SIZE_4K));
	ASSERT_TRUE(is_unmapped(e, 0, iova + 5 * SIZE_2M));
	/* AMD: the link is refused in the role of a leaf table */
	if (e->fmt == &fmt_amd)
		EXPECT_EQ(1, drain_events(e));
}

/*
 * The top table is its own child: with VT-d all the way down to a leaf that maps
 * itself; AMD's entries tell their level, so that it ends one level down.
 */
TEST_F(map, self_reference)
{
	struct env *e = &self->e;
	u64 at = self->d.top_gpa;

	vm_write64(&e->vm, at, e->fmt->link(self->d.top_gpa, e->levels, PERM_RW));
	ASSERT_TRUE(is_as_walked(e, 0, 0));
	ASSERT_TRUE(e->fmt == &fmt_vtd ?
		    is_mapped(e, 0, 0, self->d.top_gpa, SIZE_4K, PERM_RW) :
		    next_event_is(e, VTDS_REASON_RESERVED_BITS, 0, IGNORE, e->levels - 1));
	vm_write64(&e->vm, at, 0);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, 0));
	EXPECT_EQ(0, env_stats(e).mappings);
}

/*
 * Each kind of write to an entry. The value lies above 4 GiB, so that both halves
 * count, and in an alias of slot 0, so that no intermediate state is out of RAM.
 */
struct recipe {
	char name[28];
	u32 op, width;
	int first, step;		/* offsets in the entry: first, then by step */
	u32 count;
	bool or_in;		/* the value is there but for the present bits */
};

static const struct recipe recipes[] = {
	{ "8 bytes", GUEST_STORE, 8, 0, 0, 1 },
	{ "4 bytes, low half first", GUEST_STORE, 4, 0, 4, 2 },
	{ "4 bytes, high half first", GUEST_STORE, 4, 4, -4, 2 },
	{ "2 bytes, up", GUEST_STORE, 2, 0, 2, 4 },
	{ "2 bytes, down", GUEST_STORE, 2, 6, -2, 4 },
	{ "1 byte, up", GUEST_STORE, 1, 0, 1, 8 },
	{ "1 byte, down", GUEST_STORE, 1, 7, -1, 8 },
	{ "unaligned 2, 4, 2", GUEST_STORE, 2, 7, -2, 5 },
	{ "unaligned 4", GUEST_STORE, 4, 6, -3, 4 },
	{ "unaligned 8", GUEST_STORE, 8, 4, -8, 2 },
	{ "unaligned 8 by 3", GUEST_STORE, 8, 3, -8, 2 },
	{ "xchg 8", GUEST_XCHG, 8, 0, 0, 1 },
	{ "xchg 4", GUEST_XCHG, 4, 4, -4, 2 },
	{ "xchg 1", GUEST_XCHG, 1, 7, -1, 8 },
	{ "lock cmpxchg 8", GUEST_CMPXCHG, 8, 0, 0, 1 },
	{ "lock cmpxchg 4", GUEST_CMPXCHG, 4, 4, -4, 2 },
	{ "lock cmpxchg8b", GUEST_CMPXCHG8B, 8, 0, 0, 1 },
	{ "rep stosb", GUEST_REP_STOS, 1, 7, -1, 8 },
	{ "rep stosl", GUEST_REP_STOS, 4, 4, -4, 2 },
	{ "rep stosq", GUEST_REP_STOS, 8, 0, 0, 1 },
	{ "or 8", GUEST_OR, 8, 0, 0, 1, true },
	{ "or 1", GUEST_OR, 1, 0, 0, 1, true },
	{ "lock or 4", GUEST_LOCK_OR, 4, 0, 0, 1, true },
	{ "lock or 8", GUEST_LOCK_OR, 8, 0, 0, 1, true },
};

/* The @width bytes of @value that belong at @offset, zeros beyond it. */
static u64 part_of(u64 value, int offset, u32 width)
{
	u64 part = offset < 0 ? value << (8 * -offset) : value >> (8 * offset);

	return width == 8 ? part : part & ((1ull << (8 * width)) - 1);
}

static bool cook(struct env *e, const struct recipe *r, u64 iova, u64 at, u64 gpa)
{
	u64 value = e->fmt->leaf(gpa, 1, PERM_RW), present = value & ~e->fmt->leaf(gpa, 1, 0);
	struct guest_write w = { .op = r->op, .width = r->width, .count = 1 };
	unsigned int i;
	int offset = r->first;

	if (r->or_in)	/* where the present bits are */
		offset = __builtin_ctzll(present) / 8 / r->width * r->width;
	vm_write64(&e->vm, at, r->or_in ? value & ~present : 0);
	env_flush(e);
	if (!is_unmapped(e, 0, iova))
		return false;
	for (i = 0; i < r->count; i++, offset += r->step) {
		w.gpa = at + offset;
		w.value = part_of(r->or_in ? present : value, offset, r->width);
		vm_exec(&e->vm, 0, &w);
		/* half-written entries that say less may wait for a flush */
		if (i + 1 < r->count)
			env_flush(e);
		if (!is_as_walked(e, 0, iova))
			return false;
	}
	return is_mapped(e, 0, iova, gpa, SIZE_4K, PERM_RW);
}

TEST_F(map, every_kind_of_store)
{
	struct env *e = &self->e;
	u64 at = dom_entry(e, &self->d, self->iova, 1);
	unsigned int i;

	vm_slot_add(&e->vm, SLOT_1G);
	for (i = 0; i < ARRAY_SIZE(recipes); i++)
		ASSERT_TRUE(cook(e, &recipes[i], self->iova, at, GPA_1G + self->a))
			TH_LOG("with %s", recipes[i].name);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, 512));
}

/* From one valid entry to another. */
TEST_F(map, read_modify_write)
{
	struct env *e = &self->e;
	u64 at = dom_entry(e, &self->d, self->iova, 1);
	u64 none = e->fmt->leaf(self->a, 1, PERM_NONE);
	u64 r = e->fmt->leaf(self->a, 1, PERM_R) ^ none;
	u64 w = e->fmt->leaf(self->a, 1, PERM_W) ^ none;
	struct {
		u32 op;
		u64 value;
		u32 perm;
	} const steps[] = {
		{ GUEST_OR, r, PERM_R },
		{ GUEST_LOCK_OR, w, PERM_RW },
		{ GUEST_LOCK_AND, ~r, PERM_W },
		{ GUEST_LOCK_BTS, __builtin_ctzll(r), PERM_RW },
		{ GUEST_AND, ~w, PERM_R },
	};
	unsigned int i;

	vm_write64(&e->vm, at, none);
	ASSERT_TRUE(is_unmapped(e, 0, self->iova));
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		vm_exec(&e->vm, 0, &(struct guest_write) { .op = steps[i].op, .gpa = at,
			.width = 8, .value = steps[i].value });
		if (steps[i].perm != PERM_RW)
			env_flush(e);
		ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, steps[i].perm));
	}
	/* one below the entry that is wanted */
	vm_write64(&e->vm, at, e->fmt->leaf(self->b, 1, PERM_RW) - 1);
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_INC, .gpa = at, .width = 8 });
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
}

TEST_F(map, many_entries_by_one_instruction)
{
	struct env *e = &self->e;
	u64 iova = self->iova & ~(SIZE_2M - 1), at = dom_entry(e, &self->d, iova, 1);
	u64 list = vm_alloc(&e->vm, 1), *entries = vm_host(&e->vm, list), i;

	for (i = 0; i < 64; i++)
		entries[i] = e->fmt->leaf(GPA_DATA_2M + i * SIZE_4K, 1, PERM_RW);
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_REP_MOVS, .gpa = at,
		.value = list, .width = 8, .count = 64 });
	for (i = 0; i < 64; i++)
		ASSERT_TRUE(is_mapped(e, 0, iova + i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K,
				      SIZE_4K, PERM_RW));
	/* bytes in the middle of entries 10 and 13 are the ends of it */
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_REP_STOS, .gpa = at + 10 * 8,
		.value = 0, .width = 1, .count = 3 * 8 + 1 });
	env_flush(e);
	for (i = 8; i < 16; i++)
		ASSERT_TRUE(is_as_walked(e, 0, iova + i * SIZE_4K));
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_REP_STOS, .gpa = at,
		.value = e->fmt->leaf(self->a, 1, PERM_R), .width = 8, .count = 512 });
	env_flush(e);
	for (i = 0; i < 512; i += 73)
		ASSERT_TRUE(is_mapped(e, 0, iova + i * SIZE_4K, self->a, SIZE_4K, PERM_R));
	vm_exec(&e->vm, 0, &(struct guest_write) { .op = GUEST_SSE, .gpa = at + 16,
		.value = e->fmt->leaf(self->b, 1, PERM_RW),
		.count = e->fmt->leaf(self->a, 1, PERM_RW) });
	ASSERT_TRUE(is_mapped(e, 0, iova + 2 * SIZE_4K, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova + 3 * SIZE_4K, self->a, SIZE_4K, PERM_RW));
}

/* One store that ends in one table and begins in the next page, another table. */
TEST_F(map, store_across_two_tables)
{
	struct env *e = &self->e;
	u64 iova = self->iova & ~(SIZE_2M - 1), tables = vm_alloc(&e->vm, 2);
	u64 second = e->fmt->leaf(self->b, 1, PERM_RW);
	u64 first = e->fmt->leaf(GPA_1G + self->a, 1, PERM_RW);

	vm_slot_add(&e->vm, SLOT_1G);
	vm_write64(&e->vm, tables + 511 * 8, e->fmt->leaf(self->a, 1, PERM_RW));
	vm_write64(&e->vm, dom_entry(e, &self->d, iova, 2), e->fmt->link(tables, 2, PERM_RW));
	vm_write64(&e->vm, dom_entry(e, &self->d, iova + SIZE_2M, 2),
		   e->fmt->link(tables + SIZE_4K, 2, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova + SIZE_2M - 1, self->a + 0xfff, SIZE_4K, PERM_RW));
	/* high half of the last entry: the alias above 4 GiB; low half of the first */
	vm_store(&e->vm, tables + SIZE_4K - 4, first >> 32 | second << 32, 8);
	ASSERT_TRUE(is_mapped(e, 0, iova + SIZE_2M - SIZE_4K, GPA_1G + self->a, SIZE_4K,
			      PERM_RW));
	ASSERT_TRUE(is_as_walked(e, 0, iova + SIZE_2M));
	vm_store(&e->vm, tables + SIZE_4K + 4, second >> 32, 4);
	ASSERT_TRUE(is_mapped(e, 0, iova + SIZE_2M, self->b, SIZE_4K, PERM_RW));
}

/* Lazy removal: by invalidation, by time, by number. */
FIXTURE(lazy) {
	struct env e;
	struct dom d;
	u64 iova;
};

FIXTURE_VARIANT(lazy) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(lazy, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(lazy, amd) { .fmt = &fmt_amd };

FIXTURE_SETUP(lazy)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
}

FIXTURE_TEARDOWN(lazy)
{
	env_detach(&self->e, 0);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

static void lazy_open_with(struct env *e, struct dom *d, struct env_options o)
{
	u64 i;

	o.nr_devs = 1;
	env_open(e, &o);
	*d = dom_alloc(e, 7);
	dom_set(e, 0, d);
	for (i = 0; i < 32; i++)
		dom_map(e, d, i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, 1, PERM_RW);
}

static void lazy_open(struct env *e, struct dom *d, const struct fmt *fmt, u32 delay_ms,
		      u32 queue_max)
{
	lazy_open_with(e, d, (struct env_options) { .fmt = fmt, .unmap_delay_ms = delay_ms,
		       .queue_max = queue_max });
}

TEST_F(lazy, flushed_by_each_kind_of_invalidation)
{
	struct env *e = &self->e;
	struct vtds_stats before, after;
	u64 i;

	lazy_open(e, &self->d, variant->fmt, 60000, 1000);
	before = env_stats(e);
	for (i = 0; i < 4; i++)
		dom_unmap(e, &self->d, i * SIZE_4K, 1);
	for (i = 0; i < 4; i++)
		ASSERT_TRUE(is_queued(e, 0, i * SIZE_4K));
	EXPECT_EQ(4, env_stats(e).queued);
	env_inv(e, VTDS_INV_IOTLB_GLOBAL);
	for (i = 0; i < 4; i++)
		ASSERT_TRUE(is_unmapped(e, 0, i * SIZE_4K));
	after = env_stats(e);
	EXPECT_EQ(0, after.queued);
	EXPECT_EQ(28, after.mappings);
	EXPECT_EQ(before.pinned_pages - 4, after.pinned_pages);
	/* one host flush serves them all */
	EXPECT_EQ(before.host_flushes + 1, after.host_flushes);
	EXPECT_EQ(before.invalidations + 1, after.invalidations);

	dom_unmap(e, &self->d, 5 * SIZE_4K, 1);
	env_inv_pages(e, &self->d, 5 * SIZE_4K, 0);
	ASSERT_TRUE(is_unmapped(e, 0, 5 * SIZE_4K));
	dom_unmap(e, &self->d, 6 * SIZE_4K, 1);
	env_inv_pages(e, &self->d, 0x3123, 4);
	ASSERT_TRUE(is_unmapped(e, 0, 6 * SIZE_4K));
	dom_unmap(e, &self->d, 7 * SIZE_4K, 1);
	env_set_root(e, true);
	ASSERT_TRUE(is_unmapped(e, 0, 7 * SIZE_4K));
	ASSERT_TRUE(is_mapped(e, 0, 8 * SIZE_4K, GPA_DATA_2M + 8 * SIZE_4K, SIZE_4K, PERM_RW));
}

TEST_F(lazy, goes_away_by_itself)
{
	struct env *e = &self->e;
	unsigned int waited;

	lazy_open(e, &self->d, variant->fmt, 300, 1000);
	dom_unmap(e, &self->d, 0, 1);
	ASSERT_TRUE(is_queued(e, 0, 0));
	for (waited = 0; env_stats(e).queued && waited < 5000; waited += 20)
		sleep_ms(20);
	ASSERT_TRUE(is_unmapped(e, 0, 0));
	TH_LOG("after %u ms, 300 were set", waited);
	ASSERT_TRUE(is_mapped(e, 0, SIZE_4K, GPA_DATA_2M + SIZE_4K, SIZE_4K, PERM_RW));
}

TEST_F(lazy, queue_is_bounded)
{
	struct env *e = &self->e;
	u64 i, gone = 0;

	lazy_open(e, &self->d, variant->fmt, 60000, 8);
	for (i = 0; i < 20; i++) {
		dom_unmap(e, &self->d, i * SIZE_4K, 1);
		ASSERT_GE(8, env_stats(e).queued);
	}
	for (i = 0; i < 20; i++)
		gone += !(env_translate(e, 0, i * SIZE_4K).result & VTDS_TRANSLATE_QUEUED);
	EXPECT_LE(12, gone);
	EXPECT_EQ(20 - gone, env_stats(e).queued);
	env_flush(e);
}

TEST_F(lazy, queue_of_one_is_synchronous)
{
	struct env *e = &self->e;

	lazy_open(e, &self->d, variant->fmt, 60000, 1);
	dom_unmap(e, &self->d, 3 * SIZE_4K, 1);
	ASSERT_TRUE(is_unmapped(e, 0, 3 * SIZE_4K));
	EXPECT_EQ(0, env_stats(e).queued);
}

/* Some pages stay pinned, not mapped: no more than was set, until memory changes. */
TEST_F(lazy, idle_pins)
{
	struct env *e = &self->e;
	u64 before, i;

	lazy_open_with(e, &self->d, (struct env_options) { .fmt = variant->fmt,
		       .pin_cache = 8 });
	env_inv(e, VTDS_INV_MEMORY);
	before = env_stats(e).pinned_pages;
	for (i = 0; i < 6; i++)
		dom_unmap(e, &self->d, i * SIZE_4K, 1);
	env_flush(e);
	for (i = 0; i < 6; i++)
		ASSERT_TRUE(is_unmapped(e, 0, i * SIZE_4K));
	EXPECT_EQ(before, env_stats(e).pinned_pages);
	env_inv(e, VTDS_INV_MEMORY);
	EXPECT_EQ(before - 6, env_stats(e).pinned_pages);

	for (i = 6; i < 26; i++)
		dom_unmap(e, &self->d, i * SIZE_4K, 1);
	env_flush(e);
	EXPECT_GE(before - 26 + 8, env_stats(e).pinned_pages);
	for (i = 0; i < 26; i++)
		dom_map(e, &self->d, i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, 1, PERM_RW);
	for (i = 0; i < 26; i++)
		ASSERT_TRUE(is_mapped(e, 0, i * SIZE_4K, GPA_DATA_2M + i * SIZE_4K, SIZE_4K,
				      PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, SIZE_4K, GPA_DATA_2M + SIZE_4K, 256));
	/* at most: AMD's device table page may have been one of the idle ones */
	EXPECT_GE(before, env_stats(e).pinned_pages);
	env_set_root(e, false);
	env_inv(e, VTDS_INV_MEMORY);
}

TEST_HARNESS_MAIN
