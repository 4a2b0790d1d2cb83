// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that writes random things to its tables, compared with the oracle.
 *
 * A failure says which seed, case and step it was; the same module parameters
 * replay it:
 *	modprobe vtd_shadow_test seed=S writes=N
 */
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>

#include "formats.h"
#include "mock.h"
#include "oracle.h"

static unsigned long long seed = 1;
module_param(seed, ullong, 0444);
MODULE_PARM_DESC(seed, "of the random tests");

/* In all cases of one format together */
static unsigned int writes = IS_ENABLED(CONFIG_KASAN) ? 2400 : 1000000;
module_param(writes, uint, 0444);
MODULE_PARM_DESC(writes, "guest writes in the random tests of each format");

#define NTABLES		10	/* guest pages that the guest uses as tables */
#define NDOMAINS	3
#define PAGE_NUMBER	MOCK_RAM

/**
 * struct variant - what a random test does beside writes
 * @name: its name
 * @faults: one in so many calls of the mock fails
 * @tight: limits are low and the queue short
 * @memory: guest memory comes and goes
 */
struct variant {
	const char *name;
	unsigned int faults;
	bool tight;
	bool memory;
};

static const struct variant variants[] = {
	{ .name = "plain" },
	{ .name = "memory", .memory = true },
	{ .name = "tight", .tight = true },
	{ .name = "faults", .faults = 20, .memory = true },
};

struct random_case {
	const struct test_format *format;
	const struct variant *variant;
	unsigned int levels;
	unsigned int cases;	/* of this format */
};

static struct random_case cases[64];

struct random_domain {
	struct vtds_domain *domain;
	struct mock_host *host;
	u64 root_gfn;
	u8 levels, perm;
};

/**
 * struct guest - the random guest
 * @mock: its surroundings
 * @c: the case
 * @rng: random state of what it does
 * @step: writes done
 * @indices: entries that it uses in each table
 * @nindices: how many
 * @domains: endpoints' domains, those with @domain set
 * @exact: everything that the oracle says has to be mapped
 */
struct guest {
	struct mock *mock;
	const struct random_case *c;
	u64 rng;
	unsigned int step;
	const u16 *indices;
	unsigned int nindices;
	struct random_domain domains[NDOMAINS];
	bool exact;
};

static u64 rnd(struct guest *g, u64 below)
{
	return mock_random(&g->rng) % below;
}

static u16 random_index(struct guest *g)
{
	return g->indices[rnd(g, g->nindices)];
}

/* The level at which the guest mostly uses one of its tables. */
static unsigned int table_level(struct guest *g, u64 gfn)
{
	return 1 + gfn % g->c->levels;
}

/* ---- comparison ---- */

static void complain(struct guest *g, const struct random_domain *d, u64 page,
		     const char *what)
{
	mock_fail(g->mock, "%s: %llx root %llu levels %u perm %u; %s %s seed=%llu step %u/%u (%u)",
		  what, page << PAGE_SHIFT, d->root_gfn, d->levels, d->perm,
		  g->c->format->name, g->c->variant->name, seed, g->step, writes,
		  g->mock->rejects[VTDS_REASON_LIMIT]);
}

static struct oracle_page ask(struct guest *g, const struct random_domain *d, u64 page)
{
	return oracle_walk(g->mock, d->host, g->c->format->decode, d->root_gfn, d->levels,
			   d->perm & VTDS_R, d->perm & VTDS_W, page);
}

static bool agrees(const struct oracle_page *want, const struct mock_range *have, u64 page)
{
	return want->mapped && have->gfn + page - have->page == want->gfn &&
	       !!(have->perm & VTDS_R) == want->read && !!(have->perm & VTDS_W) == want->write;
}

