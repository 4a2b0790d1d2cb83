// SPDX-License-Identifier: GPL-2.0
/*
 * What the device must not reach it does not reach: real DMA that the host's IOMMU
 * stops. The host logs faults for these, as it should; nothing else here makes any.
 */
#include "test.h"

#define BYTES	512

FIXTURE(fault) {
	struct env e;
	struct dom d, other;
	u64 iova;
	u64 a;			/* what must not be reached */
	u64 safe;		/* mapped read-write at iova_safe of both domains */
	u64 iova_safe;
};

FIXTURE_VARIANT(fault) {
	const struct fmt *fmt;
	u32 levels;
};

FIXTURE_VARIANT_ADD(fault, vtd_3) { .fmt = &fmt_vtd, .levels = 3 };
FIXTURE_VARIANT_ADD(fault, vtd_4) { .fmt = &fmt_vtd, .levels = 4 };
FIXTURE_VARIANT_ADD(fault, amd_4) { .fmt = &fmt_amd, .levels = 4 };

FIXTURE_SETUP(fault)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) { .fmt = variant->fmt, .levels = variant->levels,
		 .unmap_delay_ms = 300 });
	if (!dev_can_dma(&e->dev[0]))
		SKIP(return, "device is not edu");
	self->iova = 0x1234567000ull;
	self->iova_safe = self->iova + 0x100000;
	self->a = vm_alloc(&e->vm, 1);
	self->safe = vm_alloc(&e->vm, 1);
	self->d = dom_alloc(e, 1);
	self->other = dom_alloc(e, 2);
	dom_map(e, &self->d, self->iova_safe, self->safe, 1, PERM_RW);
	dom_map(e, &self->other, self->iova_safe, self->safe, 1, PERM_RW);
	dom_set(e, 0, &self->d);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova_safe, self->safe, BYTES));
}

FIXTURE_TEARDOWN(fault)
{
	env_close(&self->e);
}

/* The device tries to write; the byte pattern in memory survives. */
static bool write_is_blocked(struct env *e, u32 dev, u64 iova, u64 gpa)
{
	u8 *mem = vm_host(&e->vm, gpa);
	u32 i;

	for (i = 0; i < BYTES; i++)
		mem[i] = i ^ 0xc3;
	edu_write(&e->dev[dev], iova, 0, BYTES);
	for (i = 0; i < BYTES; i++) {
		if (mem[i] == (u8)(i ^ 0xc3))
			continue;
		fprintf(stderr, "# DMA write by iova %#llx got through: byte %u is %#x\n",
			iova, i, mem[i]);
		return false;
	}
	return true;
}

/*
 * The device tries to read; what it then writes to a page that it may write to is
 * not what was there. @iova_out is that page's, @out where it is.
 */
static bool read_is_blocked(struct env *e, u32 dev, u64 iova, u64 gpa, u64 iova_out, u64 out)
{
	u8 *secret = vm_host(&e->vm, gpa), *got = vm_host(&e->vm, out);
	u32 i, same = 0;

	for (i = 0; i < BYTES; i++)
		secret[i] = (i * 11) | 1;
	edu_read(&e->dev[dev], iova, 0, BYTES);
	memset(got, 0x77, BYTES);
	edu_write(&e->dev[dev], iova_out, 0, BYTES);
	if (got[0] == 0x77 && !memcmp(got, got + 1, BYTES - 1)) {
		fprintf(stderr, "# the device cannot tell what it read\n");
		return false;
	}
	for (i = 0; i < BYTES; i++)
		same += got[i] == secret[i];
	if (same > BYTES / 8)
		fprintf(stderr, "# DMA read by iova %#llx got through: %u bytes\n",
			iova, same);
	return same <= BYTES / 8;
}

/* The same IOVA as the page's guest physical address is what bypass would map. */
TEST_F(fault, before_mapping_and_after_unmapping)
{
	struct env *e = &self->e;

	ASSERT_TRUE(write_is_blocked(e, 0, self->a, self->a));
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_unmap(e, &self->d, self->iova, 1);
	env_flush(e);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
	ASSERT_TRUE(read_is_blocked(e, 0, self->iova, self->a, self->iova_safe, self->safe));
}

