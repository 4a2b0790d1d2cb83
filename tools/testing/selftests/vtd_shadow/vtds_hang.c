// SPDX-License-Identifier: GPL-2.0
/*
 * A VMM waits for a page of its guest's memory, perhaps for ever: a vCPU maps it, and
 * whoever is to serve it (userfaultfd) does not. Its device can be closed all the same,
 * because VFIO does that with locks held that other VMMs may need, and used again; and
 * the VMM can be killed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "test.h"

#define PATIENCE_S	20

struct waiting {
	struct env e;
	struct dom d1, d2;
	u64 iova;
	u64 a, b;
	u64 other_root;		/* sends the device to d2 */
	int uffd;		/* of SLOT_EXTRA */
	void *page;		/* the page that is awaited */
};

FIXTURE(hang) {
	struct waiting w;
};

FIXTURE_VARIANT(hang) {
	const struct fmt *fmt;
	bool by_link;		/* the vCPU links a table with the page in it */
};

FIXTURE_VARIANT_ADD(hang, vtd_leaf) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(hang, vtd_link) { .fmt = &fmt_vtd, .by_link = true };
FIXTURE_VARIANT_ADD(hang, amd_leaf) { .fmt = &fmt_amd };
FIXTURE_VARIANT_ADD(hang, amd_link) { .fmt = &fmt_amd, .by_link = true };

static bool has_userfaultfd(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Of what is in no page yet, we are told when it is wanted. */
static int userfaultfd_of(void *mem, u64 bytes)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)mem, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		fatal("userfaultfd");
	return fd;
}

static void waiting_open(struct waiting *w, const struct fmt *fmt)
{
	struct env *e = &w->e;
	u64 root;

	env_open(e, &(struct env_options) { .fmt = fmt, .nr_vcpus = 2, .nr_devs = 1 });
	w->iova = 0x1234567000ull;
	w->a = vm_alloc(&e->vm, 1);
	w->b = vm_alloc(&e->vm, 1);
	w->d1 = dom_alloc(e, 1);
	w->d2 = dom_alloc(e, 2);
	dom_map(e, &w->d1, w->iova, w->a, 1, PERM_RW);
	dom_map(e, &w->d2, w->iova, w->b, 1, PERM_RW);
	root = e->root_gpa;
	w->other_root = vm_alloc(&e->vm, 3);
	e->root_gpa = w->other_root;
	dom_set(e, 0, &w->d2);
	e->root_gpa = root;
	dom_set(e, 0, &w->d1);
	vm_slot_add(&e->vm, SLOT_EXTRA);
	w->page = vm_host(&e->vm, GPA_EXTRA);
	w->uffd = userfaultfd_of(w->page, EXTRA_BYTES);
}

/* What vCPU 1 does not get on from. */
static struct guest_write write_that_waits(struct waiting *w, bool by_link)
{
	struct env *e = &w->e;
	struct guest_write store = { .op = GUEST_STORE, .width = 8 };
	u64 leaf = e->fmt->leaf(GPA_EXTRA, 1, PERM_RW), table;

	if (by_link) {
		table = vm_alloc(&e->vm, 1);
		*(u64 *)vm_host(&e->vm, table) = leaf;
		store.gpa = dom_entry(e, &w->d1, w->iova + SIZE_2M, 2);
		store.value = e->fmt->link(table, 2, PERM_RW);
	} else {
		store.gpa = dom_entry(e, &w->d1, w->iova + SIZE_4K, 1);
		store.value = leaf;
	}
	return store;
}

