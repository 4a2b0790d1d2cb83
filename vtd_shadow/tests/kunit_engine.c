// SPDX-License-Identifier: GPL-2.0
/*
 * The engine, one rule after the other. The mock fails a test by itself when the
 * engine breaks a rule of its surroundings; see mock.h.
 */
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "formats.h"
#include "mock.h"
#include "oracle.h"

/* Guest pages: a table for each level, and some more */
#define TOP	1
#define MID	2
#define LEAF	3
#define LEAF2	4
#define MID2	5
#define DATA	100

#define MIB2	512		/* pages */
#define GIB1	(512 * 512)

struct env {
	struct mock *mock;
	const struct test_format *format;
	struct mock_host *host;
	struct vtds_domain *domain;
};

static u64 leaf(struct env *env, unsigned int level, u64 gfn, u8 perm)
{
	return env->format->leaf(level, gfn << PAGE_SHIFT, perm);
}

/* The entry of a table of @level that refers to a table of the next one. */
static u64 table(struct env *env, unsigned int level, u64 gfn)
{
	return env->format->table(level, level - 1, gfn << PAGE_SHIFT, VTDS_RW);
}

static void set(struct env *env, u64 gfn, unsigned int index, u64 raw)
{
	mock_set(env->mock, gfn, index, raw);
}

static struct vtds_counters *count(struct env *env)
{
	return &env->mock->engine.counters;
}

static struct vtds_domain *domain_alloc(struct env *env, struct mock_host *host,
					u64 root_gfn, u8 levels, u8 perm)
{
	struct vtds_domain *domain;

	down_write(&env->mock->engine.lock);
	domain = vtds_domain_alloc(&env->mock->engine, &host->base, root_gfn, levels,
				   perm, 0x123);
	up_write(&env->mock->engine.lock);
	return domain;
}

static void domain_free(struct env *env, struct vtds_domain *domain)
{
	down_write(&env->mock->engine.lock);
	vtds_domain_free(domain);
	up_write(&env->mock->engine.lock);
}

static struct vtds_lookup lookup(struct env *env, u64 iova)
{
	struct vtds_lookup found;

	down_write(&env->mock->engine.lock);
	vtds_domain_lookup(env->domain, iova, &found);
	up_write(&env->mock->engine.lock);
	return found;
}

/* IOVA page @page reaches page @gfn, in the host and for lookups. */
static void expect_at(struct env *env, u64 page, u64 gfn, u8 perm, int line)
{
	struct kunit *test = env->mock->test;
	struct mock_range *range = mock_lookup(env->host, page);
	struct vtds_lookup found = lookup(env, page << PAGE_SHIFT | 0x123);

	if (!range) {
		KUNIT_FAIL(test, "line %d: IOVA page %llx is not mapped", line, page);
		return;
	}
	KUNIT_EXPECT_EQ_MSG(test, range->gfn + page - range->page, gfn, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, range->perm, perm, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, found.gpa, gfn << PAGE_SHIFT | 0x123, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, found.perm, perm, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(test, found.hpa & ~PAGE_MASK, 0x123, "line %d", line);
}

#define expect(env, page, gfn, perm)	expect_at(env, page, gfn, perm, __LINE__)

static void expect_none_at(struct env *env, u64 page, int line)
{
	struct vtds_lookup found = lookup(env, page << PAGE_SHIFT);

	KUNIT_EXPECT_NULL_MSG(env->mock->test, mock_lookup(env->host, page), "line %d", line);
	KUNIT_EXPECT_EQ_MSG(env->mock->test, found.perm, 0, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(env->mock->test, found.hpa, 0, "line %d", line);
}

#define expect_none(env, page)		expect_none_at(env, page, __LINE__)

/* IOVA page @page still reaches @gfn; the guest removed it. */
static void expect_queued_at(struct env *env, u64 page, u64 gfn, int line)
{
	struct vtds_lookup found = lookup(env, page << PAGE_SHIFT);

	KUNIT_EXPECT_NOT_NULL_MSG(env->mock->test, mock_lookup(env->host, page), "line %d", line);
	KUNIT_EXPECT_TRUE_MSG(env->mock->test, found.queued, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(env->mock->test, found.gpa, gfn << PAGE_SHIFT, "line %d", line);
}

#define expect_queued(env, page, gfn)	expect_queued_at(env, page, gfn, __LINE__)

/* Since the last call there was one reject, and it says this. */
static void expect_reject_at(struct env *env, enum vtds_reason reason, u64 page,
			     u64 gpa, u8 level, int line)
{
	struct mock *mock = env->mock;

	KUNIT_EXPECT_EQ_MSG(mock->test, mock->nreject, 1, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(mock->test, mock->last_reject.reason, reason, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(mock->test, mock->last_reject.iova, page << PAGE_SHIFT, "line %d",
			    line);
	KUNIT_EXPECT_EQ_MSG(mock->test, mock->last_reject.gpa, gpa, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(mock->test, mock->last_reject.level, level, "line %d", line);
	KUNIT_EXPECT_EQ_MSG(mock->test, mock->last_reject.requester_id, 0x123, "line %d", line);
	mock->nreject = 0;
}

#define expect_reject(env, reason, page, gpa, level) \
	expect_reject_at(env, reason, page, gpa, level, __LINE__)

/* A domain of 3 levels, with TOP -> MID -> LEAF at IOVA 0. */
static struct env *env_alloc(struct kunit *test, bool linked)
{
	struct env *env = kzalloc(sizeof(*env), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, env);
	env->format = *(const struct test_format *const *)test->param_value;
	env->mock = mock_alloc(test);
	env->format->setup(&env->mock->engine.fmt);
	if (linked) {
		set(env, TOP, 0, table(env, 3, MID));
		set(env, MID, 0, table(env, 2, LEAF));
	}
	env->host = mock_host_alloc(env->mock);
	env->domain = domain_alloc(env, env->host, TOP, 3, VTDS_RW);
	KUNIT_ASSERT_FALSE(test, IS_ERR(env->domain));
	return env;
}

static void env_free(struct env *env)
{
	vtds_engine_flush(&env->mock->engine);
	mock_check_idle(env->mock);
	domain_free(env, env->domain);
	mock_host_free(env->host);
	mock_free(env->mock);
	kfree(env);
}

static void flush(struct env *env)
{
	vtds_engine_flush(&env->mock->engine);
}

static void retry(struct env *env)
{
	down_write(&env->mock->engine.lock);
	vtds_engine_retry(&env->mock->engine);
	up_write(&env->mock->engine.lock);
}

/* ---- map and unmap ---- */

static void map_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	u8 perm;

	for (perm = VTDS_R; perm <= VTDS_RW; perm++) {
		set(env, LEAF, perm, leaf(env, 1, DATA + perm, perm));
		expect(env, perm, DATA + perm, perm);
	}
	set(env, LEAF, 511, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 511, DATA, VTDS_RW);
	expect_none(env, 0);
	KUNIT_EXPECT_EQ(test, lookup(env, 511 << PAGE_SHIFT).leaf_bytes, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->maps), 4);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 3);
	env_free(env);
}

/* Removal waits for the flush; the pages stay pinned until then. */
static void unmap_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	set(env, LEAF, 7, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 8, leaf(env, 1, DATA, VTDS_R));
	set(env, LEAF, 7, 0);
	set(env, LEAF, 8, 0);
	expect_queued(env, 7, DATA);
	expect_queued(env, 8, DATA);
	KUNIT_EXPECT_EQ(test, env->mock->queued_calls, 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&count(env)->queued), 2);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 0);
	flush(env);
	expect_none(env, 7);
	expect_none(env, 8);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 1);
	KUNIT_EXPECT_EQ(test, env->mock->npins, 0);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->host_flushes), 1);
	/* Nothing queued: nothing to do. And the queue wakes up again */
	flush(env);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 1);
	set(env, LEAF, 7, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 7, 0);
	KUNIT_EXPECT_EQ(test, env->mock->queued_calls, 2);
	env_free(env);
}

