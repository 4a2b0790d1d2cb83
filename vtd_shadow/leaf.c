// SPDX-License-Identifier: GPL-2.0
/*
 * Leaf entries: mapping in the host what the guest maps, the queue of what the
 * guest has removed, and unmapping it.
 */
#include <linux/bitmap.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "node.h"
#include "trace.h"

/**
 * vtds_entry_reject() - refuse an entry: count and report it
 * @node: node
 * @i: index of the entry
 * @gpa: what it refers to
 * @reason: why
 *
 * Context: engine->lock held.
 */
void vtds_entry_reject(struct vtds_node *node, unsigned int i, u64 gpa,
		       enum vtds_reason reason)
{
	const struct vtds_reject reject = {
		.reason = reason,
		.requester_id = node->domain->requester_id,
		.level = node->level,
		.iova = vtds_entry_iova(node, i),
		.gpa = gpa,
	};

	node->domain->engine->refusals++;
	vtds_engine_reject(node->domain->engine, &reject);
}

/**
 * vtds_pin_reason() - what to report for a pin that failed
 * @err: the error that guest->pin() gave
 */
enum vtds_reason vtds_pin_reason(int err)
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

/* ---- mapping ---- */

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
static unsigned int check_pages(struct vtds_node *node, u64 iova, unsigned int n,
				enum vtds_reason *reason)
{
	struct vtds_host *host = node->domain->host;
	unsigned int i;

	if (node->mappable)
		return n;
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
	unsigned int pinned, mapped, charged;
	int err = 0;

	n = check_pages(node, iova, n, reason);
	if (!n)
		return 0;
	charged = charge_pages(engine, n) ? n : charge_pages(engine, 1);
	if (!charged) {
		*reason = VTDS_REASON_LIMIT;
		return 0;
	}
	pinned = engine->guest->pin(engine, gpa >> PAGE_SHIFT, charged, perm & VTDS_W,
				    pfns, &err);
	mapped = map_pinned(node->domain->host, iova, pinned, perm, pfns);
	if (mapped < pinned) {
		engine->guest->unpin(engine, (gpa >> PAGE_SHIFT) + mapped,
				     pinned - mapped, perm & VTDS_W);
		*reason = VTDS_REASON_HOST;
	} else if (pinned < charged) {
		*reason = vtds_pin_reason(err);
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

/* Inlined, as most often it is a single one. */
static __always_inline void entries_applied(struct vtds_node *node, unsigned int first,
					    unsigned int n, u64 gpa, u8 perm)
{
	struct vtds_counters *c = &node->domain->engine->counters;
	u64 span = vtds_level_span(node->level);
	unsigned int i;

	vtds_assert_entries(node);
	if (n == 1)
		__set_bit(first, node->applied);
	else
		bitmap_set(node->applied, first, n);
	atomic64_add(n, &c->mappings);
	atomic64_add(n, &c->maps);
	if (trace_vtds_map_enabled())
		for (i = 0; i < n; i++)
			trace_vtds_map(node->domain, vtds_entry_iova(node, first + i),
				       gpa + i * span, node->level, perm);
}

/**
 * vtds_run_map() - map the entries of a run, and make it empty
 * @node: node
 * @run: the run
 *
 * What cannot be mapped is reported.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_run_map(struct vtds_node *node, struct vtds_run *run)
{
	enum vtds_reason reason;
	unsigned int done;

	while (run->n) {
		done = map_pages_hard(node, vtds_entry_iova(node, run->first), run->gpa,
				      run->n, run->perm, &reason);
		entries_applied(node, run->first, done, run->gpa, run->perm);
		if (!done) {
			vtds_entry_reject(node, run->first, run->gpa, reason);
			done = 1;
		}
		run->first += done;
		run->n -= done;
		run->gpa += (u64)done << PAGE_SHIFT;
	}
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

		if (vtds_out_of_patience(engine))
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
		engine->refusals += end - first;	/* work for nothing, all the same */
	}
}

/* Larger leaves would take too long; AMD's tables can have them. */
#define SUPERPAGE_MAX_LEVEL	3

