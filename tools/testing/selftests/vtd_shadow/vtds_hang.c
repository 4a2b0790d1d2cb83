// SPDX-License-Identifier: GPL-2.0
/*
 * A VMM waits for a page of its guest's memory, perhaps for ever: a vCPU maps it, and
 * whoever is to serve it (userfaultfd) does not. Its device can be closed all the same,
 * because VFIO does that with locks held that other VMMs may need, and used again.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "test.h"

#define PATIENCE_S	20

FIXTURE(hang) {
	struct env e;
	struct dom d1, d2;
	u64 iova;
	u64 a, b;
	u64 other_root;		/* sends the device to d2 */
	int uffd;
};

FIXTURE_VARIANT(hang) {
	const struct fmt *fmt;
	bool by_link;		/* the vCPU links a table with the page in it */
};

FIXTURE_VARIANT_ADD(hang, vtd_leaf) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(hang, vtd_link) { .fmt = &fmt_vtd, .by_link = true };
FIXTURE_VARIANT_ADD(hang, amd_leaf) { .fmt = &fmt_amd };
FIXTURE_VARIANT_ADD(hang, amd_link) { .fmt = &fmt_amd, .by_link = true };

/* Of what is in no page yet, we are told when it is wanted. */
static int userfaultfd_of(void *mem, u64 bytes)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)mem, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		fatal("userfaultfd");
	return fd;
}

FIXTURE_SETUP(hang)
{
	struct env *e = &self->e;
	u64 root;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) {
		.fmt = variant->fmt, .nr_vcpus = 2, .nr_devs = 1 });
	self->iova = 0x1234567000ull;
	self->a = vm_alloc(&e->vm, 1);
	self->b = vm_alloc(&e->vm, 1);
	self->d1 = dom_alloc(e, 1);
	self->d2 = dom_alloc(e, 2);
	dom_map(e, &self->d1, self->iova, self->a, 1, PERM_RW);
	dom_map(e, &self->d2, self->iova, self->b, 1, PERM_RW);
	root = e->root_gpa;
	self->other_root = vm_alloc(&e->vm, 3);
	e->root_gpa = self->other_root;
	dom_set(e, 0, &self->d2);
	e->root_gpa = root;
	dom_set(e, 0, &self->d1);
	vm_slot_add(&e->vm, SLOT_EXTRA);
	self->uffd = userfaultfd_of(vm_host(&e->vm, GPA_EXTRA), EXTRA_BYTES);
}

FIXTURE_TEARDOWN(hang)
{
	EXPECT_TRUE(has_no_event(&self->e));
	env_detach(&self->e, 0);
	EXPECT_TRUE(is_released(&self->e));
	close(self->uffd);
	env_close(&self->e);
}

/* What vCPU 1 does not get on from. */
static struct guest_write write_that_waits(struct env *e, const struct dom *dom, u64 iova,
					   bool by_link)
{
	struct guest_write w = { .op = GUEST_STORE, .width = 8 };
	u64 leaf = e->fmt->leaf(GPA_EXTRA, 1, PERM_RW), table;

	if (by_link) {
		table = vm_alloc(&e->vm, 1);
		*(u64 *)vm_host(&e->vm, table) = leaf;
		w.gpa = dom_entry(e, dom, iova + SIZE_2M, 2);
		w.value = e->fmt->link(table, 2, PERM_RW);
	} else {
		w.gpa = dom_entry(e, dom, iova + SIZE_4K, 1);
		w.value = leaf;
	}
	return w;
}

static bool is_awaited(int uffd, void *page)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	return poll(&p, 1, PATIENCE_S * 1000) == 1 &&
	       read(uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.event == UFFD_EVENT_PAGEFAULT &&
	       (msg.arg.pagefault.address & ~0xfffull) == (uintptr_t)page;
}

static void serve(int uffd, void *page)
{
	static char zeros[SIZE_4K] __attribute__((aligned(SIZE_4K)));
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)zeros,
				    .len = SIZE_4K };

	if (ioctl(uffd, UFFDIO_COPY, &copy))
		fatal("UFFDIO_COPY");
}

static void *close_thread(void *dev)
{
	dev_close(dev);
	return NULL;
}

/* While the page is awaited. If it does not close, the page is served. */
static bool closes(struct dev *dev, int uffd, void *page)
{
	struct timespec end;
	pthread_t thread;

	if (pthread_create(&thread, NULL, close_thread, dev))
		fatal("thread that closes the device");
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_S;
	if (!pthread_timedjoin_np(thread, NULL, &end))
		return true;
	serve(uffd, page);
	pthread_join(thread, NULL);
	return false;
}

static int new_context(struct env *e)
{
	struct vtds_setup setup = e->setup;
	int ctx = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (ctx < 0 || ioctl(ctx, VTDS_IOC_SETUP, &setup))
		fatal("another context");
	return ctx;
}

static bool is_over(int ctx)
{
	struct env old = { .ctx = ctx };
	int i;

	for (i = 0; i < PATIENCE_S * 10; i++) {
		struct vtds_stats s = env_stats(&old);

		if (!s.endpoints && !s.domains && !s.tables && !s.pinned_pages)
			return true;
		sleep_ms(100);
	}
	return false;
}

TEST_F(hang, device_is_closed_and_used_again)
{
	struct env *e = &self->e;
	void *page = vm_host(&e->vm, GPA_EXTRA);
	struct guest_write w = write_that_waits(e, &self->d1, self->iova, variant->by_link);
	int waiting = e->ctx;
	char bdf[16];

	vm_batch_start(&e->vm, 1, &w, 1);
	ASSERT_TRUE(is_awaited(self->uffd, page));
	memcpy(bdf, e->dev[0].bdf, sizeof(bdf));
	ASSERT_TRUE(closes(&e->dev[0], self->uffd, page));

	dev_open(&e->dev[0], &e->container, &e->vm, bdf, NULL);
	container_map(&e->container, 0, vm_host(&e->vm, 0), GPA_RAM_END);
	e->ctx = new_context(e);
	env_attach(e, 0);
	ASSERT_TRUE(is_state(e, 0, VTDS_STATE_BYPASS));
	ASSERT_TRUE(dma_reaches(e, 0, self->b, self->b, 256));
	e->root_gpa = self->other_root;
	env_set_root(e, true);
	ASSERT_TRUE(is_mapped(e, 0, self->iova, self->b, SIZE_4K, PERM_RW));
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));

	serve(self->uffd, page);
	vm_batch_wait(&e->vm, 1);
	EXPECT_TRUE(is_over(waiting));
	close(waiting);
	ASSERT_TRUE(dma_reaches(e, 0, self->iova, self->b, 256));
}

TEST_HARNESS_MAIN