static bool is_awaited(struct waiting *w)
{
	struct pollfd p = { .fd = w->uffd, .events = POLLIN };
	struct uffd_msg msg;

	return poll(&p, 1, PATIENCE_S * 1000) == 1 && (p.revents & POLLIN) &&
	       read(w->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.event == UFFD_EVENT_PAGEFAULT &&
	       (msg.arg.pagefault.address & ~0xfffull) == (uintptr_t)w->page;
}

/* Has vCPU 1 wait. */
static bool waits(struct waiting *w, bool by_link)
{
	struct guest_write store = write_that_waits(w, by_link);

	vm_batch_start(&w->e.vm, 1, &store, 1);
	return is_awaited(w);
}

static void serve(struct waiting *w)
{
	static char zeros[SIZE_4K] __attribute__((aligned(SIZE_4K)));
	struct uffdio_copy copy = { .dst = (uintptr_t)w->page, .src = (uintptr_t)zeros,
				    .len = SIZE_4K };

	if (ioctl(w->uffd, UFFDIO_COPY, &copy))
		fatal("UFFDIO_COPY");
}

static bool ends_within(pthread_t thread, unsigned int seconds)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += seconds;
	return !pthread_timedjoin_np(thread, NULL, &end);
}

static void *close_thread(void *dev)
{
	dev_close(dev);
	return NULL;
}

/* While the page is awaited. If it does not close, the page is served. */
static bool closes(struct waiting *w)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, close_thread, &w->e.dev[0]))
		fatal("thread that closes the device");
	if (ends_within(thread, PATIENCE_S))
		return true;
	serve(w);
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

FIXTURE_SETUP(hang)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	if (!has_userfaultfd())
		SKIP(return, "the kernel has no userfaultfd");
	waiting_open(&self->w, variant->fmt);
}

FIXTURE_TEARDOWN(hang)
{
	struct env *e = &self->w.e;

	close(self->w.uffd);	/* nobody waits any more */
	EXPECT_TRUE(has_no_event(e));
	env_detach(e, 0);
	EXPECT_TRUE(is_released(e));
	env_close(e);
}

/* The same device, of the same VM, by another context. */
static bool is_used_again(struct waiting *w, const char *bdf)
{
	struct env *e = &w->e;

	dev_open(&e->dev[0], &e->container, &e->vm, bdf, NULL);
	container_map(&e->container, 0, vm_host(&e->vm, 0), GPA_RAM_END);
	e->ctx = new_context(e);
	env_attach(e, 0);
	if (!is_state(e, 0, VTDS_STATE_BYPASS) || !dma_reaches(e, 0, w->b, w->b, 256))
		return false;
	e->root_gpa = w->other_root;
	env_set_root(e, true);
	return is_mapped(e, 0, w->iova, w->b, SIZE_4K, PERM_RW) &&
	       dma_reaches(e, 0, w->iova, w->b, 256);
}

TEST_F(hang, device_is_closed_and_used_again)
{
	struct waiting *w = &self->w;
	struct env *e = &w->e;
	struct env old = { .ctx = e->ctx };
	char bdf[16];

	ASSERT_TRUE(waits(w, variant->by_link));
	memcpy(bdf, e->dev[0].bdf, sizeof(bdf));
	ASSERT_TRUE(closes(w));
	ASSERT_TRUE(is_used_again(w, bdf));
	serve(w);
	vm_batch_wait(&e->vm, 1);
	EXPECT_TRUE(is_released_soon(&old));
	close(old.ctx);
	ASSERT_TRUE(dma_reaches(e, 0, w->iova, w->b, 256));
}

struct touch {
	volatile u8 *bar;
	ssize_t ret;
};

/* By a system call, which no signal ends when the BAR is gone. */
static void *touch_thread(void *arg)
{
	struct touch *touch = arg;
	int fd[2];

	if (pipe(fd))
		fatal("pipe");
	touch->ret = write(fd[1], (const void *)touch->bar, 4);
	close(fd[0]);
	close(fd[1]);
	return NULL;
}

/* Whether anybody has a file of the device: VFIO lets no second one open its group. */
static bool is_open(const char *bdf)
{
	char link[64], target[PATH_MAX] = "", path[32];
	int fd;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	if (readlink(link, target, sizeof(target) - 1) < 0)
		fatal("%s", link);
	snprintf(path, sizeof(path), "/dev/vfio/%.20s", strrchr(target, '/') + 1);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno != EBUSY)
		fatal("%s", path);
	if (fd >= 0)
		close(fd);
	return fd < 0;
}