/* A new value over a queued one counts at once, the old one over it as well. */
static void remap_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	set(env, LEAF, 7, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 7, 0);
	set(env, LEAF, 7, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 7, DATA, VTDS_RW);
	KUNIT_EXPECT_FALSE(test, lookup(env, 7 << PAGE_SHIFT).queued);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->remaps), 1);
	KUNIT_EXPECT_EQ(test, env->host->maps, 1);
	flush(env);
	expect(env, 7, DATA, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 0);

	set(env, LEAF, 7, 0);
	set(env, LEAF, 7, leaf(env, 1, DATA + 1, VTDS_RW));
	expect(env, 7, DATA + 1, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&count(env)->queued), 0);

	set(env, LEAF, 7, 0);
	set(env, LEAF, 7, leaf(env, 1, DATA + 1, VTDS_R));
	expect(env, 7, DATA + 1, VTDS_R);
	flush(env);
	expect(env, 7, DATA + 1, VTDS_R);
	env_free(env);
}

/* Changes of a mapped entry: page, access, to nothing valid and back. */
static void change_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	static const u8 perms[] = { VTDS_R, VTDS_RW, VTDS_W, VTDS_R, VTDS_W, VTDS_RW, VTDS_R };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(perms); i++) {
		set(env, LEAF, 0, leaf(env, 1, DATA, perms[i]));
		expect(env, 0, DATA, perms[i]);
		set(env, LEAF, 0, leaf(env, 1, DATA + i, perms[i]));
		expect(env, 0, DATA + i, perms[i]);
	}
	KUNIT_EXPECT_EQ(test, env->host->pages, 1);

	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW) | BIT_ULL(45));
	expect_reject(env, VTDS_REASON_RESERVED_BITS, 0,
		      DATA << PAGE_SHIFT | BIT_ULL(45), 1);
	expect_none(env, 0);
	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 0, DATA, VTDS_RW);
	set(env, LEAF, 0, leaf(env, 1, MOCK_RAM, VTDS_RW));
	expect_none(env, 0);
	env_free(env);
}

/* What the format ignores does not touch the host. */
static void ignored_bits_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW) | BIT_ULL(5));
	KUNIT_EXPECT_EQ(test, env->host->maps, 1);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 0);
	set(env, MID, 0, table(env, 2, LEAF) | BIT_ULL(5));
	KUNIT_EXPECT_EQ(test, env->host->maps, 1);
	KUNIT_EXPECT_EQ(test, env->host->syncs, 0);
	expect(env, 0, DATA, VTDS_RW);
	env_free(env);
}

/* Every size and alignment of a store that makes or breaks an entry. */
static void partial_write_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	unsigned int bytes, i;
	__le64 le = cpu_to_le64(leaf(env, 1, DATA, VTDS_RW)), zero = 0;
	u64 pair[2];

	for (bytes = 1; bytes <= 8; bytes *= 2) {
		for (i = 0; i < 8; i += bytes)
			mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 511 + i, (u8 *)&le + i, bytes);
		expect(env, 511, DATA, VTDS_RW);
		for (i = 0; i < 8; i += bytes)
			mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 511 + i, &zero, bytes);
		flush(env);
		expect_none(env, 511);
	}
	/* One store over the end of one entry and the start of the next */
	pair[0] = leaf(env, 1, DATA, VTDS_RW);
	pair[1] = leaf(env, 1, DATA + 1, VTDS_R);
	mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 4, pair, 4);
	mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 4 + 4, (u8 *)pair + 4, 8);
	mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 4 + 12, (u8 *)pair + 12, 4);
	expect(env, 4, DATA, VTDS_RW);
	expect(env, 5, DATA + 1, VTDS_R);
	/* All of both, and a whole page: more than the processor can */
	memset(pair, 0, sizeof(pair));
	mock_write(env->mock, LEAF * PAGE_SIZE + 8 * 4, pair, 16);
	flush(env);
	expect_none(env, 4);
	expect_none(env, 5);
	for (i = 0; i < 512; i++)
		mock_poke(env->mock, LEAF, i, leaf(env, 1, DATA + i, VTDS_RW));
	vtds_engine_write(&env->mock->engine, LEAF * PAGE_SIZE, PAGE_SIZE);
	expect(env, 0, DATA, VTDS_RW);
	expect(env, 511, DATA + 511, VTDS_RW);
	/* A count beyond the page is cut */
	mock_poke(env->mock, LEAF, 511, 0);
	vtds_engine_write(&env->mock->engine, LEAF * PAGE_SIZE + 8 * 511, 64);
	flush(env);
	expect_none(env, 511);
	env_free(env);
}

/* Only what a write touched is looked at: that is what keeps it cheap. */
static void write_range_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	mock_poke(env->mock, LEAF, 9, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 8, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 10, leaf(env, 1, DATA, VTDS_RW));
	expect_none(env, 9);
	vtds_engine_write(&env->mock->engine, LEAF * PAGE_SIZE + 9 * 8 + 7, 1);
	expect(env, 9, DATA, VTDS_RW);
	/* Writes elsewhere are nobody's */
	vtds_engine_write(&env->mock->engine, 60 * PAGE_SIZE, 8);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->writes), 3);
	env_free(env);
}

/* ---- tables ---- */

