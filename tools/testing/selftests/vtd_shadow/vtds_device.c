// SPDX-License-Identifier: GPL-2.0
/*
 * Devices come, go and move between domains; tables are used for other things;
 * several vCPUs write at once: rules that do not depend on the number of levels.
 * No DMA here goes wrong on purpose, as in vtds_map.
 */
#include "test.h"

FIXTURE(device) {
	struct env e;
	struct dom d1, d2;
	u64 iova;
	u64 a, b;
};

FIXTURE_VARIANT(device) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(device, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(device, amd) { .fmt = &fmt_amd };

FIXTURE_SETUP(device)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) { .fmt = variant->fmt, .nr_vcpus = 2 });
	self->iova = 0x1234567000ull;
	self->a = vm_alloc(&e->vm, 1);
	self->b = vm_alloc(&e->vm, 1);
	self->d1 = dom_alloc(e, 1);
	self->d2 = dom_alloc(e, 2);
	dom_map(e, &self->d1, self->iova, self->a, 1, PERM_RW);
	dom_map(e, &self->d2, self->iova, self->b, 1, PERM_RW);
}

FIXTURE_TEARDOWN(device)
{
	u32 i;

	EXPECT_TRUE(has_no_event(&self->e));
	for (i = 0; i < self->e.nr_devs; i++)
		env_detach(&self->e, i);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

/* Entries for the device come, change and go by stores alone. */
TEST_F(device, entry_changes)
{
	struct env *e = &self->e;
	struct dom same_id = self->d2;

	same_id.id = self->d1.id;
	/* zeros: blocked for VT-d, not translated for AMD */
	ASSERT_TRUE(is_state(e, 0, env_walk(e, 0, 0).state));
	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, 256));
	dom_set(e, 0, &same_id);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
	dom_set(e, 0, &self->d1);
	dom_set(e, 0, &self->d2);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	EXPECT_EQ(self->d2.id, env_translate(e, 0, self->iova).domain_id);
	EXPECT_EQ(self->d2.levels, env_translate(e, 0, self->iova).levels);
	e->fmt->set_device(e, 0, DEV_BLOCKED, NULL);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	ASSERT_TRUE(is_unmapped(e, 0, self->iova));
	dom_set(e, 0, &self->d2);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
}

/* Another root table by the root register. */
TEST_F(device, root_pointer_changes)
{
	struct env *e = &self->e;
	u64 first = e->root_gpa;

	dom_set(e, 0, &self->d1);
	e->root_gpa = vm_alloc(&e->vm, 3);
	dom_set(e, 0, &self->d2);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	e->root_gpa = first;
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
}

TEST_F(device, translation_disabled_and_enabled)
{
	struct env *e = &self->e;

	dom_set(e, 0, &self->d1);
	env_set_root(e, false);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BYPASS));
	EXPECT_EQ(0, env_stats(e).tables);
	EXPECT_EQ(0, env_stats(e).mappings);
	ASSERT_TRUE(dma_reaches(e, 0, self->b, self->b, 256));
	/* not watched meanwhile */
	dom_map(e, &self->d1, self->iova, self->b, 1, PERM_RW);
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
}

TEST_F(device, pass_through)
{
	struct env *e = &self->e;
	struct vtds_translate t;

	e->fmt->set_device(e, 0, DEV_PASS_THROUGH, NULL);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BYPASS));
	t = env_translate(e, 0, self->a);
	EXPECT_EQ(self->a, t.gpa);
	EXPECT_EQ(PERM_RW, t.perm);
	EXPECT_EQ(SIZE_4K, t.leaf_bytes);
	ASSERT_TRUE(dma_reaches(e, 0, self->a, self->a, 256));
	dom_set(e, 0, &self->d2);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
	e->fmt->set_device(e, 0, DEV_PASS_THROUGH, NULL);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BYPASS));
}

TEST_F(device, detached_and_attached_again)
{
	struct env *e = &self->e;

	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	env_detach(e, 0);
	ASSERT_TRUE(dma_reaches(e, 0, self->b, self->b, 256));
	dom_map(e, &self->d1, self->iova, self->b, 1, PERM_RW);
	env_attach(e, 0);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
}

TEST_F(device, two_in_one_domain)
{
	struct env *e = &self->e;
	u32 i;

	if (e->nr_devs < 2)
		SKIP(return, "needs two devices");
	for (i = 0; i < 2; i++)
		dom_set(e, i, &self->d1);
	EXPECT_EQ(1, env_stats(e).domains);
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(dma_reaches(e, i, self->iova, self->a, 256));
	dom_map(e, &self->d1, self->iova + SIZE_4K, self->b, 1, PERM_R);
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(is_mapped(e, i, self->iova + SIZE_4K, self->b, SIZE_4K, PERM_R));
	/* one leaves: the other keeps everything */
	dom_set(e, 1, &self->d2);
	EXPECT_EQ(2, env_stats(e).domains);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 1, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, 256));
	ASSERT_TRUE(dma_reaches(e, 1, self->iova, self->b, 256));
	e->fmt->set_device(e, 0, DEV_BLOCKED, NULL);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	ASSERT_TRUE(is_mapped(e, 1, self->iova, self->b, SIZE_4K, PERM_RW));
}