/*
 * While a table is linked the BARs are out of reach. Somebody waits there when the
 * mapping goes and the device is closed: it then is when he has gone.
 */
TEST_F(hang, a_bar_is_touched_meanwhile)
{
	struct waiting *w = &self->w;
	struct env *e = &w->e;
	struct touch touch = { .bar = e->dev[0].bar0 };
	struct env old = { .ctx = e->ctx };
	pthread_t thread;
	char bdf[16];

	if (!dev_can_dma(&e->dev[0]))
		SKIP(return, "device is not edu");
	ASSERT_TRUE(waits(w, variant->by_link));
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch_thread, &touch));
	ASSERT_EQ(!variant->by_link,
		  ends_within(thread, variant->by_link ? 1 : PATIENCE_S));
	memcpy(bdf, e->dev[0].bdf, sizeof(bdf));
	ASSERT_TRUE(closes(w));
	EXPECT_EQ(variant->by_link, is_open(bdf));
	serve(w);
	vm_batch_wait(&e->vm, 1);
	if (variant->by_link)
		ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(variant->by_link ? -1 : 4, touch.ret);
	EXPECT_TRUE(is_released_soon(&old));
	close(old.ctx);
	ASSERT_TRUE(is_used_again(w, bdf));
}

FIXTURE(kill) {
	int uffd;		/* the child's; nobody ever serves it */
};

FIXTURE_VARIANT(kill) {
	const struct fmt *fmt;
	bool by_link;
};

FIXTURE_VARIANT_ADD(kill, vtd_leaf) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(kill, vtd_link) { .fmt = &fmt_vtd, .by_link = true };
FIXTURE_VARIANT_ADD(kill, amd_leaf) { .fmt = &fmt_amd };

FIXTURE_SETUP(kill)
{
	self->uffd = -1;
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	if (!has_userfaultfd())
		SKIP(return, "the kernel has no userfaultfd");
}

FIXTURE_TEARDOWN(kill)
{
	close(self->uffd);
}

/* A VMM that waits, and says so by giving its userfaultfd away. Does not return. */
static void child(int pipe, const struct fmt *fmt, bool by_link)
{
	struct waiting w;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	waiting_open(&w, fmt);
	if (waits(&w, by_link) && write(pipe, &w.uffd, sizeof(w.uffd)) == sizeof(w.uffd))
		pause();
	fatal("nobody waits");
}

static bool is_dead(pid_t pid)
{
	int i, status;

	for (i = 0; i < PATIENCE_S * 10; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		sleep_ms(100);
	}
	return false;
}

TEST_F(kill, device_is_free)
{
	struct env e;
	int fd[2], pidfd, uffd;
	pid_t pid;
	u64 page;

	ASSERT_EQ(0, pipe(fd));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		child(fd[1], variant->fmt, variant->by_link);
	close(fd[1]);
	ASSERT_EQ(sizeof(uffd), read(fd[0], &uffd, sizeof(uffd)));
	/* With a second reference it does not go, and let go of who waits, with its owner. */
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	self->uffd = syscall(SYS_pidfd_getfd, pidfd, uffd, 0);
	ASSERT_LE(0, self->uffd);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_TRUE(is_dead(pid));

	env_open(&e, &(struct env_options) { .fmt = variant->fmt, .nr_devs = 1 });
	page = vm_alloc(&e.vm, 1);
	e.fmt->set_device(&e, 0, DEV_PASS_THROUGH, NULL);
	EXPECT_TRUE(is_state(&e, 0, VTDS_STATE_BYPASS));
	EXPECT_TRUE(dma_reaches(&e, 0, page, page, 256));
	env_close(&e);
	close(pidfd);
	close(fd[0]);
}

TEST_HARNESS_MAIN
