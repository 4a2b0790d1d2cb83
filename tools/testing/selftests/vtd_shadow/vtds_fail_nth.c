// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation that an operation makes fails once: the first, the second, ...
 * until none is left to fail. The same for each call of the host IOMMU to map, of
 * the mm to pin, of KVM to track. The operation then says so (documented errno) or
 * copes; nothing is mapped that the guest's tables do not say; and what comes next
 * works as if nothing had happened. Needs a kernel with fault injection.
 */
#include <fcntl.h>

#include "test.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define NR_SAMPLES	8
#define NR_LEAVES	4
#define MAX_FAILURES	2000
#define FAIL_FUNCTION	DEBUGFS "fail_function/"

/*
 * Functions of the module that allow error injection, with an error of theirs. Each
 * call counts, like an allocation, in the task's fail-nth.
 */
static const struct {
	const char *name;
	int error;
} functions[] = {
	{ "vtd_shadow:host_map", -ENOMEM },
	{ "vtd_shadow:pages_acquire", -ENOMEM },
	{ "vtd_shadow:vtds_vm_track", -ENXIO },
};

#define MAX_TIMES	1000000

/*
 * @leaf_iova: mapped by an entry of its own table
 * @large_iova: mapped by a 2 MiB leaf
 * @link_iova: first page of a table with NR_LEAVES leaves, ready to be linked
 * @other: a second domain, which maps other pages
 * @fresh: 2 MiB of guest memory of which nothing was mapped before
 * @ctx: a second context, for what is done to a fresh one
 */
struct scene {
	struct env e;
	struct dom d, other;
	u64 leaf_iova, large_iova, link_iova;
	u64 link_entry, link_value;
	u64 data, fresh;
	int ctx;
	bool attached;
	int nth_fd;
};

struct step {
	const char *name;
	int (*run)(struct scene *s);
	void (*undo)(struct scene *s);
};

static bool write_file(const char *name, const char *value)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC), n;

	if (fd < 0)
		return false;
	n = write(fd, value, strlen(value));
	close(fd);
	return n == (int)strlen(value);
}

static void must_write(const char *name, const char *value)
{
	if (!write_file(name, value))
		fatal("%s to %s", value, name);
}

/* Allocations that may sleep fail as well, and quietly. */
static bool faults_are_offered(void)
{
	return access("/proc/thread-self/fail-nth", W_OK) == 0 &&
	       access(FAIL_FUNCTION "inject", W_OK) == 0 &&
	       write_file(DEBUGFS "failslab/ignore-gfp-wait", "N") &&
	       write_file(DEBUGFS "failslab/verbose", "0") &&
	       write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N") &&
	       write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N") &&
	       write_file(DEBUGFS "fail_page_alloc/min-order", "0") &&
	       write_file(DEBUGFS "fail_page_alloc/verbose", "0");
}

/* Functions can fail from now on, quietly; only when it is their turn. */
static void functions_open(void)
{
	char file[128], value[32];
	unsigned int i;

	must_write(FAIL_FUNCTION "verbose", "0");
	snprintf(value, sizeof(value), "%u", MAX_TIMES);
	must_write(FAIL_FUNCTION "times", value);
	must_write(FAIL_FUNCTION "inject", " ");
	for (i = 0; i < ARRAY_SIZE(functions); i++) {
		must_write(FAIL_FUNCTION "inject", functions[i].name);
		snprintf(file, sizeof(file), FAIL_FUNCTION "%s/retval", functions[i].name);
		snprintf(value, sizeof(value), "%#llx",
			 (unsigned long long)functions[i].error);
		must_write(file, value);
	}
}

/* Return: how many times one of them has failed since functions_open(). */
static unsigned int functions_failed(void)
{
	int fd = open(FAIL_FUNCTION "times", O_RDONLY | O_CLOEXEC);
	char text[16] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		fatal("fail_function");
	close(fd);
	return MAX_TIMES - atoi(text);
}

static void functions_close(void)
{
	must_write(FAIL_FUNCTION "inject", " ");
}

static void arm(struct scene *s, unsigned int nth)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(s->nth_fd, text, n, 0) != n)
		fatal("fail-nth");
}

/* Return: whether something has failed since arm(). */
static bool disarm(struct scene *s)
{
	char text[16] = "";

	if (pread(s->nth_fd, text, sizeof(text) - 1, 0) <= 0)
		fatal("fail-nth");
	arm(s, 0);
	return atoi(text) == 0;
}

/* ---- what has to hold ---- */

