// SPDX-License-Identifier: GPL-2.0
/*
 * Nodes: the shadow of one guest table at one place. Applying the difference
 * between what the guest's table says and what is in the host.
 */
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "engine.h"
#include "trace.h"

static struct kmem_cache *vtds_node_cache;

int vtds_node_cache_init(void)
{
	vtds_node_cache = KMEM_CACHE(vtds_node, SLAB_ACCOUNT);
	return vtds_node_cache ? 0 : -ENOMEM;
}

void vtds_node_cache_fini(void)
{
	kmem_cache_destroy(vtds_node_cache);
}

/* The entries of a node are stable with its lock, or the engine's for writing. */
static void assert_entries(struct vtds_node *node)
{
	lockdep_assert(lockdep_is_held(&node->lock) ||
		       lockdep_is_held_type(&node->domain->engine->lock, 0));
}

static u64 entry_iova(const struct vtds_node *node, unsigned int i)
{
	return node->iova + ((u64)i << vtds_level_shift(node->level));
}

static u64 node_last_iova(const struct vtds_node *node)
{
	unsigned int bits = vtds_level_shift(node->level) + VTDS_LEVEL_BITS;

	return node->iova | (bits < 64 ? BIT_ULL(bits) - 1 : U64_MAX);
}

static struct vtds_node *entry_child(const struct vtds_node *node, unsigned int i)
{
	return node->children ? node->children[i] : NULL;
}

/* The entry as it counts here: nothing is present that gives no access. */
static struct vtds_entry entry_decode(const struct vtds_node *node, unsigned int i,
				      u64 raw)
{
	struct vtds_entry e = vtds_fmt_decode(&node->domain->engine->fmt,
					      node->level, i, raw);

	if (e.type == VTDS_ENTRY_LEAF || e.type == VTDS_ENTRY_TABLE) {
		e.perm &= node->perm;
		if (!e.perm)
			e.type = VTDS_ENTRY_NONE;
	}
	return e;
}

static void entry_reject(struct vtds_node *node, unsigned int i, u64 gpa,
			 enum vtds_reason reason)
{
	const struct vtds_reject reject = {
		.reason = reason,
		.requester_id = node->domain->requester_id,
		.level = node->level,
		.iova = entry_iova(node, i),
		.gpa = gpa,
	};

	node->domain->engine->refusals++;
	vtds_engine_reject(node->domain->engine, &reject);
}

/*
 * What is applied is bounded by the limits; what is refused costs time as well.
 * The counter is for the one who holds the lock for writing; others blur it.
 */
static bool out_of_patience(struct vtds_engine *engine)
{
	return engine->refusals > VTDS_MAX_REFUSALS || fatal_signal_pending(current);
}

static enum vtds_reason pin_reason(int err)
{
	switch (err) {
	case -ENXIO:
	case -EFAULT:	/* a memory slot, of a device's BAR for instance */
		return VTDS_REASON_NOT_RAM;
	case -EROFS:
		return VTDS_REASON_READ_ONLY;
	case -EDQUOT:
		return VTDS_REASON_LIMIT;
	default:
		return VTDS_REASON_PIN;
	}
}

/* ---- leaf entries: mapping ---- */

static void unmap_sync_unpin(struct vtds_node *node, u64 iova, u64 gpa,
			     unsigned int n, bool write)
{
	struct vtds_host *host = node->domain->host;
	struct iommu_iotlb_gather gather;
	u64 bytes = (u64)n << PAGE_SHIFT;

	host->ops->gather(host, iova, iova + bytes - 1, &gather);
	host->ops->unmap(host, iova, bytes, &gather);
	host->ops->sync(host, &gather);
	node->domain->engine->guest->unpin(node->domain->engine, gpa >> PAGE_SHIFT, n,
					   write);
}

/* Leading pages that the host can map. */
static unsigned int check_pages(struct vtds_host *host, u64 iova, unsigned int n,
				enum vtds_reason *reason)
{
	unsigned int i;

	*reason = host->ops->check(host, iova, iova + ((u64)n << PAGE_SHIFT) - 1);
	if (!*reason || n == 1)
		return *reason ? 0 : n;
	for (i = 0; i < n; i++, iova += PAGE_SIZE) {
		*reason = host->ops->check(host, iova, iova + PAGE_SIZE - 1);
		if (*reason)
			break;
	}
	return i;
}