/* What must be there: for a page of the window. What must not, may be queued. */
static void compare_page(struct guest *g, struct random_domain *d, u64 page)
{
	struct mock_range *have = mock_lookup(d->host, page);
	struct oracle_page want = ask(g, d, page);
	struct vtds_lookup found;

	if (have && agrees(&want, have, page))
		return;
	if (!have && !want.mapped)
		return;
	if (want.mapped) {
		if (have || g->exact)
			complain(g, d, page, have ? "maps another page" : "does not map");
		return;
	}
	vtds_domain_lookup(d->domain, page << PAGE_SHIFT, &found);
	if (!found.queued)
		complain(g, d, page, "maps what is not in the guest's tables");
}

/* Call @fn for every page whose indices are among those that the guest uses. */
static void window(struct guest *g, struct random_domain *d, unsigned int level, u64 page)
{
	unsigned int i;

	for (i = 0; i < g->nindices; i++) {
		u64 next = page << 9 | g->indices[i];

		/* 64 bits of IOVA */
		if (next >> 52)
			continue;
		if (level > 1)
			window(g, d, level - 1, next);
		else
			compare_page(g, d, next);
	}
}

static void compare_window(struct guest *g)
{
	unsigned int i;

	down_write(&g->mock->engine.lock);
	for (i = 0; i < NDOMAINS; i++)
		if (g->domains[i].domain)
			window(g, &g->domains[i], g->domains[i].levels, 0);
	up_write(&g->mock->engine.lock);
}

/* What must not be there, with nothing queued: for every page that is mapped. */
static void compare_mapped(struct guest *g, struct random_domain *d)
{
	struct mock_range *range;
	unsigned long index = 0;
	u64 pages = 0;

	mt_for_each(&d->host->ranges, range, index, ULONG_MAX) {
		u64 page, first = range->page;
		struct oracle_page want = ask(g, d, first);

		if (range->page < want.first_page || range->last_page > want.last_page)
			complain(g, d, first, "maps several leaves at once");
		for (page = range->page; page <= range->last_page; page++) {
			want = ask(g, d, page);
			if (!agrees(&want, range, page))
				complain(g, d, page, "maps what the guest removed");
		}
		pages += range->last_page - range->page + 1;
		cond_resched();
	}
	if (pages != d->host->pages || !list_empty(&d->host->pending))
		complain(g, d, 0, "has something that was not synced");
}

static void check_counters(struct guest *g)
{
	struct vtds_counters *c = &g->mock->engine.counters;

	if (atomic_read(&c->queued))
		mock_fail(g->mock, "still queued after a flush: %d", atomic_read(&c->queued));
	if (atomic64_read(&c->tracked_pages) != g->mock->ntracked)
		mock_fail(g->mock, "tracked pages: %u, counted: %lld", g->mock->ntracked,
			  atomic64_read(&c->tracked_pages));
	if (atomic64_read(&c->tables) > g->mock->engine.limits.tables ||
	    atomic64_read(&c->mappings) > g->mock->engine.limits.mappings)
		mock_fail(g->mock, "limits: %lld tables, %lld mappings",
			  atomic64_read(&c->tables), atomic64_read(&c->mappings));
}

/* The guest invalidates: now nothing may be left of what it removed. */
static void flush_and_compare(struct guest *g)
{
	unsigned int i;

	vtds_engine_flush(&g->mock->engine);
	for (i = 0; i < NDOMAINS; i++)
		if (g->domains[i].domain)
			compare_mapped(g, &g->domains[i]);
	check_counters(g);
}

/* ---- endpoints ---- */

static void domain_free(struct guest *g, struct random_domain *d)
{
	down_write(&g->mock->engine.lock);
	vtds_domain_free(d->domain);
	up_write(&g->mock->engine.lock);
	mock_host_free(d->host);
	d->domain = NULL;
}

