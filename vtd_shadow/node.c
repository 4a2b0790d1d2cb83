// SPDX-License-Identifier: GPL-2.0
/*
 * Nodes: the shadow of one guest table at one place. Finding the difference
 * between what the guest's table says and what is in the host.
 */
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "node.h"
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

static struct vtds_node *entry_child(const struct vtds_node *node, unsigned int i)
{
	return node->children ? node->children[i] : NULL;
}

static void entry_link(struct vtds_node *node, unsigned int i,
		       const struct vtds_entry *e)
{
	struct vtds_node *child;

	vtds_assert_structural(node->domain->engine);
	if (!node->children)
		node->children = kcalloc(VTDS_TABLE_ENTRIES, sizeof(*node->children),
					 GFP_KERNEL_ACCOUNT);
	if (!node->children) {
		vtds_entry_reject(node, i, e->gpa, VTDS_REASON_HOST);
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
	struct vtds_entry old;

	old = vtds_entry_decode(node, i, node->raw[i]);
	if (vtds_entry_same(&old, new)) {
		/* The guest put it back, or changed what does not matter. */
		node->raw[i] = raw;
		if (test_bit(i, node->queued)) {
			vtds_leaf_unqueue(node, i);
			atomic64_inc(&node->domain->engine->counters.remaps);
		}
		return true;
	}
	if (child)
		vtds_node_unlink(child);
	else
		vtds_leaf_remove(node, i);
	return false;
}

/*
 * Add a leaf to a run. One that does not fit, or a full one, is mapped before. A
 * run ends one short of the table: as a whole the host could map it with one page,
 * which could not be unmapped entry by entry.
 */
static void run_add(struct vtds_node *node, struct vtds_run *run, unsigned int i,
		    const struct vtds_entry *e)
{
	if (run->n && (i != run->first + run->n || run->n == VTDS_TABLE_ENTRIES - 1 ||
		       e->gpa != run->gpa + ((u64)run->n << PAGE_SHIFT) ||
		       e->perm != run->perm))
		vtds_run_map(node, run);
	if (!run->n) {
		run->first = i;
		run->gpa = e->gpa;
		run->perm = e->perm;
	}
	run->n++;
}

/*
 * Bring one entry in step. With the lock held for writing there is a @run, which
 * leaves are collected in. Without one only 4 KiB leaves are dealt with, and
 * false tells that more is needed: the entry is then as if not yet seen. Inlined,
 * so that the way of a trapped write has nothing of the other.
 */
static __always_inline bool sync_entry(struct vtds_node *node, unsigned int i,
				       struct vtds_run *run)
{
	u64 raw = le64_to_cpu(READ_ONCE(node->page->entries[i]));
	struct vtds_node *child = entry_child(node, i);
	struct vtds_entry new;

	if (raw == node->raw[i] && !test_bit(i, node->queued))
		return true;

	new = vtds_entry_decode(node, i, raw);
	if (!run && (child || new.type == VTDS_ENTRY_TABLE ||
		     (new.type == VTDS_ENTRY_LEAF && node->level > 1)))
		return false;
	if (!child && new.type == VTDS_ENTRY_NONE && test_bit(i, node->applied)) {
		vtds_leaf_queue(node, i);
		return true;
	}
	if ((child || test_bit(i, node->applied)) && sync_old(node, i, raw, &new))
		return true;
	/* What the guest removed is gone by now in any case: only adding can wait. */
	if (run && vtds_out_of_patience(node->domain->engine) &&
	    (new.type == VTDS_ENTRY_LEAF || new.type == VTDS_ENTRY_TABLE)) {
		node->raw[i] = 0;
		if (!run->skipped++)
			vtds_entry_reject(node, i, new.gpa, VTDS_REASON_LIMIT);
		return true;
	}

	switch (new.type) {
	case VTDS_ENTRY_NONE:
		break;
	case VTDS_ENTRY_LEAF:
		if (node->level > 1)
			vtds_leaf_map_superpage(node, i, &new);
		else if (run)
			run_add(node, run, i, &new);
		else if (!vtds_leaf_map_page(node, i, &new))
			return false;
		break;
	case VTDS_ENTRY_TABLE:
		entry_link(node, i, &new);
		break;
	case VTDS_ENTRY_BAD:
		vtds_entry_reject(node, i, new.gpa, VTDS_REASON_RESERVED_BITS);
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
	while ((page = vtds_page_find(engine, gfn))) {
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

	/* Whoever has it may wait for a page; if we are killed nothing matters. */
	might_lock(&node->lock);
	if (!mutex_trylock(&node->lock) && mutex_lock_killable(&node->lock))
		return true;
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
	struct vtds_run run = {};
	unsigned int i;

	vtds_assert_structural(node->domain->engine);
	for (i = first; i <= last; i++)
		sync_entry(node, i, &run);
	vtds_run_map(node, &run);
}

/**
 * vtds_node_links() - whether entries of a table refer to other tables
 * @node: node
 * @first: first entry
 * @last: last entry
 *
 * Context: engine->lock held.
 */
bool vtds_node_links(struct vtds_node *node, unsigned int first, unsigned int last)
{
	unsigned int i;

	for (i = first; i <= last; i++) {
		u64 raw = le64_to_cpu(READ_ONCE(node->page->entries[i]));

		if (vtds_entry_decode(node, i, raw).type == VTDS_ENTRY_TABLE)
			return true;
	}
	return false;
}

static struct vtds_node *node_alloc(struct vtds_domain *domain,
				    struct vtds_node *parent, unsigned int index,
				    const struct vtds_entry *e)
{
	struct vtds_node *node = kmem_cache_zalloc(vtds_node_cache, GFP_KERNEL_ACCOUNT);
	struct vtds_host *host = domain->host;

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
	node->iova = parent ? vtds_entry_iova(parent, index) : 0;
	node->mappable = !host->ops->check(host, node->iova, vtds_node_last_iova(node));
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
		vtds_entry_reject(parent, index, gpa, reason);
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
	page = vtds_page_get(engine, entry->gpa >> VTDS_TABLE_SHIFT,
			     node->level > 1 ? domain->host : NULL);
	if (IS_ERR(page)) {
		err = PTR_ERR(page);
		reason = err == -ENXIO ? VTDS_REASON_TABLE_ACCESS : vtds_pin_reason(err);
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
		vtds_leaves_unmap(node, first, end, gather);
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
		vtds_leaves_release(node, first, end);
	for_each_set_bit(i, node->queued, VTDS_TABLE_ENTRIES)
		vtds_leaf_unqueue(node, i);

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
	host->ops->gather(host, node->iova, vtds_node_last_iova(node), &gather);
	if (tree_unmap(node, &gather))
		vtds_domain_sync(domain, &gather);

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
			vtds_leaf_remove(node, i);
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
			u64 leaf = vtds_entry_decode(node, i, node->raw[i]).gpa >> PAGE_SHIFT;

			if (leaf <= last_gfn && leaf + npages - 1 >= gfn)
				vtds_leaf_queue(node, i);
		}
	}
	cond_resched();
}