/* Map pinned pages, a call for each run that is contiguous in the host. */
static unsigned int map_pinned(struct vtds_host *host, u64 iova, unsigned int n,
			       u8 perm, const u64 *pfns)
{
	unsigned int first, end;

	for (first = 0; first < n; first = end) {
		for (end = first + 1; end < n; end++)
			if (pfns[end] != pfns[end - 1] + 1)
				break;
		if (host->ops->map(host, iova + ((u64)first << PAGE_SHIFT),
				   pfns[first] << PAGE_SHIFT,
				   (u64)(end - first) << PAGE_SHIFT, perm))
			break;
	}
	return first;
}

static bool charge_pages(struct vtds_engine *engine, unsigned int n)
{
	atomic64_t *pages = &engine->counters.mapped_pages;

	if (atomic64_add_return(n, pages) <= engine->limits.mappings)
		return true;
	atomic64_sub(n, pages);
	return false;
}

/*
 * Pin and map pages that are contiguous in the guest.
 * Return: how many, from the first on; @reason tells about the next, if any.
 */
static unsigned int map_pages(struct vtds_node *node, u64 iova, u64 gpa,
			      unsigned int n, u8 perm, u64 *pfns,
			      enum vtds_reason *reason)
{
	struct vtds_engine *engine = node->domain->engine;
	struct vtds_host *host = node->domain->host;
	unsigned int pinned, mapped, charged;
	int err = 0;

	n = check_pages(host, iova, n, reason);
	if (!n)
		return 0;
	charged = charge_pages(engine, n) ? n : charge_pages(engine, 1);
	if (!charged) {
		*reason = VTDS_REASON_LIMIT;
		return 0;
	}
	pinned = engine->guest->pin(engine, gpa >> PAGE_SHIFT, charged, perm & VTDS_W,
				    pfns, &err);
	mapped = map_pinned(host, iova, pinned, perm, pfns);
	if (mapped < pinned) {
		engine->guest->unpin(engine, (gpa >> PAGE_SHIFT) + mapped,
				     pinned - mapped, perm & VTDS_W);
		*reason = VTDS_REASON_HOST;
	} else if (pinned < charged) {
		*reason = pin_reason(err);
	}
	atomic64_sub(charged - mapped, &engine->counters.mapped_pages);
	return mapped;
}

/*
 * Whether something may be had by letting go of what the guest has removed. It
 * counts against the limits until it is flushed, but that must not show.
 */
static bool flush_may_help(struct vtds_node *node, enum vtds_reason reason)
{
	return (reason == VTDS_REASON_LIMIT || reason == VTDS_REASON_PIN) &&
	       atomic_read(&node->domain->engine->counters.queued);
}

static void flush_all(struct vtds_engine *engine)
{
	struct vtds_domain *domain;

	list_for_each_entry(domain, &engine->domains, link)
		vtds_domain_flush(domain);
}

/* map_pages() with the lock held for writing: with scratch, and a second try. */
static unsigned int map_pages_hard(struct vtds_node *node, u64 iova, u64 gpa,
				   unsigned int n, u8 perm, enum vtds_reason *reason)
{
	struct vtds_engine *engine = node->domain->engine;
	unsigned int done;

	vtds_assert_structural(engine);
	done = map_pages(node, iova, gpa, n, perm, engine->pfns, reason);
	if (!done && flush_may_help(node, *reason)) {
		flush_all(engine);
		vtds_domain_flush(node->domain);
		done = map_pages(node, iova, gpa, n, perm, engine->pfns, reason);
	}
	return done;
}

static void entries_applied(struct vtds_node *node, unsigned int first,
			    unsigned int n, u64 gpa, u8 perm)
{
	struct vtds_counters *c = &node->domain->engine->counters;
	u64 span = vtds_level_span(node->level);
	unsigned int i;

	assert_entries(node);
	if (n == 1)
		__set_bit(first, node->applied);
	else
		bitmap_set(node->applied, first, n);
	atomic64_add(n, &c->mappings);
	atomic64_add(n, &c->maps);
	if (trace_vtds_map_enabled())
		for (i = 0; i < n; i++)
			trace_vtds_map(node->domain, entry_iova(node, first + i),
				       gpa + i * span, node->level, perm);
}

/**
 * struct leaf_run - entries of a level 1 table to be mapped together
 * @first: first entry
 * @n: how many
 * @gpa: what the first one maps; the others follow
 * @perm: access of all
 * @skipped: entries of the table that were left out, as there was no patience
 */