/* A populated table appears and goes at each level, by each way to do so. */
static void link_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int i;

	for (i = 0; i < 512; i += 73)
		set(env, LEAF, i, leaf(env, 1, DATA + i, VTDS_RW));
	set(env, MID, 511, table(env, 2, LEAF));
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 1);
	set(env, TOP, 1, table(env, 3, MID));
	for (i = 0; i < 512; i += 73)
		expect(env, GIB1 + 511 * MIB2 + i, DATA + i, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->host->pages, 8);
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 3);

	set(env, MID, 511, 0);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_EQ(test, env->mock->npins, 0);
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 2);
	set(env, MID, 510, table(env, 2, LEAF));
	expect(env, GIB1 + 510 * MIB2, DATA, VTDS_RW);
	expect_none(env, GIB1 + 511 * MIB2);
	set(env, TOP, 1, 0);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 1);
	/* One host flush for each unlink, however many pages */
	KUNIT_EXPECT_EQ(test, env->host->syncs, 2);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->links), 4);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->unlinks), 3);
	env_free(env);
}

/* Link, fill, replace, unlink and empty two tables in every order. */
static void order_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int order, k, a, b;

	for (order = 0; order < 16; order++) {
		for (k = 0; k < 2; k++) {
			/* Top down or bottom up */
			a = order >> k & 1;
			set(env, a ? MID : TOP, 0, a ? table(env, 2, LEAF) : table(env, 3, MID));
			b = order >> 2 & 1;
			if (b == k)
				set(env, LEAF, 3, leaf(env, 1, DATA, VTDS_RW));
			set(env, a ? TOP : MID, 0, a ? table(env, 3, MID) : table(env, 2, LEAF));
		}
		expect(env, 3, DATA, VTDS_RW);
		set(env, LEAF2, 3, leaf(env, 1, DATA + 1, VTDS_R));
		set(env, MID, 0, table(env, 2, LEAF2));
		expect(env, 3, DATA + 1, VTDS_R);
		/* LEAF is nobody's now */
		KUNIT_EXPECT_FALSE(test, env->mock->tracked[LEAF]);
		set(env, LEAF, 4, leaf(env, 1, DATA, VTDS_RW));
		expect_none(env, 4);
		if (order & 8)
			set(env, LEAF2, 3, 0);
		set(env, order & 4 ? TOP : MID, 0, 0);
		KUNIT_EXPECT_EQ(test, env->host->pages, 0);
		set(env, order & 4 ? MID : TOP, 0, 0);
		set(env, LEAF, 3, 0);
		set(env, LEAF, 4, 0);
		set(env, LEAF2, 3, 0);
		KUNIT_EXPECT_EQ(test, env->mock->ntracked, 1);
	}
	env_free(env);
}

/*
 * A table that the host could map with one page of 2 MiB: each entry has to go
 * alone nevertheless.
 */
static void whole_table_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	unsigned int i;

	for (i = 0; i < 512; i++)
		set(env, LEAF2, i, leaf(env, 1, 2 * MIB2 + i, VTDS_RW));
	set(env, MID, 7, table(env, 2, LEAF2));
	KUNIT_EXPECT_EQ(test, env->host->pages, 512);
	/* In few calls: most of the table at once */
	KUNIT_EXPECT_EQ(test, env->host->maps, 2);
	for (i = 0; i < 512; i += 73) {
		set(env, LEAF2, i, 0);
		flush(env);
		expect_none(env, 7 * MIB2 + i);
		expect(env, 7 * MIB2 + i + (i < 511 ? 1 : -1),
		       2 * MIB2 + i + (i < 511 ? 1 : -1), VTDS_RW);
	}
	KUNIT_EXPECT_EQ(test, env->host->pages, 512 - 8);
	env_free(env);
}

/* One page at two places of one level, and in two domains. */
static void shared_table_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct mock_host *host2 = mock_host_alloc(env->mock);
	struct vtds_domain *domain2;

	set(env, MID, 9, table(env, 2, LEAF));
	set(env, TOP, 2, table(env, 3, MID));
	domain2 = domain_alloc(env, host2, MID, 2, VTDS_R);
	KUNIT_ASSERT_FALSE(test, IS_ERR(domain2));
	set(env, LEAF, 5, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 5, DATA, VTDS_RW);
	expect(env, 9 * MIB2 + 5, DATA, VTDS_RW);
	expect(env, 2 * GIB1 + 5, DATA, VTDS_RW);
	expect(env, 2 * GIB1 + 9 * MIB2 + 5, DATA, VTDS_RW);
	KUNIT_EXPECT_EQ(test, host2->pages, 2);
	KUNIT_EXPECT_EQ(test, mock_lookup(host2, 9 * MIB2 + 5)->perm, VTDS_R);
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 3);
	KUNIT_EXPECT_EQ(test, env->mock->npins, 6);

	set(env, MID, 0, 0);
	expect_none(env, 5);
	expect(env, 9 * MIB2 + 5, DATA, VTDS_RW);
	set(env, LEAF, 5, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&count(env)->queued), 3);
	flush(env);
	KUNIT_EXPECT_EQ(test, env->host->pages + host2->pages, 0);
	domain_free(env, domain2);
	mock_host_free(host2);
	env_free(env);
}

/* One page as a table of two levels: each entry means two things. */
static void two_levels_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);

	/* MID refers to itself at 1: there it is a level-1 table too */
	set(env, MID, 0, table(env, 2, LEAF));
	set(env, MID, 1, table(env, 2, MID));
	set(env, TOP, 0, table(env, 3, MID));
	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 0, DATA, VTDS_RW);
	if (!env->format->skips) {
		/* VT-d: what refers to a table is a leaf in level 1 */
		expect(env, MIB2 + 0, LEAF, VTDS_RW);
		expect(env, MIB2 + 1, MID, VTDS_RW);
		set(env, MID, 0, 0);
		expect_none(env, 0);
		expect_queued(env, MIB2, LEAF);
		flush(env);
		expect_none(env, MIB2);
	} else {
		expect_none(env, MIB2);
	}
	/* The link itself goes, while the write is being handled */
	set(env, MID, 1, 0);
	flush(env);
	expect_none(env, MIB2 + 1);
	env_free(env);
}

/* The top table refers to itself, at every entry. */
static void self_reference_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int i;

	for (i = 0; i < 8; i++)
		set(env, TOP, i, env->format->table(3, 2, TOP << PAGE_SHIFT, VTDS_RW));
	if (!env->format->skips) {
		KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 1 + 8 + 64);
		/* Two pages are reserved by the host */
		KUNIT_EXPECT_EQ(test, env->host->pages, 8 * 8 * 8 - 2);
		expect(env, 3 * GIB1 + 5 * MIB2 + 7, TOP, VTDS_RW);
	} else {
		/* AMD: level 2 does not go on to level 2 */
		KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 1 + 8);
	}
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 1);
	for (i = 0; i < 8; i++)
		set(env, TOP, i, 0);
	flush(env);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 1);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	env_free(env);
}