/**
 * vtds_leaf_map_superpage() - map a leaf of more than 4 KiB
 * @node: node
 * @i: index of the entry
 * @e: the entry, decoded
 *
 * What cannot be mapped is reported.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_leaf_map_superpage(struct vtds_node *node, unsigned int i,
			     const struct vtds_entry *e)
{
	u64 iova = vtds_entry_iova(node, i);
	struct superpage sp = {};
	enum vtds_reason reason;

	if (node->level > SUPERPAGE_MAX_LEVEL) {
		vtds_entry_reject(node, i, e->gpa, VTDS_REASON_UNSUPPORTED);
		return;
	}
	sp.npages = vtds_level_span(node->level) >> PAGE_SHIFT;
	sp.mapped = kvcalloc(BITS_TO_LONGS(sp.npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!sp.mapped) {
		vtds_entry_reject(node, i, e->gpa, VTDS_REASON_HOST);
		return;
	}

	reason = superpage_map(node, iova, e, &sp);
	if (!reason && sp.hole &&
	    xa_err(xa_store(&node->partial, i, sp.mapped, GFP_KERNEL_ACCOUNT)))
		reason = VTDS_REASON_HOST;
	if (reason) {
		superpage_undo(node, iova, e, &sp);
		vtds_entry_reject(node, i, e->gpa, reason);
	} else {
		entries_applied(node, i, 1, e->gpa, e->perm);
	}
	if (!reason && sp.hole)		/* sp.mapped is now in node->partial */
		vtds_entry_reject(node, i, e->gpa + (sp.hole_page << PAGE_SHIFT), sp.hole);
	else
		kvfree(sp.mapped);
}

/*
 * map_pages() for a single one: no write is trapped more often than the one that
 * comes here. Return: 0, or why not.
 */
static enum vtds_reason map_page(struct vtds_node *node, u64 iova,
				 const struct vtds_entry *e)
{
	struct vtds_engine *engine = node->domain->engine;
	struct vtds_host *host = node->domain->host;
	enum vtds_reason reason;
	u64 pfn;
	int err;

	if (!check_pages(node, iova, 1, &reason))
		return reason;
	if (!charge_pages(engine, 1))
		return VTDS_REASON_LIMIT;
	if (!engine->guest->pin(engine, e->gpa >> PAGE_SHIFT, 1, e->perm & VTDS_W, &pfn,
				&err)) {
		reason = vtds_pin_reason(err);
		goto err_uncharge;
	}
	if (!host->ops->map(host, iova, pfn << PAGE_SHIFT, PAGE_SIZE, e->perm))
		return 0;
	engine->guest->unpin(engine, e->gpa >> PAGE_SHIFT, 1, e->perm & VTDS_W);
	reason = VTDS_REASON_HOST;
err_uncharge:
	atomic64_dec(&engine->counters.mapped_pages);
	return reason;
}

/**
 * vtds_leaf_map_page() - map one 4 KiB leaf
 * @node: node
 * @i: index of the entry
 * @e: the entry, decoded
 *
 * Context: engine->lock and node->lock held; may sleep.
 * Return: whether that is settled, for good or ill.
 */
bool vtds_leaf_map_page(struct vtds_node *node, unsigned int i,
			const struct vtds_entry *e)
{
	enum vtds_reason reason = map_page(node, vtds_entry_iova(node, i), e);

	if (!reason) {
		entries_applied(node, i, 1, e->gpa, e->perm);
		return true;
	}
	if (flush_may_help(node, reason))
		return false;
	vtds_entry_reject(node, i, e->gpa, reason);
	return true;
}

/* ---- unmapping, in two steps around the host's IOTLB sync ---- */

/* Unmap a run, and let others have the processor when it is a long one. */
static void unmap_run(struct vtds_host *host, u64 iova, u64 bytes,
		      struct iommu_iotlb_gather *gather)
{
	for (; bytes > SZ_1G; iova += SZ_1G, bytes -= SZ_1G) {
		host->ops->unmap(host, iova, SZ_1G, gather);
		cond_resched();
	}
	host->ops->unmap(host, iova, bytes, gather);
}

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

/**
 * vtds_leaves_unmap() - first step of unmapping: clear the host's entries
 * @node: node
 * @first: first entry
 * @end: the one after the last; all are applied
 * @gather: what the host will have to synchronize
 *
 * Context: as for vtds_leaf_queue(); may sleep.
 */
void vtds_leaves_unmap(struct vtds_node *node, unsigned int first, unsigned int end,
		       struct iommu_iotlb_gather *gather)
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
			unmap_run(host, vtds_entry_iova(node, start),
				  (u64)(i - start) << shift, gather);
		unmap_partial(node, vtds_entry_iova(node, i), pages,
			      1UL << (shift - PAGE_SHIFT), gather);
		start = i + 1;
	}
	if (end > start)
		unmap_run(host, vtds_entry_iova(node, start), (u64)(end - start) << shift,
			  gather);
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