/* Both vCPUs at once, each in a leaf table of its own and both in a third one. */
TEST_F(device, two_vcpus_map_at_once)
{
	static struct guest_write w[2][512];
	struct env *e = &self->e;
	u64 iova = 0x40000000, i;
	u32 cpu, slot;

	dom_set(e, 0, &self->d1);
	for (cpu = 0; cpu < 2; cpu++)
		for (i = 0; i < 512; i++) {
			slot = i < 256 ? cpu * 512 + i : 1024 + (i - 256) * 2 + cpu;
			w[cpu][i] = (struct guest_write) { .op = GUEST_STORE, .width = 8,
				.gpa = dom_entry(e, &self->d1, iova + slot * SIZE_4K, 1),
				.value = e->fmt->leaf(GPA_DATA_2M + slot % 1024 * SIZE_4K, 1,
						      PERM_RW) };
		}
	for (cpu = 0; cpu < 2; cpu++)
		vm_batch_start(&e->vm, cpu, w[cpu], 512);
	for (cpu = 0; cpu < 2; cpu++)
		vm_batch_wait(&e->vm, cpu);
	EXPECT_EQ(1025, env_stats(e).mappings);
	for (slot = 0; slot < 3 * 512; slot += 13)
		ASSERT_TRUE(is_as_walked(e, 0, iova + slot * SIZE_4K));
}

/*
 * As soon as one vCPU has linked a table another one may use it, while we still
 * follow the link: here to a tree of a million pages, of which the very last is
 * used. The other one's doorbell waits until that leaf counts. (edu takes 100 ms to
 * begin: where the link is followed in less, this proves nothing.)
 */
TEST_F(device, table_used_while_it_is_linked)
{
	struct env *e = &self->e;
	u64 start = 1ull << 39, iova = start + 4 * SIZE_1G - SIZE_2M, i;
	u64 at = dom_entry(e, &self->d1, start, 4);
	u64 upper = vm_alloc(&e->vm, 1), middle = vm_alloc(&e->vm, 1);
	u64 full = vm_alloc(&e->vm, 1), last = vm_alloc(&e->vm, 1);
	struct guest_write w = { .op = GUEST_STORE, .width = 8, .gpa = at,
				 .value = e->fmt->link(upper, 4, PERM_RW) };

	if (!dev_can_dma(&e->dev[0]))
		SKIP(return, "no device that can do DMA");
	dom_set(e, 0, &self->d1);
	for (i = 0; i < 4; i++)
		((u64 *)vm_host(&e->vm, upper))[i] = e->fmt->link(middle, 3, PERM_RW);
	for (i = 0; i < 512; i++) {
		((u64 *)vm_host(&e->vm, middle))[i] =
			e->fmt->link(i < 511 ? full : last, 2, PERM_RW);
		((u64 *)vm_host(&e->vm, full))[i] =
			e->fmt->leaf(GPA_DATA_2M + i * SIZE_4K, 1, PERM_RW);
	}
	memset(vm_host(&e->vm, self->a), 0x5a, SIZE_4K);
	memset(vm_host(&e->vm, self->b), 0, SIZE_4K);

	vm_batch_start(&e->vm, 0, &w, 1);
	while (vm_read64(&e->vm, at) != w.value)
		;
	/*
	 * "The other vCPU" is this thread. Nothing traps its store, as it must be. It
	 * is not as fast as it could be, as emulated processors stop now and then.
	 */
	*(volatile u64 *)vm_host(&e->vm, last) = e->fmt->leaf(self->a, 1, PERM_RW);
	sleep_ms(20);
	edu_read_start(&e->dev[0], iova, 0, 1024);
	edu_wait(&e->dev[0]);
	vm_batch_wait(&e->vm, 0);

	dom_map(e, &self->d1, self->iova, self->b, 1, PERM_RW);
	edu_write(&e->dev[0], self->iova, 0, 1024);
	EXPECT_EQ(0, memcmp(vm_host(&e->vm, self->a), vm_host(&e->vm, self->b), 1024));
	EXPECT_TRUE(is_as_walked(e, 0, iova));
	EXPECT_LT(0, env_stats(e).gatings);
}

/* A leaf table is unlinked and its page becomes data, then a table again. */
TEST_F(device, table_reused_as_data)
{
	struct env *e = &self->e;
	struct vtds_stats linked, data;
	u64 at = dom_entry(e, &self->d1, self->iova, 2);
	u64 link = vm_read64(&e->vm, at), entry = dom_entry(e, &self->d1, self->iova, 1);

	dom_set(e, 0, &self->d1);
	linked = env_stats(e);
	vm_write64(&e->vm, at, 0);
	env_flush(e);
	data = env_stats(e);
	EXPECT_EQ(linked.tracked_pages - 1, data.tracked_pages);
	vm_write64(&e->vm, entry, 0xdeadbeefdeadbeefull);
	vm_write64(&e->vm, entry, e->fmt->leaf(self->b, 1, PERM_RW));
	EXPECT_EQ(data.writes, env_stats(e).writes);
	ASSERT_TRUE(is_unmapped(e, 0, self->iova));
	vm_write64(&e->vm, at, link);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	/* and as the page that the device writes to */
	vm_write64(&e->vm, at, 0);
	env_flush(e);
	*(u64 *)vm_host(&e->vm, entry) = 0;
	dom_map(e, &self->d1, self->iova + SIZE_2M, entry & ~0xfffull, 1, PERM_RW);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova + SIZE_2M, entry & ~0xfffull, 2048));
}

