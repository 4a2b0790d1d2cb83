// SPDX-License-Identifier: GPL-2.0
/* The contract of include/uapi/linux/vtd_shadow.h, word for word: arguments, errors, order. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "test.h"

/* An ioctl with its argument: zero on success, else the errno. */
static int try_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? errno : 0;
}

#define TRY(fd, cmd, type, ...) try_ioctl(fd, cmd, &VTDS_ARG(type, ##__VA_ARGS__))

static struct vtds_setup good_setup(void)
{
	return VTDS_ARG(vtds_setup, .viommu = VTDS_VIOMMU_VTD, .gpa_bits = 40,
			.levels = 1u << 4, .page_sizes = SIZE_4K);
}

static int open_ctx(void)
{
	int fd = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		fatal("/dev/vtd_shadow");
	return fd;
}

FIXTURE(context) {
	int fd;
};

FIXTURE_SETUP(context)
{
	self->fd = open_ctx();
}

FIXTURE_TEARDOWN(context)
{
	close(self->fd);
}

TEST_F(context, query)
{
	struct vtds_query q = VTDS_ARG(vtds_query);

	ASSERT_EQ(0, try_ioctl(self->fd, VTDS_IOC_QUERY, &q));
	EXPECT_EQ(VTDS_UAPI_VERSION, q.version);
	EXPECT_TRUE(q.viommus & (1u << VTDS_VIOMMU_VTD));
	EXPECT_EQ(0, q.viommus & ~((1ull << VTDS_VIOMMU_VTD) | (1ull << VTDS_VIOMMU_AMD)));
	EXPECT_LT(1000, q.max_tables);
	EXPECT_LT(1000, q.max_mappings);
	EXPECT_EQ(EOPNOTSUPP, TRY(self->fd, VTDS_IOC_QUERY, vtds_query, .flags = 1));
	EXPECT_EQ(EINVAL, TRY(self->fd, VTDS_IOC_QUERY, vtds_query, .__reserved = 1));
}

TEST_F(context, unknown_ioctls)
{
	u64 arg = sizeof(arg);
	unsigned int nr;

	for (nr = 0x06; nr < 0x40; nr++)
		ASSERT_EQ(ENOTTY, try_ioctl(self->fd, _IO(VTDS_IOC_TYPE, nr), &arg));
	EXPECT_EQ(ENOTTY, try_ioctl(self->fd, VTDS_IOC_DEVICE_ATTACH, &arg));
	EXPECT_EQ(ENOTTY, try_ioctl(self->fd, VTDS_IOC_DEVICE_DETACH, &arg));
	EXPECT_EQ(ENOTTY, try_ioctl(self->fd, _IO(VTDS_IOC_TYPE - 1, 0), &arg));
}

TEST_F(context, set_up_once)
{
	struct vtds_setup s = good_setup();

	EXPECT_EQ(0, try_ioctl(self->fd, VTDS_IOC_SETUP, &s));
	EXPECT_EQ(EBUSY, try_ioctl(self->fd, VTDS_IOC_SETUP, &s));
}