struct leaf_run {
	unsigned int first;
	unsigned int n;
	u64 gpa;
	u8 perm;
	unsigned int skipped;
};

static void run_map(struct vtds_node *node, struct leaf_run *run)
{
	enum vtds_reason reason;
	unsigned int done;

	while (run->n) {
		done = map_pages_hard(node, entry_iova(node, run->first), run->gpa,
				      run->n, run->perm, &reason);
		entries_applied(node, run->first, done, run->gpa, run->perm);
		if (!done) {
			entry_reject(node, run->first, run->gpa, reason);
			done = 1;
		}
		run->first += done;
		run->n -= done;
		run->gpa += (u64)done << PAGE_SHIFT;
	}
}

/*
 * A run ends one short of the table: as a whole the host could map it with one
 * page, which could not be unmapped entry by entry.
 */
static void run_add(struct vtds_node *node, struct leaf_run *run, unsigned int i,
		    const struct vtds_entry *e)
{
	if (run->n && (i != run->first + run->n || run->n == VTDS_TABLE_ENTRIES - 1 ||
		       e->gpa != run->gpa + ((u64)run->n << PAGE_SHIFT) ||
		       e->perm != run->perm))
		run_map(node, run);
	if (!run->n) {
		run->first = i;
		run->gpa = e->gpa;
		run->perm = e->perm;
	}
	run->n++;
}

static bool is_hole(enum vtds_reason reason)
{
	return reason == VTDS_REASON_NOT_RAM || reason == VTDS_REASON_READ_ONLY ||
	       reason == VTDS_REASON_RESERVED_REGION || reason == VTDS_REASON_APERTURE;
}

/**
 * struct superpage - a guest superpage on its way into the host
 * @npages: how many 4 KiB pages it has
 * @mapped: which are pinned and mapped
 * @hole: why the first page that is not, is not; 0 if there is none
 * @hole_page: which
 */
struct superpage {
	unsigned long npages;
	unsigned long *mapped;
	enum vtds_reason hole;
	unsigned long hole_page;
};

static bool out_of_aperture(struct vtds_host *host, u64 iova)
{
	return host->ops->check(host, iova, iova + PAGE_SIZE - 1) == VTDS_REASON_APERTURE;
}

/*
 * Pages that are not RAM, or in a reserved range, are holes: hardware would not
 * stop DMA to the rest of such a superpage either.
 * Return: 0, or why it cannot be.
 */
static enum vtds_reason superpage_map(struct vtds_node *node, u64 iova,
				      const struct vtds_entry *e, struct superpage *sp)
{
	u64 last_page = iova + ((u64)(sp->npages - 1) << PAGE_SHIFT);
	struct vtds_engine *engine = node->domain->engine;
	enum vtds_reason reason;
	unsigned long page = 0;
	unsigned int n, done;

	/* Most often all of it: no need to find out page by page. */
	if (out_of_aperture(node->domain->host, iova) &&
	    out_of_aperture(node->domain->host, last_page))
		return VTDS_REASON_APERTURE;

	while (page < sp->npages) {
		u64 offset = (u64)page << PAGE_SHIFT;

		if (out_of_patience(engine))
			return VTDS_REASON_LIMIT;
		cond_resched();
		n = VTDS_TABLE_ENTRIES - page % VTDS_TABLE_ENTRIES;
		done = map_pages_hard(node, iova + offset, e->gpa + offset, n, e->perm,
				      &reason);
		bitmap_set(sp->mapped, page, done);
		page += done;
		if (done)
			continue;
		if (!is_hole(reason))
			return reason;
		if (!sp->hole) {
			sp->hole = reason;
			sp->hole_page = page;
		}
		page += reason == VTDS_REASON_NOT_RAM ?
			engine->guest->gap(engine, (e->gpa + offset) >> PAGE_SHIFT,
					   sp->npages - page) : 1;
		engine->refusals++;
	}
	return bitmap_empty(sp->mapped, sp->npages) ? sp->hole : 0;
}

static void superpage_undo(struct vtds_node *node, u64 iova,
			   const struct vtds_entry *e, struct superpage *sp)
{
	struct vtds_engine *engine = node->domain->engine;
	unsigned long first, end;

	for_each_set_bitrange(first, end, sp->mapped, sp->npages) {
		unmap_sync_unpin(node, iova + (first << PAGE_SHIFT),
				 e->gpa + (first << PAGE_SHIFT), end - first,
				 e->perm & VTDS_W);
		atomic64_sub(end - first, &engine->counters.mapped_pages);
	}
}

