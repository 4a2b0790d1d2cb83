/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A mock of guest memory and of host IOMMU domains that knows the rules which
 * the engine has to keep, and fails the test when it breaks one:
 *
 * - a map call covers only pages that are pinned for that access, in range and
 *   not reserved, and nothing that is mapped, or unmapped but not synced yet;
 * - an unmap call takes whole host pages (a host IOMMU makes them as large as a map
 *   call allows), and all of its span is mapped; it lies in the range announced by
 *   gather;
 * - a page has at all times at least as many pins as DMA can reach it: what was
 *   unmapped is reachable until the sync of that gather;
 * - pages are tracked once, and only RAM is.
 */
#ifndef VTDS_TESTS_MOCK_H
#define VTDS_TESTS_MOCK_H

#include <kunit/test.h>
#include <linux/list.h>
#include <linux/maple_tree.h>
#include <linux/mutex.h>

#include "engine.h"

/* Guest RAM in pages. Only the first ones have contents, others read as zero. */
#define MOCK_TABLES	64
#define MOCK_RAM	8192

/* Not RAM, and RAM that is read-only */
#define MOCK_HOLE_GFN		3000
#define MOCK_HOLE_LAST		3099
#define MOCK_ROM_GFN		5000
#define MOCK_ROM_LAST		5049

/* What host domains hold reserved: IOVA pages */
#define MOCK_RESERVED_PAGE	(512 + 2)
#define MOCK_RESERVED_LAST	(512 + 3)

#define MOCK_GATHERS	64

/**
 * struct mock - an engine with its surroundings
 * @test: the test that fails when a rule is broken
 * @engine: the engine under test
 * @lock: protects what the ops change, below
 * @mem: contents of the first pages
 * @zero: contents of all others
 * @gone_gfn: range that is not RAM now
 * @gone_last: its end, inclusive; below @gone_gfn: none
 * @tracked: by gfn
 * @ntracked: how many
 * @pins: by access and gfn: pins
 * @reach: by access and gfn: mappings, those not synced yet included
 * @npins: sum of @pins
 * @fail_pin: fail one in so many pins, 0: none
 * @fail_map: same for maps
 * @fail_track: same for tracking
 * @rng: state of the random numbers for that
 * @yields: let other tasks run while the engine is in the middle of a mapping
 * @queued_calls: calls of client->queued
 * @rejects: reports by reason
 * @last_reject: the last one
 * @nreject: all reports
 * @root_writes: calls of client->root_written
 * @gatings: calls of client->gate_close
 * @gate: how many of them were not undone yet
 * @gate_host: for whose devices the last one was
 * @wants_gate: nothing may be tracked while the gate is open
 * @broken: a rule was broken; the first one was reported
 */
struct mock {
	struct kunit *test;
	struct vtds_engine engine;
	struct mutex lock;	/* all of the mock */
	__le64 (*mem)[VTDS_TABLE_ENTRIES];
	__le64 *zero;
	u64 gone_gfn, gone_last;
	u8 tracked[MOCK_RAM];
	unsigned int ntracked;
	u32 (*pins)[MOCK_RAM];
	u32 (*reach)[MOCK_RAM];
	u64 npins;
	unsigned int fail_pin, fail_map, fail_track;
	u64 rng;
	bool yields;
	unsigned int queued_calls;
	unsigned int rejects[VTDS_REASON_NR];
	struct vtds_reject last_reject;
	unsigned int nreject;
	unsigned int root_writes;
	atomic_t gatings, gate;
	const void *gate_host;
	bool wants_gate;
	bool broken;
};

struct mock_gather {
	const struct iommu_iotlb_gather *key;
	u64 iova, last;
	bool used;
};

/**
 * struct mock_host - a host domain
 * @base: for the engine
 * @mock: surroundings
 * @ranges: struct mock_range by IOVA page
 * @pending: ranges that are unmapped and not synced
 * @gathers: those in use
 * @next_gather: where to look for a free one
 * @aperture_last: last IOVA that can be mapped
 * @maps: map calls
 * @unmaps: ranges unmapped
 * @syncs: sync calls
 * @pages: pages mapped, those pending not included
 */
struct mock_host {
	struct vtds_host base;
	struct mock *mock;
	struct maple_tree ranges;
	struct list_head pending;
	struct mock_gather gathers[MOCK_GATHERS];
	unsigned int next_gather;
	u64 aperture_last;
	unsigned int maps, unmaps, syncs;
	u64 pages;
};

/* What one host page maps. Pages are numbers of 4 KiB of IOVA. */
struct mock_range {
	u64 page, last_page;
	u64 gfn;
	u8 perm;
	const struct iommu_iotlb_gather *pending;
	struct list_head link;
};

struct mock *mock_alloc(struct kunit *test);
void mock_free(struct mock *mock);
struct mock_host *mock_host_alloc(struct mock *mock);
void mock_host_free(struct mock_host *host);

bool mock_is_ram(const struct mock *mock, u64 gfn);
bool mock_is_rom(u64 gfn);
enum vtds_reason mock_host_reason(const struct mock_host *host, u64 page);
u64 mock_read(const struct mock *mock, u64 gfn, unsigned int index);
struct mock_range *mock_lookup(struct mock_host *host, u64 page);

void mock_write(struct mock *mock, u64 gpa, const void *data, unsigned int bytes);
void mock_set(struct mock *mock, u64 gfn, unsigned int index, u64 raw);
void mock_poke(struct mock *mock, u64 gfn, unsigned int index, u64 raw);

u64 mock_random(u64 *state);
void mock_check_idle(struct mock *mock);

__printf(2, 3) void mock_fail(struct mock *mock, const char *fmt, ...);

#endif /* VTDS_TESTS_MOCK_H */