/* Each bad value alone; a good call afterwards shows that nothing was kept. */
TEST_F(context, bad_setups)
{
	struct vtds_query q = VTDS_ARG(vtds_query);
	struct vtds_setup s;

	ASSERT_EQ(0, try_ioctl(self->fd, VTDS_IOC_QUERY, &q));
#define BAD(err, field, value)							\
	do {									\
		s = good_setup();						\
		s.field = value;						\
		EXPECT_EQ(err, try_ioctl(self->fd, VTDS_IOC_SETUP, &s))		\
			TH_LOG("%s", #field);	\
	} while (0)
	BAD(EOPNOTSUPP, flags, 1);
	BAD(EOPNOTSUPP, viommu, 0);
	BAD(EOPNOTSUPP, viommu, 3);
	BAD(EOPNOTSUPP, viommu, 1u << 31);
	BAD(EOPNOTSUPP, features, 1u << 2);
	BAD(EOPNOTSUPP, features, 1u << 31);
	BAD(EINVAL, gpa_bits, 0);
	BAD(EINVAL, gpa_bits, 31);
	BAD(EINVAL, gpa_bits, 53);
	BAD(EINVAL, levels, 0);
	BAD(EINVAL, levels, 1u << 2);
	BAD(EINVAL, levels, 1u << 4 | 1u << 6);
	BAD(EINVAL, page_sizes, 0);
	BAD(EINVAL, page_sizes, SIZE_2M);
	BAD(EINVAL, page_sizes, SIZE_4K | 0x2000);
	BAD(EINVAL, unmap_delay_ms, 60001);
	BAD(EDQUOT, pin_cache, q.max_mappings + 1);
	BAD(EDQUOT, max_tables, q.max_tables + 1);
	BAD(EDQUOT, max_mappings, q.max_mappings + 1);
	if (!(q.viommus & (1u << VTDS_VIOMMU_AMD)))
		BAD(EOPNOTSUPP, viommu, VTDS_VIOMMU_AMD);
	s = good_setup();
	s.max_tables = q.max_tables;
	s.max_mappings = q.max_mappings;
	s.unmap_delay_ms = 60000;
	s.gpa_bits = 52;
	s.levels = 1u << 3 | 1u << 4 | 1u << 5;
	s.page_sizes = SIZE_4K | SIZE_2M | SIZE_1G;
	s.features = VTDS_FEATURE_PASS_THROUGH | VTDS_FEATURE_DEVICE_TLB;
	EXPECT_EQ(0, try_ioctl(self->fd, VTDS_IOC_SETUP, &s));
}

TEST_F(context, before_setup)
{
	struct vtds_inv_entry inv = { .kind = VTDS_INV_IOTLB_GLOBAL };

	EXPECT_EQ(EINVAL, TRY(self->fd, VTDS_IOC_SET_ROOT, vtds_set_root));
	EXPECT_EQ(EINVAL, TRY(self->fd, VTDS_IOC_TRANSLATE, vtds_translate));
	EXPECT_EQ(EINVAL, TRY(self->fd, VTDS_IOC_INVALIDATE, vtds_invalidate,
			      .entries_uptr = (uintptr_t)&inv, .entry_len = sizeof(inv),
			      .entry_num = 1));
	EXPECT_EQ(0, TRY(self->fd, VTDS_IOC_STATS, vtds_stats));
	EXPECT_EQ(0, TRY(self->fd, VTDS_IOC_QUERY, vtds_query));
}

static void set_up(int fd)
{
	struct vtds_setup s = good_setup();

	if (ioctl(fd, VTDS_IOC_SETUP, &s))
		fatal("VTDS_IOC_SETUP");
}

TEST_F(context, bad_roots)
{
	set_up(self->fd);
#define ROOT(...) TRY(self->fd, VTDS_IOC_SET_ROOT, vtds_set_root, __VA_ARGS__)
	EXPECT_EQ(EOPNOTSUPP, ROOT(.flags = 1u << 2));
	EXPECT_EQ(EOPNOTSUPP, ROOT(.flags = VTDS_ROOT_ENABLE | VTDS_ROOT_SCALABLE));
	EXPECT_EQ(EINVAL, ROOT(.flags = VTDS_ROOT_ENABLE, .root_gpa = 0x1800));
	EXPECT_EQ(EINVAL, ROOT(.flags = VTDS_ROOT_ENABLE, .root_gpa = 1ull << 40));
	EXPECT_EQ(EINVAL, ROOT(.flags = VTDS_ROOT_ENABLE, .root_bytes = 4096));
	/* checked when not enabled as well */
	EXPECT_EQ(EINVAL, ROOT(.root_gpa = 1));
	EXPECT_EQ(EINVAL, ROOT(.root_gpa = 1ull << 63));
	EXPECT_EQ(EINVAL, ROOT(.root_bytes = 8192));
	EXPECT_EQ(0, ROOT(.root_gpa = (1ull << 40) - 4096));
	EXPECT_EQ(0, ROOT(.flags = VTDS_ROOT_ENABLE, .root_gpa = 0x1000));
}

/* One entry that must be refused with @err, and not counted as carried out. */
static bool inv_fails(int fd, int err, struct vtds_inv_entry entry)
{
	struct vtds_invalidate arg = VTDS_ARG(vtds_invalidate,
		.entries_uptr = (uintptr_t)&entry, .entry_len = sizeof(entry), .entry_num = 1);
	int got = try_ioctl(fd, VTDS_IOC_INVALIDATE, &arg);

	if (got == err && arg.entry_num == !err)
		return true;
	fprintf(stderr, "# kind %u: errno %d, want %d; %u carried out\n", entry.kind, got, err,
		arg.entry_num);
	return false;
}

#define INV(err, ...) EXPECT_TRUE(inv_fails(self->fd, err, (struct vtds_inv_entry) { __VA_ARGS__ }))

TEST_F(context, invalidation_entries)
{
	set_up(self->fd);
	INV(0, .kind = VTDS_INV_CONTEXT_GLOBAL);
	INV(0, .kind = VTDS_INV_CONTEXT_DOMAIN, .domain_id = 5);
	INV(0, .kind = VTDS_INV_CONTEXT_DEVICE, .domain_id = 5, .requester_id = 0xffff,
	    .function_mask = 3);
	INV(0, .kind = VTDS_INV_IOTLB_GLOBAL);
	INV(0, .kind = VTDS_INV_IOTLB_DOMAIN, .domain_id = 0xffff);
	INV(0, .kind = VTDS_INV_IOTLB_PAGES, .domain_id = 5, .iova = 0x1fff, .order = 52);
	INV(0, .kind = VTDS_INV_MEMORY);
	INV(EINVAL, .kind = 0);
	INV(EINVAL, .kind = 10);
	INV(EINVAL, .kind = 0x80000001);
	INV(EOPNOTSUPP, .kind = VTDS_INV_DEVICE_ENTRY, .requester_id = 8);
	INV(EOPNOTSUPP, .kind = VTDS_INV_ALL);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_PAGES, .order = 53);
	INV(EINVAL, .kind = VTDS_INV_CONTEXT_DEVICE, .function_mask = 4);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_GLOBAL, .__reserved = 1);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_GLOBAL, .iova = 0x1000);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_GLOBAL, .order = 1);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_GLOBAL, .domain_id = 1);
	INV(EINVAL, .kind = VTDS_INV_IOTLB_DOMAIN, .requester_id = 1);
	INV(EINVAL, .kind = VTDS_INV_CONTEXT_GLOBAL, .function_mask = 1);
	INV(EINVAL, .kind = VTDS_INV_MEMORY, .domain_id = 1);
}

