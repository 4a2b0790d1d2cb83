// SPDX-License-Identifier: GPL-2.0
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "mock.h"

/*
 * Host page frames: contiguous for the lower half of guest memory, then runs of
 * 128 guest pages. Those for writing are other ones.
 */
#define PFN_BASE	BIT_ULL(30)
#define PFN_WRITE	BIT_ULL(29)
#define PFN_ODD		BIT_ULL(28)

static u64 gfn_to_pfn(u64 gfn, bool write)
{
	bool odd = gfn >= MOCK_RAM / 2 && (gfn & 0x80);

	return PFN_BASE | gfn | (write ? PFN_WRITE : 0) | (odd ? PFN_ODD : 0);
}

static u64 pfn_to_gfn(u64 pfn)
{
	return pfn & ~(PFN_BASE | PFN_WRITE | PFN_ODD);
}

/* Only the first complaint: those that follow from it say nothing new. */
void mock_fail(struct mock *mock, const char *fmt, ...)
{
	struct va_format vaf;
	va_list args;

	if (mock->broken)
		return;
	mock->broken = true;
	va_start(args, fmt);
	vaf.fmt = fmt;
	vaf.va = &args;
	KUNIT_FAIL(mock->test, "%pV", &vaf);
	va_end(args);
}

/* xorshift64* (Marsaglia, Vigna): replays the same everywhere. */
u64 mock_random(u64 *state)
{
	u64 x = *state ?: 1;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL >> 16;
}

static bool fails(struct mock *mock, unsigned int one_in)
{
	return one_in && !(mock_random(&mock->rng) % one_in);
}

bool mock_is_ram(const struct mock *mock, u64 gfn)
{
	return gfn < MOCK_RAM && !(gfn >= MOCK_HOLE_GFN && gfn <= MOCK_HOLE_LAST) &&
	       !(gfn >= mock->gone_gfn && gfn <= mock->gone_last);
}

bool mock_is_rom(u64 gfn)
{
	return gfn >= MOCK_ROM_GFN && gfn <= MOCK_ROM_LAST;
}

u64 mock_read(const struct mock *mock, u64 gfn, unsigned int index)
{
	return gfn < MOCK_TABLES ? le64_to_cpu(mock->mem[gfn][index]) : 0;
}

/* ---- guest memory ---- */

static struct mock *mock_of(struct vtds_engine *engine)
{
	return container_of(engine, struct mock, engine);
}

static const __le64 *mock_track(struct vtds_engine *engine, u64 gfn)
{
	struct mock *mock = mock_of(engine);

	lockdep_assert_held_write(&engine->lock);
	if (!mock_is_ram(mock, gfn))
		return ERR_PTR(-ENXIO);
	if (fails(mock, mock->fail_track))
		return ERR_PTR(-ENOMEM);
	if (mock->tracked[gfn])
		mock_fail(mock, "gfn %llu is tracked twice", gfn);
	if (mock->wants_gate && !atomic_read(&mock->gate))
		mock_fail(mock, "gfn %llu is tracked while the gate is open", gfn);
	mock->tracked[gfn] = true;
	mock->ntracked++;
	return gfn < MOCK_TABLES ? mock->mem[gfn] : mock->zero;
}

static void mock_untrack(struct vtds_engine *engine, u64 gfn, bool gone)
{
	struct mock *mock = mock_of(engine);

	lockdep_assert_held_write(&engine->lock);
	if (gfn >= MOCK_RAM || !mock->tracked[gfn]) {
		mock_fail(mock, "gfn %llu is untracked, but was not tracked", gfn);
		return;
	}
	if (gone != !mock_is_ram(mock, gfn))
		mock_fail(mock, "gfn %llu is untracked with gone=%d", gfn, gone);
	mock->tracked[gfn] = false;
	mock->ntracked--;
}

static int mock_pin_page(struct vtds_engine *engine, u64 gfn, bool write, u64 *pfn)
{
	struct mock *mock = mock_of(engine);
	int err = 0;

	lockdep_assert_held(&engine->lock);
	mutex_lock(&mock->lock);
	if (!mock_is_ram(mock, gfn)) {
		err = -ENXIO;
	} else if (write && mock_is_rom(gfn)) {
		err = -EROFS;
	} else if (fails(mock, mock->fail_pin)) {
		err = -ENOMEM;
	} else {
		mock->pins[write][gfn]++;
		mock->npins++;
		*pfn = gfn_to_pfn(gfn, write);
	}
	mutex_unlock(&mock->lock);
	return err;
}