static u64 sample(struct scene *s, unsigned int i)
{
	const u64 iovas[NR_SAMPLES] = {
		s->leaf_iova, s->leaf_iova + PAGE_BYTES, s->large_iova,
		s->large_iova + SIZE_2M - 1, s->link_iova,
		s->link_iova + (NR_LEAVES - 1) * PAGE_BYTES,
		s->link_iova + NR_LEAVES * PAGE_BYTES, 0,
	};

	return iovas[i];
}

/* Whatever failed: a device reaches only what the guest's tables say. */
static bool is_safe(struct scene *s)
{
	struct vtds_translate t;
	struct walk w;
	unsigned int i;

	for (i = 0; s->attached && i < NR_SAMPLES; i++) {
		t = env_translate(&s->e, 0, sample(s, i));
		if (t.state == VTDS_STATE_BLOCKED)
			return true;
		w = env_walk(&s->e, 0, sample(s, i));
		if (t.state != w.state || (t.perm && (t.perm != w.perm || t.gpa != w.gpa) &&
					   t.state == VTDS_STATE_SHADOW)) {
			fprintf(stderr, "# iova %#llx reaches %#llx (%u), tables say %#llx (%u)\n",
				(unsigned long long)sample(s, i), t.gpa, t.perm,
				(unsigned long long)w.gpa, w.perm);
			return false;
		}
	}
	return true;
}

static bool is_exact(struct scene *s)
{
	unsigned int i;

	for (i = 0; s->attached && i < NR_SAMPLES; i++)
		if (!is_as_walked(&s->e, 0, sample(s, i)))
			return false;
	return true;
}

/* The VMM's answer to an event: flush, and try again what was refused. */
static void settle(struct scene *s)
{
	env_flush(&s->e);
	env_inv(&s->e, VTDS_INV_MEMORY);
	drain_events(&s->e);
}

static void print_events(struct scene *s)
{
	struct vtds_event event;

	while (read(s->e.ctx, &event, sizeof(event)) == sizeof(event))
		fprintf(stderr, "# event: reason %u iova %#llx gpa %#llx level %u\n",
			event.reason, event.iova, event.gpa, event.level);
}

static bool sweep(struct scene *s, const struct step *step)
{
	unsigned int nth, errors = 0, events = 0;
	bool hit = true;
	u64 before;
	int ret;

	for (nth = 1; hit; nth++) {
		if (nth > MAX_FAILURES)
			return false;
		before = env_stats(&s->e).events;
		arm(s, nth);
		ret = step->run(s);
		hit = disarm(s);
		if (ret && (!hit || ret != -ENOMEM)) {
			fprintf(stderr, "# %s: errno %d at failure %u (%s)\n", step->name, -ret,
				nth, hit ? "injected" : "none injected");
			return false;
		}
		errors += !!ret;
		events += env_stats(&s->e).events != before;
		if (!is_safe(s))
			goto failed;
		/* An ioctl that fails has changed nothing: it can be done again */
		if (ret && step->run(s))
			goto failed;
		if (hit)
			settle(s);
		if (!is_exact(s))
			goto failed;
		if (step->undo)
			step->undo(s);
		env_flush(&s->e);
		if (!is_exact(s))
			goto failed;
	}
	ksft_print_msg("%s: %u failures: %u errors, %u with events\n", step->name, nth - 2,
		       errors, events);
	return true;

failed:
	fprintf(stderr, "# %s: wrong after failure %u (%s), errno %d\n", step->name, nth,
		hit ? "injected" : "none injected", -ret);
	print_events(s);
	return false;
}

/* ---- operations ---- */

static int result(int ret)
{
	return ret < 0 ? -errno : 0;
}

static int run_open(struct scene *s)
{
	s->ctx = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC);
	return result(s->ctx);
}

static void undo_open(struct scene *s)
{
	close(s->ctx);
}

static int run_setup(struct scene *s)
{
	struct vtds_setup arg = s->e.setup;

	return result(ioctl(s->ctx, VTDS_IOC_SETUP, &arg));
}

static void undo_setup(struct scene *s)
{
	close(s->ctx);
	if (run_open(s))
		fatal("/dev/vtd_shadow");
}

static int run_query(struct scene *s)
{
	struct vtds_query arg = VTDS_ARG(vtds_query);

	return result(ioctl(s->e.ctx, VTDS_IOC_QUERY, &arg));
}

static int run_stats(struct scene *s)
{
	struct vtds_stats arg = VTDS_ARG(vtds_stats);

	return result(ioctl(s->e.ctx, VTDS_IOC_STATS, &arg));
}