static void domain_alloc(struct guest *g, struct random_domain *d)
{
	const u8 *heights = g->c->format->levels;
	struct vtds_domain *domain;
	unsigned int n = 0;

	d->levels = g->c->levels;
	d->root_gfn = rnd(g, 4) ? d->levels - 1 : rnd(g, NTABLES);
	/* Now and then one of another height looks at the same tables */
	while (heights[n])
		n++;
	if (!rnd(g, 8))
		d->levels = min_t(u8, heights[rnd(g, n)], d->levels);
	d->perm = rnd(g, 4) ? VTDS_RW : 1 + rnd(g, 2);
	d->host = mock_host_alloc(g->mock);
	if (rnd(g, 2))
		d->host->aperture_last = BIT_ULL(min(12 + 9 * d->levels - 1, 63)) - 1;

	down_write(&g->mock->engine.lock);
	domain = vtds_domain_alloc(&g->mock->engine, &d->host->base, d->root_gfn,
				   d->levels, d->perm, 0x100);
	up_write(&g->mock->engine.lock);
	if (!IS_ERR(domain)) {
		d->domain = domain;
		return;
	}
	if (g->exact && mock_is_ram(g->mock, d->root_gfn))
		complain(g, d, 0, "cannot make a domain");
	mock_host_free(d->host);
}

static void move_endpoint(struct guest *g)
{
	struct random_domain *d = &g->domains[rnd(g, NDOMAINS)];

	if (d->domain)
		domain_free(g, d);
	else
		domain_alloc(g, d);
}

/* ---- guest memory comes and goes ---- */

static void memory_back(struct guest *g)
{
	g->mock->gone_gfn = 1;
	g->mock->gone_last = 0;
	down_write(&g->mock->engine.lock);
	vtds_engine_retry(&g->mock->engine);
	up_write(&g->mock->engine.lock);
}

static void memory_gone(struct guest *g)
{
	struct vtds_engine *engine = &g->mock->engine;
	unsigned int i;
	u64 gfn = rnd(g, 2) ? rnd(g, 2 * NTABLES) : rnd(g, MOCK_RAM);

	memory_back(g);
	down_write(&engine->lock);
	g->mock->gone_gfn = gfn;
	g->mock->gone_last = gfn + rnd(g, rnd(g, 2) ? 4 : 1000);
	vtds_engine_drop_range(engine, gfn, g->mock->gone_last);
	for (i = 0; i < NDOMAINS; i++) {
		struct random_domain *d = &g->domains[i];

		if (!d->domain || d->domain->root)
			continue;
		vtds_domain_free(d->domain);
		mock_host_free(d->host);
		d->domain = NULL;
	}
	for (i = 0; i < NDOMAINS; i++)
		if (g->domains[i].domain)
			compare_mapped(g, &g->domains[i]);
	/* The rest of superpages that lost a part comes back with this. */
	vtds_engine_retry(engine);
	up_write(&engine->lock);
}

/* ---- what the guest writes ---- */

static u64 random_perm(struct guest *g)
{
	return rnd(g, 3) ? VTDS_RW : 1 + rnd(g, 2);
}

static u64 random_leaf(struct guest *g, unsigned int level)
{
	const struct test_format *f = g->c->format;
	u64 gfn;

	if (level > 3 || (level == 3 && rnd(g, 40)))
		level = 1 + !rnd(g, 3);
	if (level == 1)
		gfn = rnd(g, 3) ? rnd(g, 32) : rnd(g, MOCK_RAM + 100);
	else
		gfn = (level == 2 ? rnd(g, 18) : rnd(g, 2) * 512) * 512;
	if (f->sized && !rnd(g, 4))
		return f->sized(level == 2 ? 22 : 13 + rnd(g, 8), gfn << PAGE_SHIFT,
				random_perm(g));
	return f->leaf(level, gfn << PAGE_SHIFT, random_perm(g));
}

/* A guest page that is mostly used as a table of @level; now and then any. */
static u64 random_table_gfn(struct guest *g, unsigned int level)
{
	u64 gfn = rnd(g, NTABLES);

	if (!rnd(g, 16))
		return rnd(g, 2) ? gfn : rnd(g, MOCK_RAM + 100);
	while (table_level(g, gfn) != level)
		gfn = (gfn + 1) % NTABLES;
	return gfn;
}

