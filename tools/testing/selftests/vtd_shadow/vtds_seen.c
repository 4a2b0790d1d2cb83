// SPDX-License-Identifier: GPL-2.0
/*
 * What an administrator can see of the module at work: counters and endpoints of
 * each context in debugfs, and tracepoints.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "test.h"

#define DEBUGFS		"/sys/kernel/debug/vtd_shadow"
#define TRACING		"/sys/kernel/tracing/instances/vtds_seen"
#define MAX_TEXT	(1 << 18)

#define IOVA		0x40003000ull

FIXTURE(seen) {
	struct env e;
	struct dom d;
	u64 data;
	char *text;
};

FIXTURE_VARIANT(seen) {
	const struct fmt *fmt;
};

FIXTURE_VARIANT_ADD(seen, vtd) { .fmt = &fmt_vtd };
FIXTURE_VARIANT_ADD(seen, amd) { .fmt = &fmt_amd };

FIXTURE_SETUP(seen)
{
	struct env *e = &self->e;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) { .fmt = variant->fmt, .nr_vcpus = 2 });
	self->data = vm_alloc(&e->vm, 1);
	self->d = dom_alloc(e, 7);
	dom_map(e, &self->d, IOVA, self->data, 1, PERM_RW);
	self->text = calloc(1, MAX_TEXT);
	ASSERT_NE(NULL, self->text);
}

FIXTURE_TEARDOWN(seen)
{
	free(self->text);
	env_close(&self->e);
}

/* Reads @file into @text; one that is not there is empty. */
static void read_text(const char *file, char *text)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n;

	while (fd >= 0 && (n = read(fd, text + done, MAX_TEXT - 1 - done)) > 0)
		done += n;
	text[done] = 0;
	if (fd >= 0)
		close(fd);
}

static bool write_text(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return good;
}

static bool has(const char *text, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static bool has(const char *text, const char *fmt, ...)
{
	char want[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	if (strstr(text, want))
		return true;
	fprintf(stderr, "# no \"%s\" in:\n# %s\n", want, text);
	return false;
}

/* Reads the file @name of this process's only context. */
static void read_debugfs(const char *name, char *text)
{
	DIR *dir = opendir(DEBUGFS);
	struct dirent *entry;
	char file[512];

	*text = 0;
	while (dir && (entry = readdir(dir))) {
		if (atoi(entry->d_name) != getpid())
			continue;
		snprintf(file, sizeof(file), DEBUGFS "/%s/%s", entry->d_name, name);
		read_text(file, text);
	}
	if (dir)
		closedir(dir);
}

TEST_F(seen, counters)
{
	struct vtds_stats stats;

	dom_set(&self->e, 0, &self->d);
	/* Nobody's memory */
	dom_map(&self->e, &self->d, IOVA + SIZE_4K, GPA_NOTHING, 1, PERM_RW);
	stats = env_stats(&self->e);
	read_debugfs("stats", self->text);
	EXPECT_LT(0, stats.maps);
	EXPECT_TRUE(has(self->text, "\nmaps %llu\n", stats.maps));
	EXPECT_TRUE(has(self->text, "\nmappings %llu\n", stats.mappings));
	EXPECT_TRUE(has(self->text, "\ntables %llu\n", stats.tables));
	EXPECT_TRUE(has(self->text, "\npinned_pages %llu\n", stats.pinned_pages));
	EXPECT_TRUE(has(self->text, "\nreject_not_ram 1\n"));
}

TEST_F(seen, endpoints)
{
	struct env *e = &self->e;

	e->fmt->set_device(e, 0, DEV_BLOCKED, NULL);
	read_debugfs("endpoints", self->text);
	EXPECT_TRUE(has(self->text, " device=%s group=", e->dev[0].bdf));
	EXPECT_TRUE(has(self->text, " state=blocked"));
	dom_set(e, 0, &self->d);
	read_debugfs("endpoints", self->text);
	EXPECT_TRUE(has(self->text, " state=shadow domain=7 root=%#llx levels=%u\n",
			(unsigned long long)self->d.top_gpa, self->d.levels));
	/* Top table in no memory */
	self->d.top_gpa = GPA_NOTHING;
	dom_set(e, 0, &self->d);
	read_debugfs("endpoints", self->text);
	EXPECT_TRUE(has(self->text, " state=blocked"));
	e->fmt->set_device(e, 0, DEV_PASS_THROUGH, NULL);
	read_debugfs("endpoints", self->text);
	EXPECT_TRUE(has(self->text, " state=bypass"));
}

TEST_F(seen, trace)
{
	struct env *e = &self->e;
	unsigned long long iova = IOVA + SIZE_4K, data = self->data;

	mkdir(TRACING, 0700);
	ASSERT_TRUE(write_text(TRACING "/events/vtd_shadow/enable", "1"));
	dom_set(e, 0, &self->d);
	dom_map(e, &self->d, iova, data, 1, PERM_R);
	dom_map(e, &self->d, iova + SIZE_4K, GPA_NOTHING, 1, PERM_R);
	dom_unmap(e, &self->d, iova, 1);
	env_flush(e);
	e->fmt->set_device(e, 0, DEV_BLOCKED, NULL);
	EXPECT_TRUE(write_text(TRACING "/events/vtd_shadow/enable", "0"));
	read_text(TRACING "/trace", self->text);
	rmdir(TRACING);

	EXPECT_TRUE(has(self->text, "vtds_link: link root=%#llx iova=",
			(unsigned long long)self->d.top_gpa));
	EXPECT_TRUE(has(self->text, "vtds_link: unlink root="));
	EXPECT_TRUE(has(self->text, "vtds_track: "));
	EXPECT_TRUE(has(self->text, "vtds_write: gpa="));
	EXPECT_TRUE(has(self->text, " iova=%#llx gpa=%#llx level=1 rw", IOVA, data));
	EXPECT_TRUE(has(self->text, " iova=%#llx gpa=%#llx level=1 r-", iova, data));
	EXPECT_TRUE(has(self->text, "vtds_unmap: "));
	EXPECT_TRUE(has(self->text, "vtds_flush: "));
	EXPECT_TRUE(has(self->text, "vtds_reject: "));
}

/* The first device whose doorbells were taken away, or none of ours. */
static u32 first_gated(const char *trace)
{
	const char *line = strstr(trace, "vtds_gate: rid=");
	u32 rid = UINT_MAX;

	if (line)
		sscanf(line, "vtds_gate: rid=%x", &rid);
	return rid;
}

/* A table that is linked is of use to devices of one domain: theirs are first. */
TEST_F(seen, order_of_doorbells)
{
	struct env *e = &self->e;
	struct dom d[2] = { self->d, dom_alloc(e, 8) };
	u32 i;

	if (e->nr_devs < 2)
		SKIP(return, "needs two devices");
	for (i = 0; i < 2; i++)
		dom_set(e, i, &d[i]);
	for (i = 0; i < 2; i++) {
		mkdir(TRACING, 0700);
		EXPECT_TRUE(write_text(TRACING "/events/vtd_shadow/vtds_gate/enable", "1"));
		dom_map(e, &d[i], IOVA + SIZE_1G, self->data, 1, PERM_RW);
		read_text(TRACING "/trace", self->text);
		EXPECT_TRUE(write_text(TRACING "/events/vtd_shadow/vtds_gate/enable", "0"));
		rmdir(TRACING);
		EXPECT_EQ(e->rid[i], first_gated(self->text));
		EXPECT_TRUE(has(self->text, "vtds_gate: rid=%#x\n", e->rid[!i]));
	}
}

TEST_HARNESS_MAIN