TEST_F(context, invalidation_arrays)
{
	static struct vtds_inv_entry e[4096];
	struct { struct vtds_inv_entry e; u64 tail; } longer[2] = { };
	struct vtds_invalidate arg;
	unsigned int i;

	set_up(self->fd);
	for (i = 0; i < 4096; i++)
		e[i].kind = VTDS_INV_IOTLB_GLOBAL;
#define INVALIDATE(ptr, len, num)						\
	(arg = VTDS_ARG(vtds_invalidate, .entries_uptr = (uintptr_t)(ptr),	\
			.entry_len = len, .entry_num = num),			\
	 try_ioctl(self->fd, VTDS_IOC_INVALIDATE, &arg))
	EXPECT_EQ(0, INVALIDATE(e, sizeof(e[0]), 4096));
	EXPECT_EQ(4096, arg.entry_num);
	EXPECT_EQ(EINVAL, INVALIDATE(e, sizeof(e[0]), 4097));
	EXPECT_EQ(EINVAL, INVALIDATE(e, sizeof(e[0]), 0));
	EXPECT_EQ(EINVAL, INVALIDATE(e, sizeof(e[0]) - 1, 1));
	EXPECT_EQ(EINVAL, INVALIDATE(e, 0, 1));
	EXPECT_EQ(EFAULT, INVALIDATE(bad_pointer(), sizeof(e[0]), 1));
	EXPECT_EQ(0, arg.entry_num);
	longer[0].e.kind = VTDS_INV_IOTLB_GLOBAL;
	longer[1].e.kind = VTDS_INV_IOTLB_GLOBAL;
	EXPECT_EQ(0, INVALIDATE(longer, sizeof(longer[0]), 2));
	EXPECT_EQ(2, arg.entry_num);
	longer[1].tail = 1;
	EXPECT_EQ(E2BIG, INVALIDATE(longer, sizeof(longer[0]), 2));
	EXPECT_EQ(1, arg.entry_num);
	/* those before the one at fault are carried out */
	e[3].kind = 77;
	EXPECT_EQ(EINVAL, INVALIDATE(e, sizeof(e[0]), 6));
	EXPECT_EQ(3, arg.entry_num);
	EXPECT_EQ(EOPNOTSUPP, TRY(self->fd, VTDS_IOC_INVALIDATE, vtds_invalidate, .flags = 1,
				  .entries_uptr = (uintptr_t)e, .entry_len = sizeof(e[0]),
				  .entry_num = 1));
}