/* What was a leaf table becomes a level 2 table, without a pause in between. */
TEST_F(device, table_reused_for_another_level)
{
	struct env *e = &self->e;
	u64 at2 = dom_entry(e, &self->d1, self->iova, 2);
	u64 at3 = dom_entry(e, &self->d1, self->iova + SIZE_1G, 3);
	u64 page = e->fmt->decode(e, vm_read64(&e->vm, at2), 2, 0).gpa, i;

	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	vm_write64(&e->vm, at2, 0);
	for (i = 0; i < 512; i++)
		vm_write64(&e->vm, page + 8 * i, 0);
	vm_write64(&e->vm, at3, e->fmt->link(page, 3, PERM_RW));
	vm_write64(&e->vm, page + 8, e->fmt->leaf(GPA_DATA_2M, 2, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, ((self->iova + SIZE_1G) & ~(SIZE_1G - 1)) + SIZE_2M,
			      GPA_DATA_2M, SIZE_2M, PERM_RW));
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, self->iova));
}

/* One leaf of 1 GiB. Its memory is slot 0's file again and again, see vm.c. */
TEST_F_TIMEOUT(device, leaf_of_1g, 120)
{
	struct env *e = &self->e;
	u64 last = SIZE_1G - 1, probe = GPA_DATA_2M + 0x3801;

	vm_slot_add(&e->vm, SLOT_1G);
	dom_set(e, 0, &self->d1);
	dom_map(e, &self->d1, SIZE_1G, GPA_1G, 3, PERM_RW);
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G, GPA_1G, SIZE_1G, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, SIZE_1G + last, GPA_1G + last, SIZE_1G, PERM_RW));
	ASSERT_TRUE(is_unmapped(e, 0, 2 * SIZE_1G));
	EXPECT_EQ(2, env_stats(e).mappings);
	ASSERT_TRUE(dma_reaches(e, 0, SIZE_1G + probe, GPA_1G + probe, 2048));
	dom_unmap(e, &self->d1, SIZE_1G, 3);
	env_flush(e);
	ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G));
	ASSERT_TRUE(is_unmapped(e, 0, SIZE_1G + last));
	EXPECT_EQ(1, env_stats(e).mappings);
}

/* RAM goes away under a live table and comes back with other host pages. */
TEST_F(device, memory_slot_deleted_and_made_again)
{
	struct env *e = &self->e;
	u64 gpa = GPA_EXTRA + 5 * SIZE_4K, table = GPA_EXTRA + 8 * SIZE_4K;
	u64 iova2 = self->iova + SIZE_2M;

	vm_slot_add(&e->vm, SLOT_EXTRA);
	dom_set(e, 0, &self->d1);
	dom_map(e, &self->d1, self->iova + SIZE_4K, gpa, 1, PERM_RW);
	vm_write64(&e->vm, table + 8 * table_index(iova2, 1), e->fmt->leaf(self->b, 1, PERM_RW));
	vm_write64(&e->vm, dom_entry(e, &self->d1, iova2, 2), e->fmt->link(table, 2, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova + SIZE_4K, gpa, 256));
	ASSERT_TRUE(is_mapped(e, 0, iova2, self->b, SIZE_4K, PERM_RW));

	vm_slot_delete(&e->vm, SLOT_EXTRA);
	env_inv(e, VTDS_INV_MEMORY);
	ASSERT_TRUE(is_unmapped(e, 0, self->iova + SIZE_4K));
	ASSERT_TRUE(is_unmapped(e, 0, iova2));
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));

	vm_slot_add(&e->vm, SLOT_EXTRA);
	vm_write64(&e->vm, table + 8 * table_index(iova2, 1), e->fmt->leaf(self->a, 1, PERM_RW));
	env_inv(e, VTDS_INV_MEMORY);
	ASSERT_TRUE(is_mapped(e, 0, self->iova + SIZE_4K, gpa, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova + SIZE_4K, gpa, 256));
	ASSERT_TRUE(is_mapped(e, 0, iova2, self->a, SIZE_4K, PERM_RW));
	/* the table is watched again */
	vm_write64(&e->vm, table + 8 * table_index(iova2, 1), e->fmt->leaf(self->b, 1, PERM_RW));
	ASSERT_TRUE(is_mapped(e, 0, iova2, self->b, SIZE_4K, PERM_RW));
	drain_events(e);
}

TEST_HARNESS_MAIN
