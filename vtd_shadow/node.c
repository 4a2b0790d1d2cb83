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

	vtds_engine_reject(node->domain->engine, &reject);
}

static enum vtds_reason pin_reason(int err)
{
	switch (err) {
	case -ENXIO:
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

static int map_page(struct vtds_node *node, unsigned int i,
		    const struct vtds_entry *e, u64 iova)
{
	struct vtds_domain *domain = node->domain;
	struct vtds_engine *engine = domain->engine;
	u64 gfn = e->gpa >> VTDS_TABLE_SHIFT;
	enum vtds_reason reason;
	u64 pfn;
	int err;

	reason = domain->host->ops->check(domain->host, iova, iova + PAGE_SIZE - 1);
	if (reason)
		goto reject;
	err = engine->guest->pin(engine, gfn, e->perm & VTDS_W, &pfn);
	if (err) {
		reason = pin_reason(err);
		goto reject;
	}
	err = domain->host->ops->map(domain->host, iova, pfn << PAGE_SHIFT,
				     PAGE_SIZE, e->perm);
	if (err) {
		engine->guest->unpin(engine, gfn, e->perm & VTDS_W);
		reason = VTDS_REASON_HOST;
		goto reject;
	}
	return 0;

reject:
	entry_reject(node, i, e->gpa, reason);
	return -EFAULT;
}

/* Unmap a superpage, or the part of it that got mapped, run by run. */
static void unmap_pages(struct vtds_node *node, u64 iova, unsigned long *pages,
			unsigned long npages, struct iommu_iotlb_gather *gather)
{
	struct vtds_host *host = node->domain->host;
	unsigned long first, end;

	for_each_set_bitrange(first, end, pages, npages)
		host->ops->unmap(host, iova + (first << PAGE_SHIFT),
				 (end - first) << PAGE_SHIFT, gather);
}

static void unpin_pages(struct vtds_node *node, u64 gpa, bool write,
			unsigned long *pages, unsigned long npages)
{
	struct vtds_engine *engine = node->domain->engine;
	unsigned long bit;

	for_each_set_bit(bit, pages, npages) {
		engine->guest->unpin(engine, (gpa >> PAGE_SHIFT) + bit, write);
		if (!(bit % VTDS_TABLE_ENTRIES))
			cond_resched();
	}
}

/* A run of pages that are contiguous in the host, not yet mapped. */
struct run {
	u64 page;
	u64 pfn;
	u64 count;
};

static int run_map(struct vtds_node *node, u64 iova, u8 perm, struct run *run,
		   unsigned long *mapped)
{
	struct vtds_host *host = node->domain->host;
	int err;

	if (!run->count)
		return 0;
	err = host->ops->map(host, iova + (run->page << PAGE_SHIFT),
			     run->pfn << PAGE_SHIFT, run->count << PAGE_SHIFT, perm);
	if (!err)
		bitmap_set(mapped, run->page, run->count);
	run->count = 0;
	return err;
}

/**
 * struct superpage - a guest superpage on its way into the host
 * @pinned: pages that are pinned
 * @mapped: pages that are mapped; of them all are pinned
 * @npages: how many 4 KiB pages it has
 * @hole: why the first page that is neither is a hole, 0 if there is none
 * @hole_page: which
 */
struct superpage {
	unsigned long *pinned;
	unsigned long *mapped;
	unsigned long npages;
	enum vtds_reason hole;
	unsigned long hole_page;
};

/*
 * Pin and map page by page, joining what is contiguous in the host. Pages that
 * are not RAM, or in a reserved range, are holes: hardware would not stop DMA
 * to the rest of such a superpage either.
 */
static int superpage_map(struct vtds_node *node, const struct vtds_entry *e,
			 u64 iova, struct superpage *sp)
{
	struct vtds_host *host = node->domain->host;
	struct vtds_engine *engine = node->domain->engine;
	bool check = host->ops->check(host, iova, iova + (sp->npages << PAGE_SHIFT) - 1);
	struct run run = { .count = 0 };
	unsigned long page;
	int err;

	for (page = 0; page < sp->npages; page++) {
		u64 page_iova = iova + (page << PAGE_SHIFT);
		enum vtds_reason reason = 0;
		u64 pfn = 0;

		if (!(page % VTDS_TABLE_ENTRIES)) {
			if (fatal_signal_pending(current))
				return -EINTR;
			cond_resched();
		}
		if (check)
			reason = host->ops->check(host, page_iova,
						  page_iova + PAGE_SIZE - 1);
		if (!reason) {
			err = engine->guest->pin(engine, (e->gpa >> PAGE_SHIFT) + page,
						 e->perm & VTDS_W, &pfn);
			if (err && err != -ENXIO && err != -EROFS)
				return err;
			if (err)
				reason = pin_reason(err);
			else
				__set_bit(page, sp->pinned);
		}
		if (reason && !sp->hole) {
			sp->hole = reason;
			sp->hole_page = page;
		}
		if (run.count && (reason || pfn != run.pfn + run.count)) {
			if (run_map(node, iova, e->perm, &run, sp->mapped))
				return -EIO;
		}
		if (reason)
			continue;
		if (!run.count) {
			run.page = page;
			run.pfn = pfn;
		}
		run.count++;
	}
	return run_map(node, iova, e->perm, &run, sp->mapped) ? -EIO : 0;
}

/* Take back a superpage that could not be mapped as far as it should be. */
static void superpage_undo(struct vtds_node *node, const struct vtds_entry *e,
			   u64 iova, struct superpage *sp)
{
	struct vtds_host *host = node->domain->host;
	struct iommu_iotlb_gather gather;

	host->ops->gather(host, iova, iova + (sp->npages << PAGE_SHIFT) - 1, &gather);
	unmap_pages(node, iova, sp->mapped, sp->npages, &gather);
	host->ops->sync(host, &gather);
	unpin_pages(node, e->gpa, e->perm & VTDS_W, sp->pinned, sp->npages);
}

static int map_superpage(struct vtds_node *node, unsigned int i,
			 const struct vtds_entry *e, u64 iova)
{
	struct superpage sp = {
		.npages = vtds_level_span(node->level) >> PAGE_SHIFT,
	};
	enum vtds_reason reason;
	int err = -ENOMEM;

	sp.pinned = kvcalloc(BITS_TO_LONGS(sp.npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	sp.mapped = kvcalloc(BITS_TO_LONGS(sp.npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!sp.pinned || !sp.mapped)
		goto reject;

	err = superpage_map(node, e, iova, &sp);
	if (!err && sp.hole && bitmap_empty(sp.mapped, sp.npages))
		goto reject;
	if (!err && sp.hole)
		err = xa_err(xa_store(&node->partial, i, sp.mapped, GFP_KERNEL_ACCOUNT));
	if (err) {
		superpage_undo(node, e, iova, &sp);
		goto reject;
	}
	if (sp.hole) {
		entry_reject(node, i, e->gpa + (sp.hole_page << PAGE_SHIFT), sp.hole);
		sp.mapped = NULL;	/* now in node->partial */
	}
	kvfree(sp.pinned);
	kvfree(sp.mapped);
	return 0;

reject:
	reason = !err ? sp.hole : err == -EIO ? VTDS_REASON_HOST : pin_reason(err);
	entry_reject(node, i, e->gpa, reason);
	kvfree(sp.pinned);
	kvfree(sp.mapped);
	return -EFAULT;
}

static void entry_map(struct vtds_node *node, unsigned int i,
		      const struct vtds_entry *e)
{
	struct vtds_engine *engine = node->domain->engine;
	u64 iova = entry_iova(node, i);
	int err;

	assert_entries(node);
	if (atomic64_inc_return(&engine->counters.mappings) > engine->limits.mappings) {
		entry_reject(node, i, e->gpa, VTDS_REASON_LIMIT);
		err = -EDQUOT;
	} else if (node->level == 1) {
		err = map_page(node, i, e, iova);
	} else {
		err = map_superpage(node, i, e, iova);
	}
	if (err) {
		atomic64_dec(&engine->counters.mappings);
		return;
	}
	__set_bit(i, node->applied);
	atomic64_inc(&engine->counters.maps);
	trace_vtds_map(node->domain, iova, e->gpa, node->level, e->perm);
}

/* ---- leaf entries: unmapping, in two steps around the host's IOTLB sync ---- */

/* First step, for [first, end), all applied: clear the host entries. */
static void entries_unmap(struct vtds_node *node, unsigned int first,
			  unsigned int end, struct iommu_iotlb_gather *gather)
{
	struct vtds_host *host = node->domain->host;
	unsigned int shift = vtds_level_shift(node->level);
	unsigned int i, start = first;

	/* Whole superpages go in runs like pages do; those with holes go alone. */
	for (i = first; i < end; i++) {
		unsigned long *pages = node->level == 1 ? NULL :
				       xa_load(&node->partial, i);

		if (!pages)
			continue;
		if (i > start)
			host->ops->unmap(host, entry_iova(node, start),
					 (u64)(i - start) << shift, gather);
		unmap_pages(node, entry_iova(node, i), pages,
			    1UL << (shift - PAGE_SHIFT), gather);
		start = i + 1;
	}
	if (end > start)
		host->ops->unmap(host, entry_iova(node, start),
				 (u64)(end - start) << shift, gather);
}

/* Second step, after the sync: let the pages go. */
static void entry_release(struct vtds_node *node, unsigned int i)
{
	struct vtds_engine *engine = node->domain->engine;
	struct vtds_entry e = entry_decode(node, i, node->raw[i]);
	unsigned long npages = vtds_level_span(node->level) >> PAGE_SHIFT;
	unsigned long *pages = node->level == 1 ? NULL : xa_erase(&node->partial, i);
	u64 gfn = e.gpa >> PAGE_SHIFT;
	unsigned long page;

	assert_entries(node);
	if (pages) {
		unpin_pages(node, e.gpa, e.perm & VTDS_W, pages, npages);
		kvfree(pages);
	} else {
		for (page = 0; page < npages; page++) {
			engine->guest->unpin(engine, gfn + page, e.perm & VTDS_W);
			if (page && !(page % VTDS_TABLE_ENTRIES))
				cond_resched();
		}
	}
	__clear_bit(i, node->applied);
	node->raw[i] = 0;
	atomic64_dec(&engine->counters.mappings);
	atomic64_inc(&engine->counters.unmaps);
	trace_vtds_unmap(node->domain, entry_iova(node, i), e.gpa, node->level);
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
	/* Only now: vtds_engine_flush() may look at the count without the lock. */
	entry_unqueue(node, i);
	entry_release(node, i);
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
		for_each_set_bit(first, node->queued, VTDS_TABLE_ENTRIES) {
			entry_release(node, first);
			n++;
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
 * Bring one entry in step. Without @structural, tables stay as they are and
 * false tells that one is concerned.
 */
static bool sync_entry(struct vtds_node *node, unsigned int i, bool structural)
{
	u64 raw = le64_to_cpu(READ_ONCE(node->page->entries[i]));
	struct vtds_node *child = entry_child(node, i);
	struct vtds_entry old, new;

	if (raw == node->raw[i] && !test_bit(i, node->queued))
		return true;

	new = entry_decode(node, i, raw);
	if (!structural && (child || new.type == VTDS_ENTRY_TABLE))
		return false;

	if (child || test_bit(i, node->applied)) {
		old = entry_decode(node, i, node->raw[i]);
		if (vtds_entry_same(&old, &new)) {
			/* The guest put it back, or changed what does not matter. */
			node->raw[i] = raw;
			if (test_bit(i, node->queued)) {
				entry_unqueue(node, i);
				atomic64_inc(&node->domain->engine->counters.remaps);
			}
			return true;
		}
		if (!child && new.type == VTDS_ENTRY_NONE) {
			entry_queue(node, i);
			return true;
		}
		if (child)
			vtds_node_unlink(child);
		else
			entry_remove_now(node, i);
	}

	node->raw[i] = raw;
	if (new.type == VTDS_ENTRY_LEAF)
		entry_map(node, i, &new);
	else if (new.type == VTDS_ENTRY_TABLE)
		entry_link(node, i, &new);
	else if (new.type == VTDS_ENTRY_BAD)
		entry_reject(node, i, new.gpa, VTDS_REASON_RESERVED_BITS);
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
 * Return: false if an entry links or linked a table: vtds_node_sync() is needed.
 */
bool vtds_node_sync_leaves(struct vtds_node *node, unsigned int first,
			   unsigned int last)
{
	bool done = true;
	unsigned int i;

	mutex_lock(&node->lock);
	for (i = first; i <= last; i++)
		done &= sync_entry(node, i, false);
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
	unsigned int i;

	vtds_assert_structural(node->domain->engine);
	for (i = first; i <= last; i++)
		sync_entry(node, i, true);
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
	if (fatal_signal_pending(current))
		return ERR_PTR(-EINTR);
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
	unsigned int i;

	for (i = 0; node->children && i < VTDS_TABLE_ENTRIES; i++)
		if (node->children[i])
			tree_free(node->children[i]);
	for_each_set_bit(i, node->queued, VTDS_TABLE_ENTRIES)
		entry_unqueue(node, i);
	for_each_set_bit(i, node->applied, VTDS_TABLE_ENTRIES)
		entry_release(node, i);

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
		if (test_bit(i, node->applied) && xa_load(&node->partial, i))
			entry_remove_now(node, i);
		if (!test_bit(i, node->applied))
			node->raw[i] = 0;
		sync_entry(node, i, true);
	}
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