static void mock_unpin_page(struct vtds_engine *engine, u64 gfn, bool write)
{
	struct mock *mock = mock_of(engine);

	lockdep_assert_held(&engine->lock);
	mutex_lock(&mock->lock);
	if (gfn >= MOCK_RAM || !mock->pins[write][gfn]) {
		mock_fail(mock, "gfn %llu write=%d is unpinned, but not pinned", gfn, write);
	} else {
		mock->pins[write][gfn]--;
		mock->npins--;
		if (mock->pins[write][gfn] < mock->reach[write][gfn])
			mock_fail(mock, "gfn %llu write=%d is unpinned, but DMA reaches it",
				  gfn, write);
	}
	mutex_unlock(&mock->lock);
}

static unsigned int mock_pin(struct vtds_engine *engine, u64 gfn, unsigned int n,
			     bool write, u64 *pfns, int *err)
{
	unsigned int i;

	if (n > 1)
		lockdep_assert_held_write(&engine->lock);
	if (mock_of(engine)->yields)
		schedule();
	for (i = 0; i < n; i++) {
		*err = mock_pin_page(engine, gfn + i, write, &pfns[i]);
		if (*err)
			break;
	}
	return i;
}

static void mock_unpin(struct vtds_engine *engine, u64 gfn, unsigned long n, bool write)
{
	for (; n; n--)
		mock_unpin_page(engine, gfn++, write);
}

static bool mock_present(struct vtds_engine *engine, u64 gfn)
{
	return mock_is_ram(mock_of(engine), gfn);
}

static u64 mock_gap(struct vtds_engine *engine, u64 gfn, u64 n)
{
	u64 gap = 1;

	if (gfn >= MOCK_RAM)
		return n;
	while (gap < n && !mock_is_ram(mock_of(engine), gfn + gap))
		gap++;
	return gap;
}

static const struct vtds_guest_ops mock_guest_ops = {
	.track = mock_track,
	.untrack = mock_untrack,
	.present = mock_present,
	.gap = mock_gap,
	.pin = mock_pin,
	.unpin = mock_unpin,
};

/* ---- host domain ---- */

static struct mock_host *mock_host_of(struct vtds_host *host)
{
	return container_of(host, struct mock_host, base);
}

enum vtds_reason mock_host_reason(const struct mock_host *host, u64 page)
{
	if (page > host->aperture_last >> PAGE_SHIFT)
		return VTDS_REASON_APERTURE;
	if (page >= MOCK_RESERVED_PAGE && page <= MOCK_RESERVED_LAST)
		return VTDS_REASON_RESERVED_REGION;
	return 0;
}

static enum vtds_reason mock_host_check(struct vtds_host *base, u64 iova, u64 last)
{
	struct mock_host *host = mock_host_of(base);

	if (last > host->aperture_last)
		return VTDS_REASON_APERTURE;
	if (iova >> PAGE_SHIFT <= MOCK_RESERVED_LAST &&
	    last >> PAGE_SHIFT >= MOCK_RESERVED_PAGE)
		return VTDS_REASON_RESERVED_REGION;
	return 0;
}

/* Account for the pages of a range that DMA begins (1) or ceases (-1) to reach. */
static void range_reach(struct mock *mock, const struct mock_range *range, int n)
{
	bool write = range->perm & VTDS_W;
	u64 gfn = range->gfn, end = gfn + range->last_page - range->page + 1;

	for (; gfn < end; gfn++) {
		mock->reach[write][gfn] += n;
		if (mock->pins[write][gfn] < mock->reach[write][gfn])
			mock_fail(mock, "gfn %llu write=%d is mapped, but not pinned for it",
				  gfn, write);
	}
}

/* A range in the host is contiguous there, and comes from pins of that access. */
static bool range_pfns_good(struct mock *mock, u64 pfn, u64 npages, u8 perm)
{
	u64 i;

	for (i = 0; i < npages; i++) {
		u64 gfn = pfn_to_gfn(pfn + i);

		if (gfn >= MOCK_RAM || gfn_to_pfn(gfn, perm & VTDS_W) != pfn + i)
			return false;
	}
	return true;
}

static int map_unit(struct mock_host *host, u64 iova, u64 hpa, u64 bytes, u8 perm)
{
	struct mock_range *range = kzalloc(sizeof(*range), GFP_KERNEL);
	int err;

	if (!range)
		return -ENOMEM;
	range->page = iova >> PAGE_SHIFT;
	range->last_page = (iova + bytes - 1) >> PAGE_SHIFT;
	range->gfn = pfn_to_gfn(hpa >> PAGE_SHIFT);
	range->perm = perm;
	err = mtree_insert_range(&host->ranges, range->page, range->last_page, range,
				 GFP_KERNEL);
	if (err) {
		if (err == -EEXIST)
			mock_fail(host->mock,
				  "map of %llx+%llx over what is mapped or not synced",
				  iova, bytes);
		kfree(range);
		return err;
	}
	range_reach(host->mock, range, 1);
	host->pages += bytes >> PAGE_SHIFT;
	return 0;
}