TEST_F(context, translate_and_stats)
{
	set_up(self->fd);
	EXPECT_EQ(ENOENT, TRY(self->fd, VTDS_IOC_TRANSLATE, vtds_translate, .requester_id = 8));
	EXPECT_EQ(ENOENT, TRY(self->fd, VTDS_IOC_TRANSLATE, vtds_translate,
			      .requester_id = 0x10000));
	EXPECT_EQ(EOPNOTSUPP, TRY(self->fd, VTDS_IOC_TRANSLATE, vtds_translate, .flags = 1));
	EXPECT_EQ(EOPNOTSUPP, TRY(self->fd, VTDS_IOC_STATS, vtds_stats, .flags = 1));
}

/* Runs @what in a forked child; returns its exit status. */
static int in_child(int (*what)(void *), void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(what(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int all_ioctls_fail_with_esrch(void *arg)
{
	struct vtds_inv_entry inv = { .kind = VTDS_INV_IOTLB_GLOBAL };
	struct vtds_setup s = good_setup();
	int fd = *(int *)arg;

	return TRY(fd, VTDS_IOC_QUERY, vtds_query) != ESRCH ||
		try_ioctl(fd, VTDS_IOC_SETUP, &s) != ESRCH ||
		TRY(fd, VTDS_IOC_SET_ROOT, vtds_set_root) != ESRCH ||
		TRY(fd, VTDS_IOC_INVALIDATE, vtds_invalidate, .entries_uptr = (uintptr_t)&inv,
		    .entry_len = sizeof(inv), .entry_num = 1) != ESRCH ||
		TRY(fd, VTDS_IOC_TRANSLATE, vtds_translate) != ESRCH ||
		TRY(fd, VTDS_IOC_STATS, vtds_stats) != ESRCH;
}

TEST_F(context, from_another_process)
{
	EXPECT_EQ(0, in_child(all_ioctls_fail_with_esrch, &self->fd));
	set_up(self->fd);
	EXPECT_EQ(0, in_child(all_ioctls_fail_with_esrch, &self->fd));
	EXPECT_EQ(0, TRY(self->fd, VTDS_IOC_STATS, vtds_stats));
}

/* Sizes: the same for each ioctl. */
FIXTURE(sizes) {
	struct env e;
};

FIXTURE_VARIANT(sizes) {
	unsigned long cmd;
	u32 bytes;
};

FIXTURE_VARIANT_ADD(sizes, query) { VTDS_IOC_QUERY, sizeof(struct vtds_query) };
FIXTURE_VARIANT_ADD(sizes, setup) { VTDS_IOC_SETUP, sizeof(struct vtds_setup) };
FIXTURE_VARIANT_ADD(sizes, set_root) { VTDS_IOC_SET_ROOT, sizeof(struct vtds_set_root) };
FIXTURE_VARIANT_ADD(sizes, invalidate) { VTDS_IOC_INVALIDATE, sizeof(struct vtds_invalidate) };
FIXTURE_VARIANT_ADD(sizes, translate) { VTDS_IOC_TRANSLATE, sizeof(struct vtds_translate) };
FIXTURE_VARIANT_ADD(sizes, stats) { VTDS_IOC_STATS, sizeof(struct vtds_stats) };

FIXTURE_VARIANT_ADD(sizes, device_attach) {
	VTDS_IOC_DEVICE_ATTACH, sizeof(struct vtds_device_attach)
};

FIXTURE_VARIANT_ADD(sizes, device_detach) {
	VTDS_IOC_DEVICE_DETACH, sizeof(struct vtds_device_detach)
};

FIXTURE_SETUP(sizes)
{
	struct env_options o = { .fmt = &fmt_vtd, .nr_devs = 1 };

	o.not_attached = variant->cmd != VTDS_IOC_DEVICE_DETACH;
	env_open(&self->e, &o);
}

FIXTURE_TEARDOWN(sizes)
{
	env_close(&self->e);
}

static struct vtds_inv_entry one_inv = { .kind = VTDS_INV_IOTLB_GLOBAL };

/* A valid argument for @cmd, in a buffer of zeros, and where it must be sent. */
static int prepare(struct env *e, unsigned long cmd, u32 bytes, void *buffer)
{
	u32 *size = buffer;

	memset(buffer, 0, PAGE_BYTES);
	if (cmd == VTDS_IOC_SETUP)
		*(struct vtds_setup *)buffer = good_setup();
	else if (cmd == VTDS_IOC_INVALIDATE)
		*(struct vtds_invalidate *)buffer = VTDS_ARG(vtds_invalidate,
			.entries_uptr = (uintptr_t)&one_inv, .entry_len = sizeof(one_inv),
			.entry_num = 1);
	else if (cmd == VTDS_IOC_DEVICE_ATTACH)
		*(struct vtds_device_attach *)buffer = VTDS_ARG(vtds_device_attach,
			.context_fd = e->ctx, .requester_id = e->rid[0]);
	else if (cmd == VTDS_IOC_TRANSLATE)
		*(struct vtds_translate *)buffer = VTDS_ARG(vtds_translate,
			.requester_id = e->rid[0]);
	*size = bytes;
	return cmd == VTDS_IOC_DEVICE_ATTACH || cmd == VTDS_IOC_DEVICE_DETACH ?
		e->dev[0].fd : e->ctx;
}

TEST_F(sizes, short_long_and_dirty)
{
	u8 *page = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned long cmd = variant->cmd;
	u32 bytes = variant->bytes, *size = (u32 *)page;
	/* the context is set up, and nothing attached: what a good argument gives */
	int ok = cmd == VTDS_IOC_SETUP ? EBUSY : cmd == VTDS_IOC_TRANSLATE ? ENOENT : 0;
	int fd = prepare(&self->e, cmd, bytes, page);

	ASSERT_NE(MAP_FAILED, page);
	*size = bytes - 1;
	EXPECT_EQ(EINVAL, try_ioctl(fd, cmd, page));
	*size = 4;
	EXPECT_EQ(EINVAL, try_ioctl(fd, cmd, page));
	*size = 0;
	EXPECT_EQ(EINVAL, try_ioctl(fd, cmd, page));
	*size = bytes + 8;
	page[bytes + 7] = 1;
	EXPECT_EQ(E2BIG, try_ioctl(fd, cmd, page));
	page[bytes + 7] = 0;
	page[bytes] = 0x80;
	EXPECT_EQ(E2BIG, try_ioctl(fd, cmd, page));
	page[bytes] = 0;
	*size = ~0u;
	EXPECT_NE(0, try_ioctl(fd, cmd, page));
	EXPECT_EQ(EFAULT, try_ioctl(fd, cmd, bad_pointer()));
	EXPECT_EQ(EFAULT, try_ioctl(fd, cmd, NULL));
	/* starts in the page, ends in one that is not there */
	ASSERT_EQ(0, mprotect(page + PAGE_BYTES, PAGE_BYTES, PROT_NONE));
	*size = bytes;
	memmove(page + PAGE_BYTES - 8, page, 8);
	EXPECT_EQ(bytes > 8 ? EFAULT : ok, try_ioctl(fd, cmd, page + PAGE_BYTES - 8));
	if (bytes == 8)
		return;
	fd = prepare(&self->e, cmd, bytes + 64, page);
	EXPECT_EQ(ok, try_ioctl(fd, cmd, page));
}

TEST_F(sizes, exact)
{
	static u8 page[PAGE_BYTES];
	int ok = variant->cmd == VTDS_IOC_SETUP ? EBUSY :
		variant->cmd == VTDS_IOC_TRANSLATE ? ENOENT : 0;
	int fd = prepare(&self->e, variant->cmd, variant->bytes, page);

	EXPECT_EQ(ok, try_ioctl(fd, variant->cmd, page));
}

FIXTURE(attach) {
	struct env e;
};

FIXTURE_SETUP(attach)
{
	env_open(&self->e, &(struct env_options) { .fmt = &fmt_vtd, .not_attached = true });
}

FIXTURE_TEARDOWN(attach)
{
	env_close(&self->e);
}

#define ATTACH(n, ctx_fd, rid) TRY(self->e.dev[n].fd, VTDS_IOC_DEVICE_ATTACH,	\
				   vtds_device_attach, .context_fd = ctx_fd,	\
				   .requester_id = rid)
#define DETACH(n) TRY(self->e.dev[n].fd, VTDS_IOC_DEVICE_DETACH, vtds_device_detach)

TEST_F(attach, bad_arguments)
{
	int other = open_ctx(), null = open("/dev/null", O_RDWR);

	EXPECT_EQ(EINVAL, DETACH(0));
	EXPECT_EQ(EBADF, ATTACH(0, -1, 8));
	EXPECT_EQ(EBADF, ATTACH(0, 999, 8));
	EXPECT_EQ(EBADF, ATTACH(0, null, 8));
	EXPECT_EQ(EBADF, ATTACH(0, self->e.dev[0].fd, 8));
	EXPECT_EQ(EINVAL, ATTACH(0, other, 8));
	EXPECT_EQ(EINVAL, ATTACH(0, self->e.ctx, 0x10000));
	EXPECT_EQ(EOPNOTSUPP, TRY(self->e.dev[0].fd, VTDS_IOC_DEVICE_ATTACH, vtds_device_attach,
				  .flags = 1, .context_fd = self->e.ctx, .requester_id = 8));
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 0xffff));
	EXPECT_EQ(EOPNOTSUPP, TRY(self->e.dev[0].fd, VTDS_IOC_DEVICE_DETACH,
				  vtds_device_detach, .flags = 1));
	EXPECT_EQ(1, env_stats(&self->e).endpoints);
	EXPECT_EQ(0, DETACH(0));
	EXPECT_EQ(EINVAL, DETACH(0));
	EXPECT_EQ(0, env_stats(&self->e).endpoints);
}