/* Access is what all entries on the way and the domain leave. */
static void permission_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	u8 top, mid, low, perm;

	for (top = 0; top <= VTDS_RW; top++)
		for (mid = 0; mid <= VTDS_RW; mid++)
			for (low = 0; low <= VTDS_RW; low++) {
				set(env, TOP, 0, env->format->table(3, 2, MID << PAGE_SHIFT, top));
				set(env, LEAF, 1, leaf(env, 1, DATA, low));
				set(env, MID, 0, env->format->table(2, 1, LEAF << PAGE_SHIFT, mid));
				flush(env);
				perm = top & mid & low;
				if (perm)
					expect(env, 1, DATA, perm);
				else
					expect_none(env, 1);
			}
	env_free(env);
}

/* ---- superpages ---- */

static void superpage_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct vtds_lookup found;

	set(env, LEAF, 5, leaf(env, 1, DATA, VTDS_RW));
	/* A table gives way to a superpage, and comes back */
	set(env, MID, 0, leaf(env, 2, 1024, VTDS_RW));
	/* not where the host has a reserved range */
	expect(env, 5, 1024 + 5, VTDS_RW);
	expect(env, 511, 1024 + 511, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->host->pages, 512);
	found = lookup(env, 0x5678);
	KUNIT_EXPECT_EQ(test, found.leaf_bytes, 0x200000);
	set(env, MID, 0, table(env, 2, LEAF));
	expect(env, 5, DATA, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->host->pages, 1);

	/* Removed and queued, then a table over it */
	set(env, MID, 7, leaf(env, 2, 1024, VTDS_R));
	expect(env, 7 * MIB2, 1024, VTDS_R);
	set(env, MID, 7, 0);
	expect_queued(env, 7 * MIB2 + 5, 1024 + 5);
	set(env, MID, 7, table(env, 2, LEAF));
	expect(env, 7 * MIB2 + 5, DATA, VTDS_RW);
	expect_none(env, 7 * MIB2);
	set(env, MID, 7, 0);

	/* Neighbours go in one flush, and one of them alone */
	set(env, MID, 8, leaf(env, 2, 1024, VTDS_RW));
	set(env, MID, 9, leaf(env, 2, 1536, VTDS_RW));
	set(env, MID, 8, 0);
	flush(env);
	expect_none(env, 8 * MIB2);
	expect(env, 9 * MIB2, 1536, VTDS_RW);
	set(env, MID, 8, leaf(env, 2, 1024, VTDS_RW));
	set(env, MID, 8, 0);
	set(env, MID, 9, 0);
	flush(env);
	KUNIT_EXPECT_EQ(test, env->host->pages, 1);
	env_free(env);
}

/* Pages that are not RAM, read-only or reserved are holes in a superpage. */
static void hole_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	/* Guest pages 2560 to 3071, of which 3000 and above are not RAM */
	set(env, MID, 4, leaf(env, 2, 2560, VTDS_RW));
	expect_reject(env, VTDS_REASON_NOT_RAM, 4 * MIB2, 3000 << PAGE_SHIFT, 2);
	expect(env, 4 * MIB2 + 439, 2999, VTDS_RW);
	expect_none(env, 4 * MIB2 + 440);
	KUNIT_EXPECT_EQ(test, env->host->pages, 440);
	/* 5000 to 5049 is read-only: a hole for writes, none for reads */
	set(env, MID, 5, leaf(env, 2, 4608, VTDS_RW));
	expect_reject(env, VTDS_REASON_READ_ONLY, 5 * MIB2, 5000 << PAGE_SHIFT, 2);
	KUNIT_EXPECT_EQ(test, env->host->pages, 440 + 512 - 50);
	set(env, MID, 6, leaf(env, 2, 4608, VTDS_R));
	KUNIT_EXPECT_EQ(test, env->mock->nreject, 0);
	expect(env, 6 * MIB2 + 400, 5008, VTDS_R);
	/* IOVA pages 514 and 515 are reserved by the host */
	set(env, MID, 1, leaf(env, 2, 1024, VTDS_RW));
	expect_reject(env, VTDS_REASON_RESERVED_REGION, MIB2, (1024 + 2) << PAGE_SHIFT, 2);
	expect(env, MIB2 + 1, 1025, VTDS_RW);
	expect_none(env, MIB2 + 2);
	expect_none(env, MIB2 + 3);
	expect(env, MIB2 + 4, 1028, VTDS_RW);

	/* Those with holes and those without, in one flush */
	set(env, MID, 4, 0);
	set(env, MID, 5, 0);
	set(env, MID, 6, 0);
	expect_queued(env, 4 * MIB2, 2560);
	flush(env);
	KUNIT_EXPECT_EQ(test, env->host->pages, 510);
	/* Changed at once, and unlinked with its table */
	set(env, MID, 1, leaf(env, 2, 1024, VTDS_R));
	KUNIT_EXPECT_EQ(test, env->host->pages, 510);
	set(env, TOP, 0, 0);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	/* All of it a hole: not mapped at all, and not counted */
	env->mock->nreject = 0;
	set(env, TOP, 3, leaf(env, 3, 7 * GIB1, VTDS_RW));
	expect_reject(env, VTDS_REASON_NOT_RAM, 3 * GIB1, (7ULL * GIB1) << PAGE_SHIFT, 3);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->mappings), 0);
	env_free(env);
}

/* 1 GiB: its parts that are RAM, in the runs that the host has. */
static void gigabyte_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	u64 ram = MOCK_RAM - (MOCK_HOLE_LAST - MOCK_HOLE_GFN + 1);

	set(env, TOP, 3, leaf(env, 3, 0, VTDS_R));
	KUNIT_EXPECT_EQ(test, env->host->pages, ram);
	expect(env, 3 * GIB1 + 8191, 8191, VTDS_R);
	expect_none(env, 3 * GIB1 + 8192);
	KUNIT_EXPECT_EQ(test, lookup(env, 3ULL << 30).leaf_bytes, 1 << 30);
	set(env, TOP, 3, 0);
	flush(env);
	KUNIT_EXPECT_EQ(test, env->mock->npins, 0);
	env_free(env);
}

/* ---- refusals ---- */