static int run_translate(struct scene *s)
{
	struct vtds_translate arg = VTDS_ARG(vtds_translate, .requester_id = s->e.rid[0],
					     .iova = s->leaf_iova);

	return result(ioctl(s->e.ctx, VTDS_IOC_TRANSLATE, &arg));
}

static int run_attach(struct scene *s)
{
	struct vtds_device_attach arg = VTDS_ARG(vtds_device_attach, .context_fd = s->e.ctx,
						 .requester_id = s->e.rid[0]);
	int ret = result(ioctl(s->e.dev[0].fd, VTDS_IOC_DEVICE_ATTACH, &arg));

	s->attached = !ret;
	return ret;
}

static int run_detach(struct scene *s)
{
	struct vtds_device_detach arg = VTDS_ARG(vtds_device_detach);
	int ret = result(ioctl(s->e.dev[0].fd, VTDS_IOC_DEVICE_DETACH, &arg));

	s->attached = !!ret;
	return ret;
}

static void undo_attach(struct scene *s)
{
	if (run_detach(s))
		fatal("detach");
}

static void undo_detach(struct scene *s)
{
	if (run_attach(s))
		fatal("attach");
}

static int set_root(struct scene *s, u32 flags)
{
	struct vtds_set_root arg = VTDS_ARG(vtds_set_root, .flags = flags,
		.root_gpa = s->e.root_gpa, .root_bytes = s->e.root_bytes);

	return result(ioctl(s->e.ctx, VTDS_IOC_SET_ROOT, &arg));
}

/* Off and on again: what the tables say holds only in between the two. */
static int run_root(struct scene *s)
{
	return set_root(s, 0) ?: set_root(s, VTDS_ROOT_ENABLE);
}

static int run_invalidate(struct scene *s)
{
	struct vtds_inv_entry entries[] = {
		{ .kind = VTDS_INV_MEMORY },
		{ .kind = s->e.fmt == &fmt_vtd ? VTDS_INV_CONTEXT_GLOBAL : VTDS_INV_ALL },
		{ .kind = VTDS_INV_MEMORY },
	};
	struct vtds_invalidate arg = VTDS_ARG(vtds_invalidate, .entries_uptr = (uintptr_t)entries,
		.entry_len = sizeof(entries[0]), .entry_num = ARRAY_SIZE(entries));

	return result(ioctl(s->e.ctx, VTDS_IOC_INVALIDATE, &arg));
}

static int run_map_leaf(struct scene *s)
{
	dom_map(&s->e, &s->d, s->leaf_iova + PAGE_BYTES, s->data, 1, PERM_RW);
	return 0;
}

static void undo_map_leaf(struct scene *s)
{
	dom_unmap(&s->e, &s->d, s->leaf_iova + PAGE_BYTES, 1);
}

/* Of memory that is new to the module, so that it needs a record of its pins. */
static int run_map_fresh(struct scene *s)
{
	dom_map(&s->e, &s->d, s->leaf_iova + PAGE_BYTES, s->fresh, 1, PERM_RW);
	return 0;
}

static void undo_map_fresh(struct scene *s)
{
	undo_map_leaf(s);
	s->fresh += SIZE_2M;
	if (s->fresh == GPA_1G + BYTES_1G)
		fatal("no fresh memory is left");
}

static int run_unmap_leaf(struct scene *s)
{
	dom_unmap(&s->e, &s->d, s->leaf_iova, 1);
	env_flush(&s->e);
	return 0;
}

static void undo_unmap_leaf(struct scene *s)
{
	dom_map(&s->e, &s->d, s->leaf_iova, s->data, 1, PERM_RW);
}

static int run_map_large(struct scene *s)
{
	dom_map(&s->e, &s->d, s->large_iova, GPA_DATA_2M, 2, PERM_RW);
	return 0;
}

static void undo_map_large(struct scene *s)
{
	dom_unmap(&s->e, &s->d, s->large_iova, 2);
}

static int run_link(struct scene *s)
{
	vm_write64(&s->e.vm, s->link_entry, s->link_value);
	return 0;
}

static void undo_link(struct scene *s)
{
	vm_write64(&s->e.vm, s->link_entry, 0);
}

static int run_move(struct scene *s)
{
	dom_set(&s->e, 0, &s->other);
	return 0;
}

static void undo_move(struct scene *s)
{
	dom_set(&s->e, 0, &s->d);
}