/* Like the IOMMU core: the largest page that fits, and no one can split it. */
static u64 unit_bytes(u64 iova, u64 hpa, u64 bytes)
{
	static const u64 sizes[] = { SZ_1G, SZ_2M };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (bytes >= sizes[i] && IS_ALIGNED(iova | hpa, sizes[i]))
			return sizes[i];
	return SZ_4K;
}

static int mock_map_locked(struct mock_host *host, u64 iova, u64 hpa, u64 bytes, u8 perm)
{
	struct mock *mock = host->mock;
	u64 unit;
	int err;

	host->maps++;
	if (!bytes || (iova | hpa | bytes) & ~PAGE_MASK || !perm || perm & ~VTDS_RW ||
	    iova + bytes - 1 < iova) {
		mock_fail(mock, "map of %llx+%llx to %llx, access %d", iova, bytes, hpa, perm);
		return -EINVAL;
	}
	if (mock_host_check(&host->base, iova, iova + bytes - 1)) {
		mock_fail(mock, "map of reserved %llx+%llx", iova, bytes);
		return -EINVAL;
	}
	if (!range_pfns_good(mock, hpa >> PAGE_SHIFT, bytes >> PAGE_SHIFT, perm)) {
		mock_fail(mock, "map of %llx+%llx to %llx, which is not pinned memory",
			  iova, bytes, hpa);
		return -EINVAL;
	}
	if (fails(mock, mock->fail_map))
		return -ENOMEM;

	for (; bytes; bytes -= unit, iova += unit, hpa += unit) {
		unit = unit_bytes(iova, hpa, bytes);
		err = map_unit(host, iova, hpa, unit, perm);
		if (err)
			return err;
	}
	return 0;
}

static int mock_map(struct vtds_host *base, u64 iova, u64 hpa, u64 bytes, u8 perm)
{
	struct mock_host *host = mock_host_of(base);
	int err;

	mutex_lock(&host->mock->lock);
	err = mock_map_locked(host, iova, hpa, bytes, perm);
	mutex_unlock(&host->mock->lock);
	return err;
}

static struct mock_gather *gather_find(struct mock_host *host,
				       const struct iommu_iotlb_gather *key)
{
	unsigned int i;

	for (i = 0; i < MOCK_GATHERS; i++)
		if (host->gathers[i].key == key)
			return &host->gathers[i];
	return NULL;
}

/*
 * A slot for a new gather. One that nothing was unmapped under may be forgotten
 * without a sync: such slots are used again, the oldest first, but only if there is
 * no other, as its owner may just be slow.
 */
static struct mock_gather *gather_unused(struct mock_host *host)
{
	unsigned int i;

	for (i = 0; i < MOCK_GATHERS; i++)
		if (!host->gathers[i].key)
			return &host->gathers[i];
	for (i = 0; i < MOCK_GATHERS; i++) {
		struct mock_gather *slot = &host->gathers[host->next_gather++ % MOCK_GATHERS];

		if (!slot->used)
			return slot;
	}
	return NULL;
}

static void mock_gather(struct vtds_host *base, u64 iova, u64 last,
			struct iommu_iotlb_gather *gather)
{
	struct mock_host *host = mock_host_of(base);
	struct mock_gather *slot;

	mutex_lock(&host->mock->lock);
	slot = gather_find(host, gather);
	if (slot && slot->used)
		mock_fail(host->mock, "gather anew without a sync");
	else if (!slot)
		slot = gather_unused(host);
	if (slot)
		*slot = (struct mock_gather){ gather, iova, last };
	else
		mock_fail(host->mock, "too many gathers at a time");
	mutex_unlock(&host->mock->lock);
}

static void mock_unmap_locked(struct mock_host *host, u64 iova, u64 bytes,
			      struct iommu_iotlb_gather *key)
{
	u64 page = iova >> PAGE_SHIFT, last_page = (iova + bytes - 1) >> PAGE_SHIFT;
	struct mock_gather *gather = gather_find(host, key);
	struct mock_range *range;