static void reject_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	u64 bad = leaf(env, 1, DATA, VTDS_RW) | BIT_ULL(50);
	struct vtds_domain *domain;

	set(env, LEAF, 1, bad);
	expect_reject(env, VTDS_REASON_RESERVED_BITS, 1, DATA << PAGE_SHIFT | BIT_ULL(50), 1);
	/* The same again is no news */
	set(env, LEAF, 1, bad);
	KUNIT_EXPECT_EQ(test, env->mock->nreject, 0);
	set(env, LEAF, 1, leaf(env, 1, MOCK_HOLE_GFN, VTDS_R));
	expect_reject(env, VTDS_REASON_NOT_RAM, 1, MOCK_HOLE_GFN << PAGE_SHIFT, 1);
	set(env, LEAF, 1, leaf(env, 1, MOCK_ROM_GFN, VTDS_W));
	expect_reject(env, VTDS_REASON_READ_ONLY, 1, MOCK_ROM_GFN << PAGE_SHIFT, 1);
	set(env, LEAF, 1, leaf(env, 1, MOCK_ROM_GFN, VTDS_R));
	expect(env, 1, MOCK_ROM_GFN, VTDS_R);
	set(env, MID, 1, table(env, 2, LEAF2));
	set(env, LEAF2, 2, leaf(env, 1, DATA, VTDS_R));
	expect_reject(env, VTDS_REASON_RESERVED_REGION, MIB2 + 2, DATA << PAGE_SHIFT, 1);
	env->host->aperture_last = BIT_ULL(38) - 1;
	set(env, TOP, 256, table(env, 3, MID2));
	set(env, MID2, 1, table(env, 2, LEAF));
	expect_reject(env, VTDS_REASON_APERTURE, 256ULL * GIB1 + MIB2 + 1,
		      MOCK_ROM_GFN << PAGE_SHIFT, 1);
	set(env, TOP, 256, 0);
	set(env, MID, 2, table(env, 2, MOCK_HOLE_GFN));
	expect_reject(env, VTDS_REASON_TABLE_ACCESS, 2 * MIB2, MOCK_HOLE_GFN << PAGE_SHIFT, 2);
	env->mock->fail_track = 1;
	set(env, MID, 2, table(env, 2, 9));
	expect_reject(env, VTDS_REASON_PIN, 2 * MIB2, 9 << PAGE_SHIFT, 2);
	env->mock->fail_track = 0;
	env->mock->fail_pin = 1;
	set(env, LEAF, 1, leaf(env, 1, DATA, VTDS_RW));
	expect_reject(env, VTDS_REASON_PIN, 1, DATA << PAGE_SHIFT, 1);
	set(env, MID, 5, leaf(env, 2, 1024, VTDS_RW));
	expect_reject(env, VTDS_REASON_PIN, 5 * MIB2, 1024 << PAGE_SHIFT, 2);
	env->mock->fail_pin = 0;
	env->mock->fail_map = 1;
	set(env, LEAF, 1, leaf(env, 1, DATA + 1, VTDS_RW));
	expect_reject(env, VTDS_REASON_HOST, 1, (DATA + 1) << PAGE_SHIFT, 1);
	set(env, MID, 6, leaf(env, 2, 1024, VTDS_RW));
	expect_reject(env, VTDS_REASON_HOST, 6 * MIB2, 1024 << PAGE_SHIFT, 2);
	env->mock->fail_map = 0;
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_EQ(test, env->mock->npins, 0);

	/* The top table is not RAM: no domain */
	domain = domain_alloc(env, env->host, MOCK_HOLE_GFN, 3, VTDS_RW);
	KUNIT_EXPECT_EQ(test, PTR_ERR(domain), -ENXIO);
	expect_reject(env, VTDS_REASON_TABLE_ACCESS, 0, MOCK_HOLE_GFN << PAGE_SHIFT, 0);

	/* What was refused is tried again: LEAF 1, MID 2, 5 and 6 */
	retry(env);
	expect(env, 1, DATA + 1, VTDS_RW);
	expect(env, 5 * MIB2, 1024, VTDS_RW);
	expect(env, 6 * MIB2, 1024, VTDS_RW);
	KUNIT_EXPECT_TRUE(test, env->mock->tracked[9]);
	env_free(env);
}

/* A superpage fails after some of it was pinned and mapped: nothing is left. */
static void superpage_undo_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	unsigned int i, failed = 0;

	for (i = 0; i < 50; i++) {
		env->mock->fail_pin = i % 2 ? 300 : 0;
		env->mock->fail_map = i % 2 ? 0 : 3;
		set(env, MID, 4, leaf(env, 2, 1024, VTDS_RW));
		failed += !env->host->pages;
		KUNIT_EXPECT_TRUE(test, env->host->pages == 0 || env->host->pages == 512);
		KUNIT_EXPECT_EQ(test, env->mock->npins, env->host->pages);
		set(env, MID, 4, 0);
		flush(env);
		KUNIT_EXPECT_EQ(test, env->mock->npins, 0);
	}
	KUNIT_EXPECT_GT(test, failed, 5);
	KUNIT_EXPECT_LT(test, failed, 50);

	/* Each page of it counts as refused: a guest could have us do it for ever. */
	env->mock->fail_pin = 0;
	env->mock->fail_map = 0;
	env->mock->nreject = 0;
	env->mock->engine.limits.mappings = 400;
	set(env, MID, 4, leaf(env, 2, 1024, VTDS_RW));
	expect_reject(env, VTDS_REASON_LIMIT, 4 * MIB2, 1024 << PAGE_SHIFT, 2);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_EQ(test, env->mock->engine.refusals, 400 + 1);
	env_free(env);
}

static void limit_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	unsigned int i;

	env->mock->engine.limits.mappings = 3;
	for (i = 0; i < 4; i++)
		set(env, LEAF, i, leaf(env, 1, DATA + i, VTDS_RW));
	expect_reject(env, VTDS_REASON_LIMIT, 3, (DATA + 3) << PAGE_SHIFT, 1);
	expect_none(env, 3);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->mappings), 3);
	env->mock->engine.limits.mappings = 100;

	env->mock->engine.limits.tables = 4;
	set(env, MID, 1, table(env, 2, LEAF2));
	set(env, MID, 2, table(env, 2, LEAF2));
	expect_reject(env, VTDS_REASON_LIMIT, 2 * MIB2, LEAF2 << PAGE_SHIFT, 2);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 4);
	set(env, MID, 1, 0);
	retry(env);
	expect(env, 3, DATA + 3, VTDS_RW);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 4);

	/* What is removed but not flushed does not keep a table from being mapped */
	set(env, MID, 2, 0);
	set(env, LEAF2, 0, leaf(env, 1, DATA, VTDS_RW));
	env->mock->engine.limits.mappings = 4;
	set(env, LEAF, 0, 0);
	expect_queued(env, 0, DATA);
	set(env, MID, 1, table(env, 2, LEAF2));
	expect(env, MIB2, DATA, VTDS_RW);
	expect_none(env, 0);
	KUNIT_EXPECT_EQ(test, env->mock->nreject, 0);
	set(env, MID, 1, 0);
	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));

	/* The queue is flushed when it is full */
	env->mock->engine.limits.queue = 3;
	set(env, LEAF, 0, 0);
	set(env, LEAF, 1, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&count(env)->queued), 2);
	set(env, LEAF, 2, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&count(env)->queued), 0);
	KUNIT_EXPECT_EQ(test, env->host->pages, 1);
	env->mock->engine.limits.queue = 1;
	set(env, LEAF, 3, 0);
	expect_none(env, 3);
	env_free(env);
}