/* Larger leaves would take too long; AMD's tables can have them. */
#define SUPERPAGE_MAX_LEVEL	3

static void map_superpage(struct vtds_node *node, unsigned int i,
			  const struct vtds_entry *e)
{
	u64 iova = entry_iova(node, i);
	struct superpage sp = {};
	enum vtds_reason reason;

	if (node->level > SUPERPAGE_MAX_LEVEL) {
		entry_reject(node, i, e->gpa, VTDS_REASON_UNSUPPORTED);
		return;
	}
	sp.npages = vtds_level_span(node->level) >> PAGE_SHIFT;
	sp.mapped = kvcalloc(BITS_TO_LONGS(sp.npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!sp.mapped) {
		entry_reject(node, i, e->gpa, VTDS_REASON_HOST);
		return;
	}

	reason = superpage_map(node, iova, e, &sp);
	if (!reason && sp.hole &&
	    xa_err(xa_store(&node->partial, i, sp.mapped, GFP_KERNEL_ACCOUNT)))
		reason = VTDS_REASON_HOST;
	if (reason) {
		superpage_undo(node, iova, e, &sp);
		entry_reject(node, i, e->gpa, reason);
	} else {
		entries_applied(node, i, 1, e->gpa, e->perm);
	}
	if (!reason && sp.hole)		/* sp.mapped is now in node->partial */
		entry_reject(node, i, e->gpa + (sp.hole_page << PAGE_SHIFT), sp.hole);
	else
		kvfree(sp.mapped);
}

/* Map one 4 KiB leaf. Return: whether that is settled, for good or ill. */
static bool map_page(struct vtds_node *node, unsigned int i, const struct vtds_entry *e)
{
	enum vtds_reason reason;
	u64 pfn;

	if (map_pages(node, entry_iova(node, i), e->gpa, 1, e->perm, &pfn, &reason)) {
		entries_applied(node, i, 1, e->gpa, e->perm);
		return true;
	}
	if (flush_may_help(node, reason))
		return false;
	entry_reject(node, i, e->gpa, reason);
	return true;
}

/* ---- leaf entries: unmapping, in two steps around the host's IOTLB sync ---- */

/* Unmap the part of a superpage that got mapped, run by run. */
static void unmap_partial(struct vtds_node *node, u64 iova, unsigned long *pages,
			  unsigned long npages, struct iommu_iotlb_gather *gather)
{
	struct vtds_host *host = node->domain->host;
	unsigned long first, end;

	for_each_set_bitrange(first, end, pages, npages)
		host->ops->unmap(host, iova + (first << PAGE_SHIFT),
				 (end - first) << PAGE_SHIFT, gather);
}

/* First step, for [first, end), all applied: clear the host entries. */
static void entries_unmap(struct vtds_node *node, unsigned int first,
			  unsigned int end, struct iommu_iotlb_gather *gather)
{
	struct vtds_host *host = node->domain->host;
	unsigned int shift = vtds_level_shift(node->level);
	unsigned int i, start = first;

	/* Whole superpages go in runs like pages do; those with holes go alone. */
	for (i = first; node->level > 1 && i < end; i++) {
		unsigned long *pages = xa_load(&node->partial, i);

		if (!pages)
			continue;
		if (i > start)
			host->ops->unmap(host, entry_iova(node, start),
					 (u64)(i - start) << shift, gather);
		unmap_partial(node, entry_iova(node, i), pages,
			      1UL << (shift - PAGE_SHIFT), gather);
		start = i + 1;
	}
	if (end > start)
		host->ops->unmap(host, entry_iova(node, start),
				 (u64)(end - start) << shift, gather);
}

/* Let the pages go of entries that are contiguous in the guest. */
static void release_run(struct vtds_node *node, unsigned int first, unsigned int n,
			const struct vtds_entry *e)
{
	struct vtds_engine *engine = node->domain->engine;
	unsigned long npages = vtds_level_span(node->level) >> PAGE_SHIFT;
	unsigned long *partial = node->level > 1 ? xa_erase(&node->partial, first) : NULL;
	u64 gfn = e->gpa >> PAGE_SHIFT;
	unsigned long page, end, total = 0;

	if (partial) {
		for_each_set_bitrange(page, end, partial, npages) {
			engine->guest->unpin(engine, gfn + page, end - page,
					     e->perm & VTDS_W);
			total += end - page;
		}
		kvfree(partial);
	} else {
		total = n * npages;
		engine->guest->unpin(engine, gfn, total, e->perm & VTDS_W);
	}
	atomic64_sub(total, &engine->counters.mapped_pages);
	atomic64_sub(n, &engine->counters.mappings);
	atomic64_add(n, &engine->counters.unmaps);
}

/* Second step, after the sync, for [first, end), all applied: let the pages go. */
static void entries_release(struct vtds_node *node, unsigned int first,
			    unsigned int end)
{
	struct vtds_entry run = {}, e;
	unsigned int i, start = first;

	assert_entries(node);
	for (i = first; i < end; i++) {
		e = entry_decode(node, i, node->raw[i]);
		trace_vtds_unmap(node->domain, entry_iova(node, i), e.gpa, node->level);
		if (i > start && (node->level > 1 || e.perm != run.perm ||
				  e.gpa != run.gpa + ((u64)(i - start) << PAGE_SHIFT))) {
			release_run(node, start, i - start, &run);
			start = i;
		}
		if (i == start)
			run = e;
		node->raw[i] = 0;
	}
	release_run(node, start, end - start, &run);
	bitmap_clear(node->applied, first, end - first);
}

static void host_sync(struct vtds_domain *domain, struct iommu_iotlb_gather *gather)
{
	domain->host->ops->sync(domain->host, gather);
	atomic64_inc(&domain->engine->counters.host_flushes);
}

/* ---- the queue of removed entries ---- */

static void entry_queue(struct vtds_node *node, unsigned int i)
{
	struct vtds_domain *domain = node->domain;
	struct vtds_engine *engine = domain->engine;

	assert_entries(node);
	if (__test_and_set_bit(i, node->queued))
		return;
	spin_lock(&domain->queue_lock);
	if (list_empty(&node->queue_link))
		list_add_tail(&node->queue_link, &domain->queue);
	spin_unlock(&domain->queue_lock);
	if (atomic_inc_return(&engine->counters.queued) == 1)
		engine->client->queued(engine);
}

/* The node stays on the list; a flush does not mind one without queued entries. */
static void entry_unqueue(struct vtds_node *node, unsigned int i)
{
	assert_entries(node);
	if (__test_and_clear_bit(i, node->queued))
		atomic_dec(&node->domain->engine->counters.queued);
}

static void entry_remove_now(struct vtds_node *node, unsigned int i)
{
	struct vtds_host *host = node->domain->host;
	struct iommu_iotlb_gather gather;
	u64 iova = entry_iova(node, i);

	host->ops->gather(host, iova, iova + vtds_level_span(node->level) - 1, &gather);
	entries_unmap(node, i, i + 1, &gather);
	host_sync(node->domain, &gather);
	entries_release(node, i, i + 1);
	/* Only now: vtds_engine_flush() may look at the count without the lock. */
	entry_unqueue(node, i);
}

/**
 * vtds_domain_flush() - take the queued entries of a domain away
 * @domain: domain
 *
 * One host IOTLB flush serves all of them.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_domain_flush(struct vtds_domain *domain)
{
	struct vtds_host *host = domain->host;
	struct iommu_iotlb_gather gather;
	u64 iova = U64_MAX, last = 0;
	struct vtds_node *node, *next;
	unsigned int first, end, n = 0;

	vtds_assert_structural(domain->engine);
	list_for_each_entry(node, &domain->queue, queue_link) {
		iova = min(iova, node->iova);
		last = max(last, node_last_iova(node));
	}
	if (iova > last)
		return;

	host->ops->gather(host, iova, last, &gather);
	list_for_each_entry(node, &domain->queue, queue_link)
		for_each_set_bitrange(first, end, node->queued, VTDS_TABLE_ENTRIES)
			entries_unmap(node, first, end, &gather);
	host_sync(domain, &gather);

	list_for_each_entry_safe(node, next, &domain->queue, queue_link) {
		for_each_set_bitrange(first, end, node->queued, VTDS_TABLE_ENTRIES) {
			entries_release(node, first, end);
			n += end - first;
		}
		bitmap_zero(node->queued, VTDS_TABLE_ENTRIES);
		list_del_init(&node->queue_link);
		cond_resched();
	}
	atomic_sub(n, &domain->engine->counters.queued);
	trace_vtds_flush(domain, iova, last, n);
}

/* ---- tables ---- */

static void entry_link(struct vtds_node *node, unsigned int i,
		       const struct vtds_entry *e)
{
	struct vtds_node *child;

	vtds_assert_structural(node->domain->engine);
	if (!node->children)
		node->children = kcalloc(VTDS_TABLE_ENTRIES, sizeof(*node->children),
					 GFP_KERNEL_ACCOUNT);
	if (!node->children) {
		entry_reject(node, i, e->gpa, VTDS_REASON_HOST);
		return;
	}
	child = vtds_node_link(node->domain, node, i, e);
	if (!IS_ERR(child))
		node->children[i] = child;
}

/*
 * What the guest's entry is by now is not what is applied or linked here: take
 * that away. Return: whether the entry is in step then, nothing is to be added.
 */
static bool sync_old(struct vtds_node *node, unsigned int i, u64 raw,
		     const struct vtds_entry *new)
{
	struct vtds_node *child = entry_child(node, i);
	struct vtds_entry old = entry_decode(node, i, node->raw[i]);

	if (vtds_entry_same(&old, new)) {
		/* The guest put it back, or changed what does not matter. */
		node->raw[i] = raw;
		if (test_bit(i, node->queued)) {
			entry_unqueue(node, i);
			atomic64_inc(&node->domain->engine->counters.remaps);
		}
		return true;
	}
	if (!child && new->type == VTDS_ENTRY_NONE) {
		entry_queue(node, i);
		return true;
	}
	if (child)
		vtds_node_unlink(child);
	else
		entry_remove_now(node, i);
	return false;
}

/*
 * Bring one entry in step. With the lock held for writing there is a @run, which
 * leaves are collected in. Without one only 4 KiB leaves are dealt with, and
 * false tells that more is needed: the entry is then as if not yet seen.
 */
static bool sync_entry(struct vtds_node *node, unsigned int i, struct leaf_run *run)
{
	u64 raw = le64_to_cpu(READ_ONCE(node->page->entries[i]));
	struct vtds_node *child = entry_child(node, i);
	struct vtds_entry new;

	if (raw == node->raw[i] && !test_bit(i, node->queued))
		return true;

	new = entry_decode(node, i, raw);
	if (!run && (child || new.type == VTDS_ENTRY_TABLE ||
		     (new.type == VTDS_ENTRY_LEAF && node->level > 1)))
		return false;
	if ((child || test_bit(i, node->applied)) && sync_old(node, i, raw, &new))
		return true;
	/* What the guest removed is gone by now in any case: only adding can wait. */
	if (run && out_of_patience(node->domain->engine) &&
	    (new.type == VTDS_ENTRY_LEAF || new.type == VTDS_ENTRY_TABLE)) {
		node->raw[i] = 0;
		if (!run->skipped++)
			entry_reject(node, i, new.gpa, VTDS_REASON_LIMIT);
		return true;
	}

	switch (new.type) {
	case VTDS_ENTRY_NONE:
		break;
	case VTDS_ENTRY_LEAF:
		if (node->level > 1)
			map_superpage(node, i, &new);
		else if (run)
			run_add(node, run, i, &new);
		else if (!map_page(node, i, &new))
			return false;
		break;
	case VTDS_ENTRY_TABLE:
		entry_link(node, i, &new);
		break;
	case VTDS_ENTRY_BAD:
		entry_reject(node, i, new.gpa, VTDS_REASON_RESERVED_BITS);
		break;
	}
	node->raw[i] = raw;
	return true;
}

/**
 * vtds_page_sync() - bring all nodes of a page in step
 * @engine: engine
 * @gfn: page
 * @first: first entry
 * @last: last entry
 *
 * A table may be linked into itself, at any depth: what is done to one of its
 * nodes can link new ones and unlink others, or all. So each node is taken from
 * the head of the list and put at its end, where new ones arrive as well; @pass
 * tells when the round is complete.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_page_sync(struct vtds_engine *engine, u64 gfn, unsigned int first,
		    unsigned int last)
{
	u64 pass = ++engine->pass;
	struct vtds_page *page;
	struct vtds_node *node;

	vtds_assert_structural(engine);
	while ((page = xa_load(&engine->pages, gfn))) {
		node = list_first_entry_or_null(&page->nodes, struct vtds_node,
						page_link);
		if (!node || node->pass == pass)
			return;
		node->pass = pass;
		list_move_tail(&node->page_link, &page->nodes);
		vtds_node_sync(node, first, last);
		cond_resched();
	}
}

/**
 * vtds_node_sync_leaves() - bring leaf entries of a table in step
 * @node: node
 * @first: first entry
 * @last: last entry
 *
 * Context: engine->lock held; may sleep.
 * Return: false if that is not enough, for a table, a superpage, or want of
 * memory: vtds_node_sync() is needed.
 */
bool vtds_node_sync_leaves(struct vtds_node *node, unsigned int first,
			   unsigned int last)
{
	bool done = true;
	unsigned int i;

	mutex_lock(&node->lock);
	for (i = first; i <= last; i++)
		done &= sync_entry(node, i, NULL);
	mutex_unlock(&node->lock);
	return done;
}

/**
 * vtds_node_sync() - bring entries of a table in step by their difference
 * @node: node
 * @first: first entry
 * @last: last entry
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_node_sync(struct vtds_node *node, unsigned int first, unsigned int last)
{
	struct leaf_run run = {};
	unsigned int i;

	vtds_assert_structural(node->domain->engine);
	for (i = first; i <= last; i++)
		sync_entry(node, i, &run);
	run_map(node, &run);
}

static struct vtds_node *node_alloc(struct vtds_domain *domain,
				    struct vtds_node *parent, unsigned int index,
				    const struct vtds_entry *e)
{
	struct vtds_node *node = kmem_cache_zalloc(vtds_node_cache, GFP_KERNEL_ACCOUNT);

	if (!node)
		return NULL;
	node->raw = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!node->raw) {
		kmem_cache_free(vtds_node_cache, node);
		return NULL;
	}
	node->domain = domain;
	node->parent = parent;
	node->parent_index = index;
	node->level = e->next_level;
	node->perm = e->perm;
	node->pass = domain->engine->pass;
	node->iova = parent ? entry_iova(parent, index) : 0;
	mutex_init(&node->lock);
	xa_init_flags(&node->partial, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&node->queue_link);
	return node;
}

static void node_free(struct vtds_node *node)
{
	xa_destroy(&node->partial);
	kfree(node->children);
	free_page((unsigned long)node->raw);
	kmem_cache_free(vtds_node_cache, node);
}

/* Where the refusal to link a table is reported: at the entry that links it. */
static void link_reject(struct vtds_domain *domain, struct vtds_node *parent,
			unsigned int index, u64 gpa, enum vtds_reason reason)
{
	const struct vtds_reject reject = {
		.reason = reason,
		.requester_id = domain->requester_id,
		.gpa = gpa,
	};

	if (parent)
		entry_reject(parent, index, gpa, reason);
	else
		vtds_engine_reject(domain->engine, &reject);
}

/**
 * vtds_node_link() - shadow a guest table and all that it leads to
 * @domain: domain
 * @parent: node of the table that refers to it, NULL for the top table
 * @index: entry that does
 * @entry: that entry, decoded
 *
 * Bounded by the limits on tables and mappings: a table may refer to itself.
 *
 * Context: engine->lock write-held; may sleep.
 * Return: the node, or ERR_PTR() after the refusal was reported.
 */
struct vtds_node *vtds_node_link(struct vtds_domain *domain,
				 struct vtds_node *parent, unsigned int index,
				 const struct vtds_entry *entry)
{
	struct vtds_engine *engine = domain->engine;
	enum vtds_reason reason;
	struct vtds_page *page;
	struct vtds_node *node;
	int err;

	vtds_assert_structural(engine);
	if (atomic64_inc_return(&engine->counters.tables) > engine->limits.tables) {
		err = -EDQUOT;
		reason = VTDS_REASON_LIMIT;
		goto reject;
	}
	node = node_alloc(domain, parent, index, entry);
	if (!node) {
		err = -ENOMEM;
		reason = VTDS_REASON_HOST;
		goto reject;
	}
	page = vtds_page_get(engine, entry->gpa >> VTDS_TABLE_SHIFT);
	if (IS_ERR(page)) {
		err = PTR_ERR(page);
		reason = err == -ENXIO ? VTDS_REASON_TABLE_ACCESS : pin_reason(err);
		node_free(node);
		goto reject;
	}
	node->page = page;
	list_add_tail(&node->page_link, &page->nodes);
	atomic64_inc(&engine->counters.links);
	trace_vtds_link(domain, node->iova, entry->gpa, node->level, true);

	vtds_node_sync(node, 0, VTDS_TABLE_ENTRIES - 1);
	cond_resched();
	return node;

reject:
	atomic64_dec(&engine->counters.tables);
	link_reject(domain, parent, index, entry->gpa, reason);
	return ERR_PTR(err);
}

/* Return: whether there was anything to unmap. */
static bool tree_unmap(struct vtds_node *node, struct iommu_iotlb_gather *gather)
{
	unsigned int i, first, end;
	bool any = false;

	for_each_set_bitrange(first, end, node->applied, VTDS_TABLE_ENTRIES) {
		entries_unmap(node, first, end, gather);
		any = true;
	}
	for (i = 0; node->children && i < VTDS_TABLE_ENTRIES; i++)
		if (node->children[i])
			any |= tree_unmap(node->children[i], gather);
	cond_resched();
	return any;
}

static void tree_free(struct vtds_node *node)
{
	struct vtds_domain *domain = node->domain;
	struct vtds_engine *engine = domain->engine;
	unsigned int i, first, end;

	for (i = 0; node->children && i < VTDS_TABLE_ENTRIES; i++)
		if (node->children[i])
			tree_free(node->children[i]);
	for_each_set_bitrange(first, end, node->applied, VTDS_TABLE_ENTRIES)
		entries_release(node, first, end);
	for_each_set_bit(i, node->queued, VTDS_TABLE_ENTRIES)
		entry_unqueue(node, i);

	spin_lock(&domain->queue_lock);
	list_del(&node->queue_link);
	spin_unlock(&domain->queue_lock);
	list_del(&node->page_link);
	trace_vtds_link(domain, node->iova, node->page->gfn << VTDS_TABLE_SHIFT,
			node->level, false);
	vtds_page_put(engine, node->page);
	node_free(node);
	atomic64_dec(&engine->counters.tables);
	atomic64_inc(&engine->counters.unlinks);
	cond_resched();
}

/**
 * vtds_node_unlink() - undo vtds_node_link(), with all below
 * @node: node
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_node_unlink(struct vtds_node *node)
{
	struct vtds_domain *domain = node->domain;
	struct vtds_host *host = domain->host;
	struct iommu_iotlb_gather gather;

	vtds_assert_structural(domain->engine);
	host->ops->gather(host, node->iova, node_last_iova(node), &gather);
	if (tree_unmap(node, &gather))
		host_sync(domain, &gather);

	if (node->parent)
		node->parent->children[node->parent_index] = NULL;
	tree_free(node);
}

/**
 * vtds_node_retry() - try again what could not be applied, with all below
 * @node: node
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_node_retry(struct vtds_node *node)
{
	unsigned int i;

	vtds_assert_structural(node->domain->engine);
	for (i = 0; i < VTDS_TABLE_ENTRIES; i++) {
		if (entry_child(node, i)) {
			vtds_node_retry(node->children[i]);
			continue;
		}
		if (node->level > 1 && test_bit(i, node->applied) &&
		    xa_load(&node->partial, i))
			entry_remove_now(node, i);
		if (!test_bit(i, node->applied))
			node->raw[i] = 0;
	}
	vtds_node_sync(node, 0, VTDS_TABLE_ENTRIES - 1);
	cond_resched();
}

/**
 * vtds_node_drop_range() - forget guest memory that goes away, with all below
 * @node: node; not itself in the range
 * @gfn: first guest frame
 * @last_gfn: last guest frame
 *
 * Leaves that map any of it are queued: vtds_domain_flush() must follow.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_node_drop_range(struct vtds_node *node, u64 gfn, u64 last_gfn)
{
	u64 npages = vtds_level_span(node->level) >> PAGE_SHIFT;
	unsigned int i;

	for (i = 0; i < VTDS_TABLE_ENTRIES; i++) {
		struct vtds_node *child = entry_child(node, i);

		if (child && child->page->gone) {
			vtds_node_unlink(child);
			node->raw[i] = 0;
		} else if (child) {
			vtds_node_drop_range(child, gfn, last_gfn);
		} else if (test_bit(i, node->applied)) {
			u64 leaf = entry_decode(node, i, node->raw[i]).gpa >> PAGE_SHIFT;

			if (leaf <= last_gfn && leaf + npages - 1 >= gfn)
				entry_queue(node, i);
		}
	}
	cond_resched();
}