	if (!bytes || (iova | bytes) & ~PAGE_MASK || !gather || iova < gather->iova ||
	    iova + bytes - 1 > gather->last) {
		mock_fail(host->mock, "unmap of %llx+%llx outside of what was gathered",
			  iova, bytes);
		return;
	}
	gather->used = true;
	while (page <= last_page) {
		range = mtree_load(&host->ranges, page);
		if (!range || range->pending || range->page != page ||
		    range->last_page > last_page) {
			mock_fail(host->mock, "unmap of %llx+%llx: %llx is not mapped as a whole",
				  iova, bytes, page << PAGE_SHIFT);
			return;
		}
		range->pending = key;
		list_add_tail(&range->link, &host->pending);
		host->pages -= range->last_page - page + 1;
		host->unmaps++;
		page = range->last_page + 1;
	}
}

static void mock_unmap(struct vtds_host *base, u64 iova, u64 bytes,
		       struct iommu_iotlb_gather *gather)
{
	struct mock_host *host = mock_host_of(base);

	mutex_lock(&host->mock->lock);
	mock_unmap_locked(host, iova, bytes, gather);
	mutex_unlock(&host->mock->lock);
}

static void mock_sync(struct vtds_host *base, struct iommu_iotlb_gather *key)
{
	struct mock_host *host = mock_host_of(base);
	struct mock_range *range, *next;
	struct mock_gather *gather;

	mutex_lock(&host->mock->lock);
	host->syncs++;
	gather = gather_find(host, key);
	if (gather)
		gather->key = NULL;
	else
		mock_fail(host->mock, "sync of what was not gathered");
	list_for_each_entry_safe(range, next, &host->pending, link) {
		if (range->pending != key)
			continue;
		mtree_erase(&host->ranges, range->page);
		range_reach(host->mock, range, -1);
		list_del(&range->link);
		kfree(range);
	}
	mutex_unlock(&host->mock->lock);
}

/* Return: what maps an IOVA page, NULL if nothing does. */
struct mock_range *mock_lookup(struct mock_host *host, u64 page)
{
	struct mock_range *range = mtree_load(&host->ranges, page);

	return range && !range->pending ? range : NULL;
}

static u64 mock_host_lookup(struct vtds_host *base, u64 iova)
{
	struct mock_host *host = mock_host_of(base);
	u64 page = iova >> PAGE_SHIFT, hpa = 0;
	struct mock_range *range;

	mutex_lock(&host->mock->lock);
	range = mock_lookup(host, page);
	if (range)
		hpa = gfn_to_pfn(range->gfn + page - range->page, range->perm & VTDS_W)
			<< PAGE_SHIFT | (iova & ~PAGE_MASK);
	mutex_unlock(&host->mock->lock);
	return hpa;
}

static const struct vtds_host_ops mock_host_ops = {
	.map = mock_map,
	.unmap = mock_unmap,
	.gather = mock_gather,
	.sync = mock_sync,
	.check = mock_host_check,
	.lookup = mock_host_lookup,
};

/* ---- owner ---- */

static void mock_report(struct vtds_engine *engine, const struct vtds_reject *reject)
{
	struct mock *mock = mock_of(engine);

	lockdep_assert_held(&engine->lock);
	if (reject->reason <= 0 || reject->reason >= VTDS_REASON_NR) {
		mock_fail(mock, "reject for reason %d", reject->reason);
		return;
	}
	mutex_lock(&mock->lock);
	mock->rejects[reject->reason]++;
	mock->nreject++;
	mock->last_reject = *reject;
	mutex_unlock(&mock->lock);
}

static void mock_root_written(struct vtds_engine *engine, u64 gpa, unsigned int bytes)
{
	lockdep_assert_held_write(&engine->lock);
	mock_of(engine)->root_writes++;
}

static void mock_queued(struct vtds_engine *engine)
{
	mock_of(engine)->queued_calls++;
}

static int mock_gate_close(struct vtds_engine *engine, const void *host)
{
	mock_of(engine)->gate_host = host;
	atomic_inc(&mock_of(engine)->gatings);
	atomic_inc(&mock_of(engine)->gate);
	return 1;
}

static void mock_gate_open(struct vtds_engine *engine)
{
	if (atomic_dec_return(&mock_of(engine)->gate) < 0)
		mock_fail(mock_of(engine), "the gate is opened, but was not closed");
}

static const struct vtds_engine_client mock_client = {
	.gate_close = mock_gate_close,
	.gate_open = mock_gate_open,
	.report = mock_report,
	.root_written = mock_root_written,
	.queued = mock_queued,
};

/* ---- the guest's processor ---- */

/* The guest stores without the engine's hearing of it, tracked or not. */
void mock_poke(struct mock *mock, u64 gfn, unsigned int index, u64 raw)
{
	WRITE_ONCE(mock->mem[gfn][index], cpu_to_le64(raw));
}