static u64 random_table(struct guest *g, unsigned int level)
{
	unsigned int next = level > 1 ? level - 1 : 1;
	u64 gfn;

	if (g->c->format->skips && level > 2 && !rnd(g, 4))
		next = 1 + rnd(g, level - 1);
	gfn = random_table_gfn(g, next);
	return g->c->format->table(level, next, gfn << PAGE_SHIFT, random_perm(g));
}

/* A value for an entry of table @gfn, which is used mostly at one level. */
static u64 random_entry(struct guest *g, u64 gfn, u64 old)
{
	unsigned int level = table_level(g, gfn);

	if (!rnd(g, 16))
		level = 1 + rnd(g, g->c->levels);
	switch (rnd(g, 16)) {
	case 0 ... 3:
		return 0;
	case 4:
		return old ^ BIT_ULL(rnd(g, 64));
	case 5:
		return mock_random(&g->rng) << 16 ^ mock_random(&g->rng);
	case 6:
		/* The other access, the same page */
		return old ^ 3 ^ (g->c->format->skips ? 3ULL << 61 : 0);
	case 7 ... 9:
		return random_leaf(g, level);
	default:
		return level == 1 ? random_leaf(g, 1) : random_table(g, level);
	}
}

/* Part of an entry, or parts of two: 1 to 8 bytes at any address. */
static void write_part(struct guest *g, u64 gfn, unsigned int index)
{
	static const u8 sizes[] = { 1, 2, 4, 4, 4, 8 };
	unsigned int bytes = sizes[rnd(g, ARRAY_SIZE(sizes))];
	unsigned int offset = index * 8 + (rnd(g, 2) ? 4 * rnd(g, 2) : rnd(g, 8));
	u64 raw = random_entry(g, gfn, 0) >> (rnd(g, 2) ? 0 : 32);

	if (offset + bytes > PAGE_SIZE)
		offset = PAGE_SIZE - bytes;
	mock_write(g->mock, (gfn << PAGE_SHIFT) + offset, &raw, bytes);
}

/* Some entries in one go, as string instructions and memset() can do. */
static void write_run(struct guest *g, u64 gfn, unsigned int index)
{
	u64 raw[4] = {};
	unsigned int i, n = 1 + rnd(g, ARRAY_SIZE(raw));

	if (rnd(g, 3))
		for (i = 0; i < n; i++)
			raw[i] = random_leaf(g, 1);
	index = min(index, VTDS_TABLE_ENTRIES - n);
	/* Outside of the window nothing is written */
	for (i = 0; i < n; i++)
		if (index + i > 2 && index + i < 511)
			raw[i] = 0;
	mock_write(g->mock, (gfn << PAGE_SHIFT) + index * 8, raw, n * 8);
}

/* The guest frees a table, and uses the page anew. */
static void clear_table(struct guest *g, u64 gfn)
{
	unsigned int i;

	for (i = 0; i < g->nindices; i++)
		mock_set(g->mock, gfn, g->indices[i], 0);
}

/* The guest removes an entry and puts it back, before or after an invalidation. */
static void blink(struct guest *g, u64 gfn, unsigned int index)
{
	u64 old = mock_read(g->mock, gfn, index);

	mock_set(g->mock, gfn, index, 0);
	compare_window(g);
	if (!rnd(g, 4))
		flush_and_compare(g);
	mock_set(g->mock, gfn, index, old);
}

static void step(struct guest *g)
{
	u64 gfn = rnd(g, NTABLES);
	unsigned int index = random_index(g);

	switch (rnd(g, 32)) {
	case 0 ... 3:
		write_part(g, gfn, index);
		break;
	case 4:
		write_run(g, gfn, index);
		break;
	case 5:
		clear_table(g, gfn);
		break;
	case 6 ... 7:
		blink(g, gfn, index);
		break;
	default:
		mock_set(g->mock, gfn, index,
			 random_entry(g, gfn, mock_read(g->mock, gfn, index)));
	}
	g->step++;
	if (!rnd(g, 64))
		move_endpoint(g);
	if (g->c->variant->memory && !rnd(g, 64))
		memory_gone(g);
}