/* A few guest pages that stand for far more tables than there may be. */
static void bomb_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	unsigned int i;

	env->mock->engine.limits.tables = 500;
	env->mock->engine.limits.mappings = 2000;
	for (i = 0; i < 512; i++) {
		mock_poke(env->mock, LEAF, i, leaf(env, 1, DATA, VTDS_RW));
		mock_poke(env->mock, MID, i, table(env, 2, LEAF));
		mock_poke(env->mock, TOP, i, table(env, 3, MID));
	}
	vtds_engine_write(&env->mock->engine, TOP * PAGE_SIZE, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->tables), 500);
	KUNIT_EXPECT_EQ(test, atomic64_read(&count(env)->mappings), 2000);
	KUNIT_EXPECT_GT(test, env->mock->rejects[VTDS_REASON_LIMIT], 0);
	env_free(env);
}

/*
 * So much is refused in one write that the engine gives up: what the same write
 * removed has to go nevertheless. (Four million refusals: not where each takes long.)
 */
static void __maybe_unused patience_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int i;

	set(env, LEAF2, 0, leaf(env, 1, DATA, VTDS_RW));
	set(env, MID2, 0, table(env, 2, LEAF2));
	set(env, TOP, 100, table(env, 3, MID2));
	set(env, TOP, 101, leaf(env, 3, 0, VTDS_R));
	expect(env, 100 * GIB1, DATA, VTDS_RW);
	expect(env, 101 * GIB1, 0, VTDS_R);
	for (i = 0; i < 512; i++) {
		mock_poke(env->mock, LEAF, i, leaf(env, 1, MOCK_HOLE_GFN, VTDS_RW));
		mock_poke(env->mock, MID, i, table(env, 2, LEAF));
	}
	for (i = 0; i < 20; i++)
		mock_poke(env->mock, TOP, i, table(env, 3, MID));
	mock_poke(env->mock, TOP, 100, 0);
	mock_poke(env->mock, TOP, 101, 0);
	vtds_engine_write(&env->mock->engine, TOP * PAGE_SIZE, PAGE_SIZE);
	flush(env);
	expect_none(env, 100 * GIB1);
	expect_none(env, 101 * GIB1);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	env_free(env);
}

/* ---- guest memory that goes away ---- */

static void drop(struct env *env, u64 gfn, u64 last_gfn)
{
	env->mock->gone_gfn = gfn;
	env->mock->gone_last = last_gfn;
	down_write(&env->mock->engine.lock);
	vtds_engine_drop_range(&env->mock->engine, gfn, last_gfn);
	up_write(&env->mock->engine.lock);
}

static void undrop(struct env *env)
{
	env->mock->gone_gfn = 1;
	env->mock->gone_last = 0;
	retry(env);
}

static void drop_range_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);

	set(env, LEAF, 0, leaf(env, 1, 199, VTDS_RW));
	set(env, LEAF, 1, leaf(env, 1, 200, VTDS_RW));
	set(env, LEAF, 2, leaf(env, 1, 209, VTDS_RW));
	set(env, LEAF, 3, leaf(env, 1, 210, VTDS_RW));
	set(env, MID, 4, leaf(env, 2, 0, VTDS_R));
	set(env, MID, 5, leaf(env, 2, 512, VTDS_R));
	drop(env, 200, 209);
	expect(env, 0, 199, VTDS_RW);
	expect_none(env, 1);
	expect_none(env, 2);
	expect(env, 3, 210, VTDS_RW);
	expect_none(env, 4 * MIB2 + 205);
	expect(env, 5 * MIB2, 512, VTDS_R);
	KUNIT_EXPECT_EQ(test, env->mock->pins[0][205] + env->mock->pins[1][205], 0);
	KUNIT_EXPECT_EQ(test, env->mock->pins[1][200] + env->mock->pins[1][209], 0);
	/* The rest of the superpage comes with the next try, all of it later */
	retry(env);
	expect(env, 4 * MIB2 + 199, 199, VTDS_R);
	expect_none(env, 4 * MIB2 + 200);
	undrop(env);
	expect(env, 1, 200, VTDS_RW);
	expect(env, 2, 209, VTDS_RW);
	expect(env, 4 * MIB2 + 200, 200, VTDS_R);
	env_free(env);
}

static void drop_table_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct vtds_domain *found;

	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 1, leaf(env, 1, LEAF, VTDS_RW));
	drop(env, LEAF, LEAF);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_FALSE(test, env->mock->tracked[LEAF]);
	undrop(env);
	expect(env, 0, DATA, VTDS_RW);
	expect(env, 1, LEAF, VTDS_RW);

	/* An entry that is queued while its page goes */
	set(env, LEAF, 0, 0);
	drop(env, DATA, DATA);
	expect_none(env, 0);
	undrop(env);
	expect_none(env, 0);

	down_write(&env->mock->engine.lock);
	found = vtds_domain_find(&env->mock->engine, TOP, 3, VTDS_RW, NULL);
	up_write(&env->mock->engine.lock);
	KUNIT_EXPECT_PTR_EQ(test, found, env->domain);
	/* The top table goes: the domain is empty and not found any more */
	drop(env, 0, 50);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	KUNIT_EXPECT_EQ(test, env->mock->ntracked, 0);
	down_write(&env->mock->engine.lock);
	found = vtds_domain_find(&env->mock->engine, TOP, 3, VTDS_RW, NULL);
	up_write(&env->mock->engine.lock);
	KUNIT_EXPECT_NULL(test, found);
	expect_none(env, 0);
	/* More goes: it has nothing to lose */
	drop(env, 0, 200);
	undrop(env);
	expect_none(env, 0);
	env_free(env);
}

/* ---- domains, watches, lookups ---- */