TEST_F(attach, once)
{
	int other = open_ctx();

	set_up(other);
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 8));
	EXPECT_EQ(EBUSY, ATTACH(0, self->e.ctx, 8));
	EXPECT_EQ(EBUSY, ATTACH(0, self->e.ctx, 9));
	EXPECT_EQ(EBUSY, ATTACH(0, other, 8));
	EXPECT_EQ(1, env_stats(&self->e).endpoints);
	EXPECT_EQ(0, DETACH(0));
	EXPECT_EQ(0, ATTACH(0, other, 8));
}

TEST_F(attach, requester_id_is_taken)
{
	if (self->e.nr_devs < 2)
		SKIP(return, "needs two devices");
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 8));
	EXPECT_EQ(EBUSY, ATTACH(1, self->e.ctx, 8));
	EXPECT_EQ(0, ATTACH(1, self->e.ctx, 9));
	EXPECT_EQ(2, env_stats(&self->e).endpoints);
	EXPECT_EQ(0, DETACH(0));
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 8));
}

struct attach_args {
	struct env *e;
	int ctx;
};

static int attach_fails_with_esrch(void *p)
{
	struct attach_args *a = p;

	return TRY(a->e->dev[0].fd, VTDS_IOC_DEVICE_ATTACH, vtds_device_attach,
		   .context_fd = a->ctx, .requester_id = 8) != ESRCH;
}