TEST_F(fault, read_only_leaf)
{
	struct env *e = &self->e;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_R);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
	/* taken away from a leaf that had both and was used */
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_R);
	env_flush(e);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
}

/*
 * Linux 6.12's VT-d driver makes every second-stage entry readable (it sets the
 * first-stage "present" bit in all). What this host does is found out by VFIO's
 * own mapping, in bypass: the guest gets exactly that.
 */
TEST_F(fault, write_only_leaf)
{
	struct env *e = &self->e;
	bool blocked;

	env_detach(e, 0);
	container_map_write_only(&e->container, self->iova, vm_host(&e->vm, self->a), SIZE_4K);
	blocked = read_is_blocked(e, 0, self->iova, self->a, self->safe, self->safe);
	TH_LOG("write-only mappings of the host are %sreadable", blocked ? "not " : "");
	env_attach(e, 0);
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_W);
	env_flush(e);
	ASSERT_EQ(blocked, read_is_blocked(e, 0, self->iova, self->a, self->iova_safe,
					   self->safe));
}

TEST_F(fault, after_the_set_delay)
{
	struct env *e = &self->e;
	int i;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_unmap(e, &self->d, self->iova, 1);
	for (i = 0; env_stats(e).queued && i < 100; i++)
		sleep_ms(50);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
}

TEST_F(fault, refused_entry)
{
	struct env *e = &self->e;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_map(e, &self->d, self->iova, self->a | 1ull << 41, 1, PERM_RW);
	env_flush(e);
	ASSERT_TRUE(next_event_is(e, VTDS_REASON_RESERVED_BITS, self->iova, IGNORE, 1));
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
}

TEST_F(fault, unlinked_table)
{
	struct env *e = &self->e;
	u32 level;
	u64 at, link;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	for (level = 2; level <= e->levels; level++) {
		ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
		at = dom_entry(e, &self->d, self->iova, level);
		link = vm_read64(&e->vm, at);
		vm_write64(&e->vm, at, 0);
		env_flush(e);
		ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
		vm_write64(&e->vm, at, link);
	}
}

TEST_F(fault, no_entry_for_the_device)
{
	struct env *e = &self->e;

	e->fmt->set_device(e, 0, DEV_BLOCKED, NULL);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova_safe, self->safe));
	ASSERT_TRUE(write_is_blocked(e, 0, self->a, self->a));
	dom_set(e, 0, &self->d);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova_safe, self->safe, BYTES));
}

TEST_F(fault, moved_to_another_domain)
{
	struct env *e = &self->e;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	dom_set(e, 0, &self->other);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova_safe, self->safe, BYTES));
}

/* The other device's domain is not ours. */
TEST_F(fault, devices_are_kept_apart)
{
	struct env *e = &self->e;

	if (e->nr_devs < 2)
		SKIP(return, "needs two devices");
	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(write_is_blocked(e, 1, self->iova, self->a));
	dom_set(e, 1, &self->other);
	ASSERT_TRUE(dma_reaches(e, 1, self->iova_safe, self->safe, BYTES));
	ASSERT_TRUE(write_is_blocked(e, 1, self->iova, self->a));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
}

TEST_F(fault, context_closed_first)
{
	struct env *e = &self->e;

	dom_map(e, &self->d, self->iova, self->a, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, BYTES));
	close(e->ctx);
	e->ctx = -1;
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, self->a));
	ASSERT_TRUE(write_is_blocked(e, 0, self->a, self->a));
}

/* A slot deleted under a leaf that the device uses: the old host page is safe. */
TEST_F(fault, memory_slot_deleted)
{
	struct env *e = &self->e;

	vm_slot_add(&e->vm, SLOT_EXTRA);
	dom_map(e, &self->d, self->iova, GPA_EXTRA, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, GPA_EXTRA, BYTES));
	vm_slot_forget(&e->vm, SLOT_EXTRA);
	env_flush(e);
	ASSERT_TRUE(write_is_blocked(e, 0, self->iova, GPA_EXTRA));
}

TEST_HARNESS_MAIN