/* The guest stores: as KVM does, tell the engine after it if the page is tracked. */
void mock_write(struct mock *mock, u64 gpa, const void *data, unsigned int bytes)
{
	u64 gfn = gpa >> PAGE_SHIFT;

	memcpy((u8 *)mock->mem[gfn] + (gpa & ~PAGE_MASK), data, bytes);
	if (mock->tracked[gfn])
		vtds_engine_write(&mock->engine, gpa, bytes);
}

void mock_set(struct mock *mock, u64 gfn, unsigned int index, u64 raw)
{
	__le64 le = cpu_to_le64(raw);

	mock_write(mock, (gfn << PAGE_SHIFT) + index * sizeof(le), &le, sizeof(le));
}

/* ---- life ---- */

/* With nothing queued: pins are those of what is mapped, no more and no less. */
void mock_check_idle(struct mock *mock)
{
	unsigned int write;
	u64 gfn;

	if (atomic_read(&mock->gate))
		mock_fail(mock, "the gate was left closed");
	for (write = 0; write < 2; write++)
		for (gfn = 0; gfn < MOCK_RAM; gfn++)
			if (mock->pins[write][gfn] != mock->reach[write][gfn])
				mock_fail(mock, "gfn %llu write=%u: %u pins for %u mappings",
					  gfn, write, mock->pins[write][gfn],
					  mock->reach[write][gfn]);
}

struct mock *mock_alloc(struct kunit *test)
{
	struct mock *mock = vzalloc(sizeof(*mock));

	KUNIT_ASSERT_NOT_NULL(test, mock);
	mock->test = test;
	mutex_init(&mock->lock);
	mock->mem = vzalloc(MOCK_TABLES * PAGE_SIZE);
	mock->zero = (void *)get_zeroed_page(GFP_KERNEL);
	mock->pins = vzalloc(2 * sizeof(*mock->pins));
	mock->reach = vzalloc(2 * sizeof(*mock->reach));
	KUNIT_ASSERT_TRUE(test, mock->mem && mock->zero && mock->pins && mock->reach);
	mock->gone_gfn = 1;
	vtds_engine_init(&mock->engine, &mock_guest_ops, &mock_client);
	mock->engine.limits = (struct vtds_limits){
		.tables = 100000,
		.mappings = 1000000,
		.queue = 100000,
	};
	return mock;
}

/* All domains are freed: nothing may be left. */
void mock_free(struct mock *mock)
{
	struct vtds_counters *c = &mock->engine.counters;

	if (mock->npins || mock->ntracked || atomic64_read(&c->tables) ||
	    atomic64_read(&c->tracked_pages) || atomic64_read(&c->mappings) ||
	    atomic64_read(&c->mapped_pages) || atomic_read(&c->queued))
		mock_fail(mock, "left: %llu pins, %u tracked, %lld %lld %lld %lld %d by counters",
			  mock->npins, mock->ntracked, atomic64_read(&c->tables),
			  atomic64_read(&c->tracked_pages), atomic64_read(&c->mappings),
			  atomic64_read(&c->mapped_pages), atomic_read(&c->queued));
	if (atomic64_read(&c->maps) != atomic64_read(&c->unmaps) ||
	    atomic64_read(&c->links) != atomic64_read(&c->unlinks))
		mock_fail(mock, "counters: %lld maps %lld unmaps, %lld links %lld unlinks",
			  atomic64_read(&c->maps), atomic64_read(&c->unmaps),
			  atomic64_read(&c->links), atomic64_read(&c->unlinks));
	vtds_engine_fini(&mock->engine);
	vfree(mock->reach);
	vfree(mock->pins);
	free_page((unsigned long)mock->zero);
	vfree(mock->mem);
	vfree(mock);
}

struct mock_host *mock_host_alloc(struct mock *mock)
{
	struct mock_host *host = kzalloc(sizeof(*host), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(mock->test, host);
	host->base.ops = &mock_host_ops;
	host->mock = mock;
	host->aperture_last = U64_MAX;
	mt_init(&host->ranges);
	INIT_LIST_HEAD(&host->pending);
	return host;
}

/* Nothing may be mapped any more; what is, is forgotten. */
void mock_host_free(struct mock_host *host)
{
	struct mock_range *range;
	unsigned long index = 0;

	if (!mtree_empty(&host->ranges))
		mock_fail(host->mock, "the domain is freed, and something is still mapped");
	mt_for_each(&host->ranges, range, index, ULONG_MAX)
		kfree(range);
	mtree_destroy(&host->ranges);
	kfree(host);
}