/**
 * vtds_leaves_release() - second step, after the sync: let the pages go
 * @node: node
 * @first: first entry
 * @end: the one after the last; all are applied
 *
 * Context: as for vtds_leaf_queue(); may sleep.
 */
void vtds_leaves_release(struct vtds_node *node, unsigned int first, unsigned int end)
{
	struct vtds_entry run = {}, e;
	unsigned int i, start = first;

	vtds_assert_entries(node);
	for (i = first; i < end; i++) {
		e = vtds_entry_decode(node, i, node->raw[i]);
		trace_vtds_unmap(node->domain, vtds_entry_iova(node, i), e.gpa, node->level);
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

/**
 * vtds_domain_sync() - synchronize the host's IOTLB
 * @domain: domain
 * @gather: what was unmapped
 *
 * Context: engine->lock held; may sleep.
 */
void vtds_domain_sync(struct vtds_domain *domain, struct iommu_iotlb_gather *gather)
{
	domain->host->ops->sync(domain->host, gather);
	atomic64_inc(&domain->engine->counters.host_flushes);
}

/* ---- the queue of removed entries ---- */

/**
 * vtds_leaf_queue() - the guest removed an applied entry: the next flush takes it
 * @node: node
 * @i: index of the entry
 *
 * Context: engine->lock held, and node->lock or the former for writing.
 */
void vtds_leaf_queue(struct vtds_node *node, unsigned int i)
{
	struct vtds_domain *domain = node->domain;
	struct vtds_engine *engine = domain->engine;

	vtds_assert_entries(node);
	if (__test_and_set_bit(i, node->queued))
		return;
	/* Nobody else adds this node, and none is removed before the flush. */
	if (list_empty(&node->queue_link)) {
		spin_lock(&domain->queue_lock);
		list_add_tail(&node->queue_link, &domain->queue);
		spin_unlock(&domain->queue_lock);
	}
	if (atomic_inc_return(&engine->counters.queued) == 1)
		engine->client->queued(engine);
}

/**
 * vtds_leaf_unqueue() - take an entry off the queue, if it is queued
 * @node: node
 * @i: index of the entry
 *
 * The node stays on the list; a flush does not mind one without queued entries.
 *
 * Context: as for vtds_leaf_queue().
 */
void vtds_leaf_unqueue(struct vtds_node *node, unsigned int i)
{
	vtds_assert_entries(node);
	if (__test_and_clear_bit(i, node->queued))
		atomic_dec(&node->domain->engine->counters.queued);
}

/**
 * vtds_leaf_remove() - unmap an applied entry now
 * @node: node
 * @i: index of the entry
 *
 * Context: as for vtds_leaf_queue(); may sleep.
 */
void vtds_leaf_remove(struct vtds_node *node, unsigned int i)
{
	struct vtds_host *host = node->domain->host;
	struct iommu_iotlb_gather gather;
	u64 iova = vtds_entry_iova(node, i);

	host->ops->gather(host, iova, iova + vtds_level_span(node->level) - 1, &gather);
	vtds_leaves_unmap(node, i, i + 1, &gather);
	vtds_domain_sync(node->domain, &gather);
	vtds_leaves_release(node, i, i + 1);
	/* Only now: vtds_engine_flush() may look at the count without the lock. */
	vtds_leaf_unqueue(node, i);
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
		last = max(last, vtds_node_last_iova(node));
	}
	if (iova > last)
		return;

	host->ops->gather(host, iova, last, &gather);
	list_for_each_entry(node, &domain->queue, queue_link) {
		for_each_set_bitrange(first, end, node->queued, VTDS_TABLE_ENTRIES)
			vtds_leaves_unmap(node, first, end, &gather);
		cond_resched();
	}
	vtds_domain_sync(domain, &gather);

	list_for_each_entry_safe(node, next, &domain->queue, queue_link) {
		for_each_set_bitrange(first, end, node->queued, VTDS_TABLE_ENTRIES) {
			vtds_leaves_release(node, first, end);
			n += end - first;
		}
		bitmap_zero(node->queued, VTDS_TABLE_ENTRIES);
		list_del_init(&node->queue_link);
		cond_resched();
	}
	atomic_sub(n, &domain->engine->counters.queued);
	trace_vtds_flush(domain, iova, last, n);
}