static void domain_find_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct vtds_engine *engine = &env->mock->engine;
	struct mock_host *host2 = mock_host_alloc(env->mock);
	struct vtds_domain *second = domain_alloc(env, host2, TOP, 3, VTDS_RW);

	KUNIT_ASSERT_FALSE(test, IS_ERR(second));
	down_write(&engine->lock);
	KUNIT_EXPECT_PTR_EQ(test, vtds_domain_find(engine, TOP, 3, VTDS_RW, NULL), env->domain);
	KUNIT_EXPECT_PTR_EQ(test, vtds_domain_find(engine, TOP, 3, VTDS_RW, env->domain), second);
	KUNIT_EXPECT_NULL(test, vtds_domain_find(engine, TOP, 3, VTDS_RW, second));
	KUNIT_EXPECT_NULL(test, vtds_domain_find(engine, TOP, 2, VTDS_RW, NULL));
	KUNIT_EXPECT_NULL(test, vtds_domain_find(engine, TOP, 3, VTDS_R, NULL));
	KUNIT_EXPECT_NULL(test, vtds_domain_find(engine, MID, 3, VTDS_RW, NULL));
	up_write(&engine->lock);
	domain_free(env, second);
	mock_host_free(host2);
	env_free(env);
}

static void watch_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct vtds_engine *engine = &env->mock->engine;
	struct vtds_page *page, *again;

	down_write(&engine->lock);
	page = vtds_page_watch(engine, 20);
	again = vtds_page_watch(engine, 20);
	KUNIT_EXPECT_PTR_EQ(test, page, again);
	KUNIT_EXPECT_EQ(test, PTR_ERR(vtds_page_watch(engine, MOCK_HOLE_GFN)), -ENXIO);
	up_write(&engine->lock);
	set(env, 20, 0, 1);
	KUNIT_EXPECT_EQ(test, env->mock->root_writes, 1);
	/* A watched page that is a paging table as well */
	set(env, MID, 1, table(env, 2, 20));
	set(env, 20, 0, leaf(env, 1, DATA, VTDS_RW));
	expect(env, MIB2, DATA, VTDS_RW);
	KUNIT_EXPECT_EQ(test, env->mock->root_writes, 2);
	down_write(&engine->lock);
	vtds_page_unwatch(engine, page);
	vtds_page_unwatch(engine, again);
	vtds_page_unwatch(engine, NULL);
	up_write(&engine->lock);
	set(env, 20, 1, leaf(env, 1, DATA, VTDS_RW));
	KUNIT_EXPECT_EQ(test, env->mock->root_writes, 2);
	expect(env, MIB2 + 1, DATA, VTDS_RW);

	/* It goes away: nobody gets it any more, while its owner still has it */
	down_write(&engine->lock);
	page = vtds_page_watch(engine, 21);
	KUNIT_ASSERT_FALSE(test, IS_ERR(page));
	env->mock->gone_gfn = 21;
	env->mock->gone_last = 21;
	vtds_engine_drop_range(engine, 21, 21);
	KUNIT_EXPECT_EQ(test, PTR_ERR(vtds_page_get(engine, 21, NULL)), -ENXIO);
	vtds_page_unwatch(engine, page);
	up_write(&engine->lock);
	undrop(env);
	env_free(env);
}

/* Nobody may start DMA while a link is followed; leaves need no such care. */
static void gate_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	struct mock *mock = env->mock;

	mock->wants_gate = true;
	set(env, MID, 0, table(env, 2, LEAF));
	set(env, TOP, 0, table(env, 3, MID));
	KUNIT_EXPECT_EQ(test, mock->ntracked, 3);
	KUNIT_EXPECT_EQ(test, atomic_read(&mock->gatings), 1);
	KUNIT_EXPECT_PTR_EQ(test, mock->gate_host, (const void *)&env->host->base);
	set(env, LEAF, 5, leaf(env, 1, DATA, VTDS_RW));
	expect(env, 5, DATA, VTDS_RW);
	set(env, MID, 1, leaf(env, 2, 512, VTDS_RW));
	expect(env, MIB2, 512, VTDS_RW);
	set(env, TOP, 0, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&mock->gatings), 1);
	flush(env);
	KUNIT_EXPECT_EQ(test, env->host->pages, 0);
	env_free(env);
}

static void lookup_test(struct kunit *test)
{
	struct env *env = env_alloc(test, true);
	struct vtds_lookup found;

	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	/* Above what three levels resolve, though the index is the same */
	found = lookup(env, BIT_ULL(39));
	KUNIT_EXPECT_EQ(test, found.perm, 0);
	found = lookup(env, U64_MAX);
	KUNIT_EXPECT_EQ(test, found.perm, 0);
	found = lookup(env, BIT_ULL(39) - 1);
	KUNIT_EXPECT_EQ(test, found.perm, 0);
	env_free(env);
}

/* Trees of every height that the format has, mapped at both ends. */
static void height_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int l, level, levels;

	for (l = 0; env->format->levels[l]; l++) {
		struct mock_host *host = mock_host_alloc(env->mock);
		u64 last_index, page = 0;
		struct vtds_domain *domain;

		levels = env->format->levels[l];
		for (level = levels; level; level--) {
			/* 64 bits of IOVA end within the table of level 6 */
			last_index = level == 6 ? 127 : 511;
			page |= last_index << (9 * (level - 1));
			set(env, 10 + level, last_index, level > 1 ?
			    table(env, level, 10 + level - 1) : leaf(env, 1, DATA, VTDS_RW));
			set(env, 10 + level, 0, level > 1 ?
			    table(env, level, 10 + level - 1) : leaf(env, 1, DATA + 1, VTDS_RW));
		}
		domain = domain_alloc(env, host, 10 + levels, levels, VTDS_RW);
		KUNIT_ASSERT_FALSE(test, IS_ERR(domain));
		KUNIT_EXPECT_EQ(test, host->pages, 1 << levels);
		KUNIT_EXPECT_NOT_NULL(test, mock_lookup(host, 0));
		KUNIT_EXPECT_NOT_NULL(test, mock_lookup(host, page));
		domain_free(env, domain);
		mock_host_free(host);
	}
	env_free(env);
}

/* AMD: levels that are left out, and leaves of sizes between the levels. */
static void skip_test(struct kunit *test)
{
	struct env *env = env_alloc(test, false);
	unsigned int i;

	if (!env->format->skips) {
		env_free(env);
		return;
	}
	set(env, TOP, 1, env->format->table(3, 1, LEAF << PAGE_SHIFT, VTDS_RW));
	set(env, LEAF, 0, leaf(env, 1, DATA, VTDS_RW));
	set(env, LEAF, 511, leaf(env, 1, DATA, VTDS_RW));
	expect(env, GIB1, DATA, VTDS_RW);
	expect(env, GIB1 + 511, DATA, VTDS_RW);
	expect_none(env, GIB1 + 512);
	KUNIT_EXPECT_EQ(test, env->host->pages, 2);

	/* 16 KiB at entries 8 to 11; one of them is missing, one comes last */
	for (i = 8; i < 12; i++)
		if (i != 9)
			set(env, LEAF, i, env->format->sized(14, 128 << PAGE_SHIFT, VTDS_RW));
	expect(env, GIB1 + 8, 128, VTDS_RW);
	expect_none(env, GIB1 + 9);
	expect(env, GIB1 + 11, 131, VTDS_RW);
	set(env, LEAF, 8, 0);
	flush(env);
	expect_none(env, GIB1 + 8);
	expect(env, GIB1 + 11, 131, VTDS_RW);
	env_free(env);
}