static int detach_fails_with_esrch(void *p)
{
	struct attach_args *a = p;

	return TRY(a->e->dev[0].fd, VTDS_IOC_DEVICE_DETACH, vtds_device_detach) != ESRCH;
}

TEST_F(attach, from_another_process)
{
	struct attach_args args = { &self->e, self->e.ctx };

	EXPECT_EQ(0, in_child(attach_fails_with_esrch, &args));
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 8));
	EXPECT_EQ(0, in_child(detach_fails_with_esrch, &args));
	EXPECT_EQ(0, DETACH(0));
}

/* The group has not joined a VM, or another one than the context's first device. */
TEST_F(attach, vm_is_missing_or_another)
{
	struct container c;
	struct vm vm2;
	struct dev d;
	char bdf[16];

	memcpy(bdf, self->e.dev[0].bdf, sizeof(bdf));
	dev_close(&self->e.dev[0]);
	container_open(&c);
	dev_open(&d, &c, NULL, bdf, NULL);
	EXPECT_EQ(ESRCH, TRY(d.fd, VTDS_IOC_DEVICE_ATTACH, vtds_device_attach,
			     .context_fd = self->e.ctx, .requester_id = 8));
	dev_close(&d);
	container_close(&c);

	container_open(&c);
	vm_create(&vm2, 1);
	dev_open(&d, &c, &vm2, bdf, NULL);
	if (self->e.nr_devs > 1) {
		EXPECT_EQ(0, ATTACH(1, self->e.ctx, 9));
		EXPECT_EQ(ESRCH, TRY(d.fd, VTDS_IOC_DEVICE_ATTACH, vtds_device_attach,
				     .context_fd = self->e.ctx, .requester_id = 8));
	}
	dev_close(&d);
	container_close(&c);
	vm_destroy(&vm2);

	dev_open(&self->e.dev[0], &self->e.container, &self->e.vm, bdf, NULL);
	EXPECT_EQ(0, ATTACH(0, self->e.ctx, 8));
}