static int run_pass_through(struct scene *s)
{
	s->e.fmt->set_device(&s->e, 0, DEV_PASS_THROUGH, NULL);
	return 0;
}

/* ---- tests ---- */

FIXTURE(fail_nth) {
	struct scene s;
};

FIXTURE_VARIANT(fail_nth) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(fail_nth, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(fail_nth, amd) { .fmt = &fmt_amd };

static void make_tables(struct scene *s)
{
	struct env *e = &s->e;
	u64 table;
	u32 i;

	s->leaf_iova = 0x1234567000ull;
	s->large_iova = s->leaf_iova - s->leaf_iova % SIZE_1G + 4 * SIZE_2M;
	s->link_iova = s->large_iova + SIZE_2M;
	s->data = vm_alloc(&e->vm, NR_LEAVES);
	s->fresh = GPA_1G;
	vm_slot_add(&e->vm, SLOT_1G);
	s->d = dom_alloc(e, 1);
	s->other = dom_alloc(e, 2);
	dom_map(e, &s->d, s->leaf_iova, s->data, 1, PERM_RW);
	dom_map(e, &s->other, s->leaf_iova, s->data + PAGE_BYTES, 1, PERM_R);
	table = vm_alloc(&e->vm, 1);
	for (i = 0; i < NR_LEAVES; i++)
		vm_write64(&e->vm, table + 8 * i,
			   e->fmt->leaf(s->data + i * PAGE_BYTES, 1, PERM_RW));
	s->link_entry = dom_entry(e, &s->d, s->link_iova, 2);
	s->link_value = e->fmt->link(table, 2, PERM_RW);
	dom_set(e, 0, &s->d);
}

FIXTURE_SETUP(fail_nth)
{
	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	if (!faults_are_offered())
		SKIP(return, "the kernel has no fault injection");
	env_open(&self->s.e, &(struct env_options) {
		 .fmt = variant->fmt, .nr_devs = 1, .not_attached = true });
	make_tables(&self->s);
	functions_open();
	self->s.nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->s.nth_fd);
}

FIXTURE_TEARDOWN(fail_nth)
{
	struct env *e = &self->s.e;

	/* The bypass domain is whole: the device reads and writes guest memory */
	EXPECT_FALSE(self->s.attached);
	EXPECT_TRUE(is_released(e));
	close(self->s.nth_fd);
	functions_close();
	env_close(e);
}

static bool sweep_all(struct scene *s, const struct step *steps, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!sweep(s, &steps[i]))
			return false;
	return true;
}

TEST_F(fail_nth, context)
{
	static const struct step steps[] = {
		{ "open", run_open, undo_open },
		{ "query", run_query },
		{ "stats", run_stats },
	};
	static const struct step setup = { "setup", run_setup, undo_setup };

	ASSERT_TRUE(sweep_all(&self->s, steps, ARRAY_SIZE(steps)));
	ASSERT_EQ(0, run_open(&self->s));
	ASSERT_TRUE(sweep(&self->s, &setup));
	close(self->s.ctx);
}

TEST_F(fail_nth, attach)
{
	static const struct step attach = { "attach", run_attach, undo_attach };
	static const struct step detach = { "detach", run_detach, undo_detach };

	ASSERT_TRUE(sweep(&self->s, &attach));
	env_attach(&self->s.e, 0);
	self->s.attached = true;
	ASSERT_TRUE(sweep(&self->s, &detach));
	ASSERT_EQ(0, run_detach(&self->s));
	EXPECT_LT(0, functions_failed());
}

TEST_F(fail_nth, attached)
{
	static const struct step steps[] = {
		{ "translate", run_translate },
		{ "invalidate", run_invalidate },
		{ "map a leaf", run_map_leaf, undo_map_leaf },
		{ "map a leaf of fresh memory", run_map_fresh, undo_map_fresh },
		{ "unmap a leaf", run_unmap_leaf, undo_unmap_leaf },
		{ "map 2 MiB", run_map_large, undo_map_large },
		{ "link a table", run_link, undo_link },
		{ "move to another domain", run_move, undo_move },
		{ "pass-through", run_pass_through, undo_move },
		{ "root off and on", run_root },
	};

	env_attach(&self->s.e, 0);
	self->s.attached = true;
	ASSERT_TRUE(sweep_all(&self->s, steps, ARRAY_SIZE(steps)));
	ASSERT_EQ(0, run_detach(&self->s));
	EXPECT_LT(0, functions_failed());
}

TEST_HARNESS_MAIN