/* ---- many processors ---- */

#define WRITERS		4
#define WRITER_STEPS	(IS_ENABLED(CONFIG_KASAN) ? 1500 : 30000)

struct writer {
	struct env *env;
	unsigned int number;
	struct completion done;
};

/*
 * Writes leaves of a table of its own and of tables that others write as well,
 * links and unlinks these, and flushes.
 */
static int writer(void *arg)
{
	struct writer *w = arg;
	struct env *env = w->env;
	u64 rng = w->number + 1, own = 20 + w->number;
	unsigned int i;

	for (i = 0; i < WRITER_STEPS; i++) {
		u64 r = mock_random(&rng);

		if (!(r % 64))
			set(env, MID, 16 + w->number, r & 64 ? table(env, 2, 30 + r % 4) : 0);
		else if (!(r % 61))
			vtds_engine_flush(&env->mock->engine);
		else if (!(r % 19))
			/* What others write is looked at by this one, too */
			vtds_engine_write(&env->mock->engine, (30 + (r >> 8) % 4) * PAGE_SIZE,
					  PAGE_SIZE);
		else if (!(r % 17))
			set(env, 30 + (r >> 8) % 4, (r >> 16) % 8 * 4 + w->number,
			    r & 256 ? leaf(env, 1, DATA + (r >> 20) % 8, VTDS_RW) : 0);
		else
			set(env, own, (r >> 8) % 16,
			    r & 128 ? leaf(env, 1, DATA + (r >> 20) % 8, 1 + (r >> 30) % 3) : 0);
		cond_resched();
	}
	complete(&w->done);
	return 0;
}

static void concurrency_test(struct kunit *test)
{
	struct writer *writers = kcalloc(WRITERS, sizeof(*writers), GFP_KERNEL);
	struct env *env = env_alloc(test, true);
	struct mock_range *range;
	unsigned long page;
	u64 pages = 0;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, writers);
	env->mock->engine.limits.queue = 40;
	env->mock->yields = true;
	for (i = 0; i < WRITERS; i++)
		set(env, MID, 8 + i, table(env, 2, 20 + i));
	for (i = 0; i < WRITERS; i++) {
		writers[i].env = env;
		writers[i].number = i;
		init_completion(&writers[i].done);
		kthread_run(writer, &writers[i], "vtds_test/%u", i);
	}
	for (i = 0; i < WRITERS; i++)
		wait_for_completion(&writers[i].done);

	/* Quiet: now the oracle can tell */
	flush(env);
	for (page = 0; page < 32 * MIB2; page++) {
		unsigned int perm;
		struct oracle_page want = oracle_walk(env->mock, env->host, env->format->decode,
						      TOP, 3, true, true, page);

		range = mock_lookup(env->host, page);
		pages += want.mapped;
		perm = (want.read ? VTDS_R : 0) + (want.write ? VTDS_W : 0);
		if (want.mapped != !!range ||
		    (range && (range->gfn != want.gfn || range->perm != perm)))
			mock_fail(env->mock, "IOVA page %lx is wrong", page);
	}
	KUNIT_EXPECT_EQ(test, pages, env->host->pages);
	KUNIT_EXPECT_GT(test, pages, 10);
	env_free(env);
	kfree(writers);
}

static const void *format_next(const void *prev, char *desc)
{
	const struct test_format *const *next = prev ?
		(const struct test_format *const *)prev + 1 : test_formats;

	if (!*next)
		return NULL;
	strscpy(desc, (*next)->name, KUNIT_PARAM_DESC_SIZE);
	return next;
}

static int suite_init(struct kunit_suite *suite)
{
	return vtds_node_cache_init();
}

static void suite_exit(struct kunit_suite *suite)
{
	vtds_node_cache_fini();
}

static struct kunit_case engine_cases[] = {
	KUNIT_CASE_PARAM(map_test, format_next),
	KUNIT_CASE_PARAM(unmap_test, format_next),
	KUNIT_CASE_PARAM(remap_test, format_next),
	KUNIT_CASE_PARAM(change_test, format_next),
	KUNIT_CASE_PARAM(ignored_bits_test, format_next),
	KUNIT_CASE_PARAM(partial_write_test, format_next),
	KUNIT_CASE_PARAM(write_range_test, format_next),
	KUNIT_CASE_PARAM(link_test, format_next),
	KUNIT_CASE_PARAM(order_test, format_next),
	KUNIT_CASE_PARAM(whole_table_test, format_next),
	KUNIT_CASE_PARAM(shared_table_test, format_next),
	KUNIT_CASE_PARAM(two_levels_test, format_next),
	KUNIT_CASE_PARAM(self_reference_test, format_next),
	KUNIT_CASE_PARAM(permission_test, format_next),
	KUNIT_CASE_PARAM(superpage_test, format_next),
	KUNIT_CASE_PARAM(hole_test, format_next),
	KUNIT_CASE_PARAM(gigabyte_test, format_next),
	KUNIT_CASE_PARAM(reject_test, format_next),
	KUNIT_CASE_PARAM(superpage_undo_test, format_next),
	KUNIT_CASE_PARAM(limit_test, format_next),
	KUNIT_CASE_PARAM(bomb_test, format_next),
#ifndef CONFIG_KASAN
	KUNIT_CASE_PARAM(patience_test, format_next),
#endif
	KUNIT_CASE_PARAM(drop_range_test, format_next),
	KUNIT_CASE_PARAM(drop_table_test, format_next),
	KUNIT_CASE_PARAM(domain_find_test, format_next),
	KUNIT_CASE_PARAM(watch_test, format_next),
	KUNIT_CASE_PARAM(gate_test, format_next),
	KUNIT_CASE_PARAM(lookup_test, format_next),
	KUNIT_CASE_PARAM(height_test, format_next),
	KUNIT_CASE_PARAM(skip_test, format_next),
	KUNIT_CASE_PARAM_ATTR(concurrency_test, format_next, { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite engine_suite = {
	.name = "vtds_engine",
	.suite_init = suite_init,
	.suite_exit = suite_exit,
	.test_cases = engine_cases,
};

kunit_test_suite(engine_suite);