static void set_faults(struct guest *g, unsigned int one_in)
{
	g->mock->fail_pin = one_in;
	g->mock->fail_map = one_in;
	g->mock->fail_track = one_in;
}

static void set_limits(struct guest *g, bool tight)
{
	g->mock->engine.limits = (struct vtds_limits){
		.tables = tight ? 12 : 100000,
		.mappings = tight ? 20 : 1000000,
		.queue = tight ? 5 : 100000,
	};
}

/* With the obstacles out of the way, and tried again, everything has to be right. */
static void settle(struct guest *g)
{
	unsigned int i;

	set_faults(g, 0);
	set_limits(g, false);
	vtds_engine_flush(&g->mock->engine);
	memory_back(g);
	g->exact = true;
	compare_window(g);
	flush_and_compare(g);
	mock_check_idle(g->mock);
	/* There may be more now than low limits allow */
	for (i = 0; i < NDOMAINS && g->c->variant->tight; i++)
		if (g->domains[i].domain)
			domain_free(g, &g->domains[i]);
	g->exact = !g->c->variant->faults && !g->c->variant->tight;
	set_faults(g, g->c->variant->faults);
	set_limits(g, g->c->variant->tight);
}

static void random_test(struct kunit *test)
{
	/* At 4 levels and more, few: the window is a power of it */
	static const u16 indices[] = { 0, 1, 511, 2 };
	const struct random_case *c = test->param_value;
	struct guest *g = vzalloc(sizeof(*g));
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, g);
	g->c = c;
	g->mock = mock_alloc(test);
	g->rng = seed * 1000003 + (c - cases);
	g->mock->rng = g->rng + 1;
	g->indices = indices;
	g->nindices = c->levels <= 2 ? 4 : c->levels <= 4 ? 3 : 2;
	g->exact = !c->variant->faults && !c->variant->tight;
	c->format->setup(&g->mock->engine.fmt);
	set_faults(g, c->variant->faults);
	set_limits(g, c->variant->tight);

	while (g->step < max(writes / c->cases, 1) && !g->mock->broken) {
		step(g);
		compare_window(g);
		if (!rnd(g, 16))
			flush_and_compare(g);
		if (!(g->step % 2000))
			settle(g);
		cond_resched();
	}
	settle(g);
	if (!g->mock->broken)
		kunit_info(test, "%u writes agree, seed %llu: %lld links, %lld maps, %lld remaps, %lld host flushes, %u rejects",
			   g->step, seed, atomic64_read(&g->mock->engine.counters.links),
			   atomic64_read(&g->mock->engine.counters.maps),
			   atomic64_read(&g->mock->engine.counters.remaps),
			   atomic64_read(&g->mock->engine.counters.host_flushes),
			   g->mock->nreject);
	for (i = 0; i < NDOMAINS; i++)
		if (g->domains[i].domain)
			domain_free(g, &g->domains[i]);
	mock_free(g->mock);
	vfree(g);
}

static const void *case_next(const void *prev, char *desc)
{
	const struct test_format *const *format;
	const struct random_case *next;
	unsigned int v, l, heights, n = 0;

	if (!prev) {
		memset(cases, 0, sizeof(cases));
		for (format = test_formats; *format; format++) {
			heights = strlen((const char *)(*format)->levels);
			for (l = 0; l < heights; l++)
				for (v = 0; v < ARRAY_SIZE(variants); v++)
					cases[n++] = (struct random_case){
						*format, &variants[v], (*format)->levels[l],
						heights * ARRAY_SIZE(variants),
					};
		}
	}
	next = prev ? (const struct random_case *)prev + 1 : cases;
	if (!next->format)
		return NULL;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s, %u levels, %s", next->format->name,
		 next->levels, next->variant->name);
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

static struct kunit_case random_cases[] = {
	KUNIT_CASE_PARAM_ATTR(random_test, case_next, { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite random_suite = {
	.name = "vtds_random",
	.suite_init = suite_init,
	.suite_exit = suite_exit,
	.test_cases = random_cases,
};

kunit_test_suite(random_suite);