/* Ends, in each order, and the proof that all is well after it. */
FIXTURE(end) {
	struct env e;
	struct dom d;
	u64 a;
};

static void end_open(struct env *e, struct dom *d, u64 *a)
{
	env_open(e, &(struct env_options) { .fmt = &fmt_vtd, .nr_vcpus = 2 });
	*d = dom_alloc(e, 1);
	*a = vm_alloc(&e->vm, 1);
	dom_map(e, d, 0x100000000, *a, 1, PERM_RW);
	dom_set(e, 0, d);
}

FIXTURE_SETUP(end)
{
	end_open(&self->e, &self->d, &self->a);
	ASSERT_TRUE(is_mapped(&self->e, 0, 0x100000000, self->a, SIZE_4K, PERM_RW));
}

FIXTURE_TEARDOWN(end)
{
}

static bool works_again(void)
{
	static struct env e;
	struct dom d;
	bool ok;
	u64 a;

	end_open(&e, &d, &a);
	ok = is_mapped(&e, 0, 0x100000000, a, SIZE_4K, PERM_RW) &&
		dma_reaches(&e, 0, 0x100000000, a, 256);
	env_close(&e);
	return ok;
}

TEST_F(end, device_closed_before_context)
{
	u32 i;

	for (i = 0; i < self->e.nr_devs; i++)
		dev_close(&self->e.dev[i]);
	EXPECT_TRUE(is_released_soon(&self->e));
	self->e.nr_devs = 0;
	env_close(&self->e);
	EXPECT_TRUE(works_again());
}

TEST_F(end, context_closed_before_device)
{
	u32 i;

	close(self->e.ctx);
	self->e.ctx = -1;
	/* still attached, to nothing; detach gives the bypass domain back */
	EXPECT_EQ(0, DETACH(0));
	ASSERT_TRUE(dma_reaches(&self->e, 0, self->a, self->a, 256));
	for (i = 0; i < self->e.nr_devs; i++)
		dev_close(&self->e.dev[i]);
	self->e.nr_devs = 0;
	container_close(&self->e.container);
	vm_destroy(&self->e.vm);
	EXPECT_TRUE(works_again());
}

