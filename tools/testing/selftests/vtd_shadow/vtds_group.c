// SPDX-License-Identifier: GPL-2.0
/*
 * Two devices that the host's IOMMU cannot tell from one another: they are of one
 * group, and the guest may translate them the same way or not at all. Wants two
 * functions of one slot.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "test.h"

FIXTURE(group) {
	struct env e;
	struct dom d1, d2;
	u64 iova;
	u64 a, b;
};

FIXTURE_VARIANT(group) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(group, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(group, amd) { .fmt = &fmt_amd };

FIXTURE_SETUP(group)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) { .fmt = variant->fmt });
	if (e->nr_devs < 2 || e->dev[0].group_fd != e->dev[1].group_fd)
		SKIP(return, "no two devices of one IOMMU group");
	self->iova = 0x1234567000ull;
	self->a = vm_alloc(&e->vm, 1);
	self->b = vm_alloc(&e->vm, 1);
	self->d1 = dom_alloc(e, 1);
	self->d2 = dom_alloc(e, 2);
	dom_map(e, &self->d1, self->iova, self->a, 1, PERM_RW);
	dom_map(e, &self->d2, self->iova, self->b, 1, PERM_RW);
}

FIXTURE_TEARDOWN(group)
{
	EXPECT_TRUE(has_no_event(&self->e));
	env_detach(&self->e, 0);
	env_detach(&self->e, 1);
	EXPECT_TRUE(is_released(&self->e));
	env_close(&self->e);
}

static bool is_conflict(struct env *e)
{
	return is_state(e, 0, VTDS_STATE_BLOCKED) && is_state(e, 1, VTDS_STATE_BLOCKED) &&
	       next_event_is(e, VTDS_REASON_GROUP_CONFLICT, IGNORE, IGNORE, IGNORE);
}

static bool both_map(struct env *e, u64 iova, u64 gpa)
{
	return is_mapped(e, 0, iova, gpa, SIZE_4K, PERM_RW) && dma_reaches(e, 0, iova, gpa, 64) &&
	       is_mapped(e, 1, iova, gpa, SIZE_4K, PERM_RW) && dma_reaches(e, 1, iova, gpa, 64);
}

/* One after the other, as a guest does it: nothing is reached in between. */
TEST_F(group, moves_when_all_have_moved)
{
	struct env *e = &self->e;

	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_conflict(e));
	dom_set(e, 1, &self->d1);
	ASSERT_TRUE(both_map(e, self->iova, self->a));
	dom_set(e, 1, &self->d2);
	ASSERT_TRUE(is_conflict(e));
	/* one more way to disagree: it is told once */
	e->fmt->set_device(e, 1, DEV_BLOCKED, NULL);
	EXPECT_TRUE(is_state(e, 0, VTDS_STATE_BLOCKED));
	EXPECT_TRUE(has_no_event(e));
	dom_set(e, 1, &self->d2);
	EXPECT_TRUE(has_no_event(e));
	dom_set(e, 0, &self->d2);
	ASSERT_TRUE(both_map(e, self->iova, self->b));
	EXPECT_EQ(0, env_stats(e).events_lost);
}

/* Who is left decides alone, and the group goes back with the last. */
TEST_F(group, one_leaves)
{
	struct env *e = &self->e;

	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_conflict(e));
	env_detach(e, 1);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, 64));
	env_attach(e, 1);
	ASSERT_TRUE(is_conflict(e));
	dom_set(e, 1, &self->d1);
	ASSERT_TRUE(both_map(e, self->iova, self->a));
}

/* The same without the ioctl: where the other one is to be is seen at the next flush. */
TEST_F(group, one_closes)
{
	struct env *e = &self->e;
	char bdf[16];

	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_conflict(e));
	memcpy(bdf, e->dev[1].bdf, sizeof(bdf));
	dev_close(&e->dev[1]);
	EXPECT_EQ(1, env_stats(e).endpoints);
	env_flush(e);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->a, 64));
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->a, SIZE_4K, PERM_RW));
	dev_open(&e->dev[1], &e->container, &e->vm, bdf, &e->dev[0]);
	env_attach(e, 1);
	ASSERT_TRUE(is_conflict(e));
	dom_set(e, 1, &self->d1);
	ASSERT_TRUE(both_map(e, self->iova, self->a));
	EXPECT_EQ(2, env_stats(e).endpoints);
}

/* All devices of a group are behind the same vIOMMU. */
TEST_F(group, of_one_context)
{
	struct env *e = &self->e;
	int ctx = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC);
	struct vtds_device_attach arg = VTDS_ARG(vtds_device_attach, .context_fd = ctx,
						 .requester_id = e->rid[1]);
	struct vtds_setup setup = e->setup;

	ASSERT_LE(0, ctx);
	ASSERT_EQ(0, ioctl(ctx, VTDS_IOC_SETUP, &setup));
	env_detach(e, 1);
	EXPECT_EQ(-1, ioctl(e->dev[1].fd, VTDS_IOC_DEVICE_ATTACH, &arg));
	EXPECT_EQ(EBUSY, errno);
	close(ctx);
	env_attach(e, 1);
	dom_set(e, 0, &self->d1);
	ASSERT_TRUE(is_conflict(e));
	dom_set(e, 1, &self->d1);
	ASSERT_TRUE(both_map(e, self->iova, self->a));
}

TEST_HARNESS_MAIN