TEST_F(end, vm_closed_first)
{
	vm_destroy(&self->e.vm);
	/* the module holds the VM itself, not its descriptors */
	ASSERT_TRUE(is_mapped(&self->e, 0, 0x100000000, self->a, SIZE_4K, PERM_RW));
	env_detach(&self->e, 0);
	close(self->e.ctx);
	dev_close(&self->e.dev[0]);
	if (self->e.nr_devs > 1)
		dev_close(&self->e.dev[1]);
	container_close(&self->e.container);
	EXPECT_TRUE(works_again());
}

/* Pages pinned now, of the whole machine: those of our children come back. */
static long long pinned_now(void)
{
	long long acquired = 0, released = 0, value;
	char name[64];
	FILE *f;

	/* folds the per-CPU counts */
	f = fopen("/proc/sys/vm/stat_refresh", "we");
	if (f) {
		fputs("1\n", f);
		fclose(f);
	}
	f = fopen("/proc/vmstat", "re");
	if (!f)
		fatal("/proc/vmstat");
	while (fscanf(f, "%63s %lld", name, &value) == 2) {
		if (!strcmp(name, "nr_foll_pin_acquired"))
			acquired = value;
		if (!strcmp(name, "nr_foll_pin_released"))
			released = value;
	}
	fclose(f);
	return acquired - released;
}

/* Leaves of both sizes that come and go, the larger in place of tables. */
static void make_load(struct env *e, const struct dom *d, u32 cpu, struct guest_write *w)
{
	u32 i, level;
	u64 iova;

	for (i = 0; i < 512; i++) {
		iova = 2 * SIZE_1G + i % 8 * SIZE_2M + cpu * SIZE_4K;
		level = 1 + i % 2;
		w[i] = (struct guest_write) { .op = GUEST_STORE, .width = 8,
			.gpa = dom_entry(e, d, iova, level),
			.value = i % 3 ? e->fmt->leaf(GPA_DATA_2M, level, PERM_RW) : 0 };
	}
}

/* Two vCPUs write tables, and the device does DMA, until somebody ends it. */
static void load_forever(int ready)
{
	static struct guest_write w[2][512];
	static struct env e;
	struct dom d;
	u32 cpu;
	u64 a;

	end_open(&e, &d, &a);
	/* mapped here and in bypass: at no instant of the end does DMA go wrong */
	dom_map(&e, &d, a, a, 1, PERM_RW);
	for (cpu = 0; cpu < 2; cpu++)
		make_load(&e, &d, cpu, w[cpu]);
	if (write(ready, "r", 1) != 1)
		_exit(1);
	for (;;) {
		if (dev_can_dma(&e.dev[0]))
			edu_read_start(&e.dev[0], a, 0, 64);
		for (cpu = 0; cpu < 2; cpu++)
			vm_batch_start(&e.vm, cpu, w[cpu], 512);
		for (cpu = 0; cpu < 2; cpu++)
			vm_batch_wait(&e.vm, cpu);
		env_flush(&e);
		drain_events(&e);
	}
}

TEST(killed_under_load)
{
	static const unsigned int after_ms[] = { 0, 3, 40, 170 };
	long long before = pinned_now();
	unsigned int i, waited;
	int status, fds[2];
	pid_t pid;
	char c;

	for (i = 0; i < ARRAY_SIZE(after_ms); i++) {
		ASSERT_EQ(0, pipe(fds));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			load_forever(fds[1]);
		close(fds[1]);
		ASSERT_EQ(1, read(fds[0], &c, 1));
		close(fds[0]);
		sleep_ms(after_ms[i]);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		ASSERT_TRUE(works_again());
	}
	/* the last of it may be freed by a worker, after the process is gone */
	for (waited = 0; pinned_now() != before && waited < 3000; waited += 100)
		sleep_ms(100);
	EXPECT_EQ(before, pinned_now());
}

TEST_HARNESS_MAIN
