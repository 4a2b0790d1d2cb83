// SPDX-License-Identifier: GPL-2.0
/* The engine's entrances: writes, flushes, changes of guest memory, lookups. */
#include <linux/err.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "engine.h"
#include "trace.h"

/**
 * vtds_engine_init() - initialize an engine
 * @engine: zeroed memory; the owner sets fmt and limits before the first domain
 * @guest: guest memory
 * @client: owner
 */
void vtds_engine_init(struct vtds_engine *engine,
		      const struct vtds_guest_ops *guest,
		      const struct vtds_engine_client *client)
{
	init_rwsem(&engine->lock);
	xa_init_flags(&engine->pages, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&engine->domains);
	engine->guest = guest;
	engine->client = client;
}

/**
 * vtds_engine_fini() - undo vtds_engine_init()
 * @engine: engine without domains and watches
 */
void vtds_engine_fini(struct vtds_engine *engine)
{
	WARN_ON(!list_empty(&engine->domains));
	WARN_ON(!xa_empty(&engine->pages));
	xa_destroy(&engine->pages);
}

/**
 * vtds_engine_reject() - count and report a refusal
 * @engine: engine
 * @reject: what and why
 *
 * Context: engine->lock held.
 */
void vtds_engine_reject(struct vtds_engine *engine, const struct vtds_reject *reject)
{
	atomic64_inc(&engine->counters.rejects[reject->reason]);
	trace_vtds_reject(reject);
	engine->client->report(engine, reject);
}

/**
 * enum pass - what a write takes
 * @PASS_LEAVES: it was only leaves, and is done
 * @PASS_STRUCTURE: a pass with engine->lock held for writing
 * @PASS_LINKS: the same, and other vCPUs may be using what it links
 */
enum pass {
	PASS_LEAVES,
	PASS_STRUCTURE,
	PASS_LINKS,
};

static unsigned int first_entry(u64 gpa)
{
	return (gpa & (BIT(VTDS_TABLE_SHIFT) - 1)) / sizeof(u64);
}

static unsigned int last_entry(u64 gpa, unsigned int bytes)
{
	unsigned int offset = gpa & (BIT(VTDS_TABLE_SHIFT) - 1);

	return min_t(unsigned int, (offset + bytes - 1) / sizeof(u64),
		     VTDS_TABLE_ENTRIES - 1);
}

/* With engine->lock read-held. Inlined, as it is most of what most writes take. */
static __always_inline enum pass write_leaves(struct vtds_engine *engine, u64 gpa,
					      unsigned int bytes)
{
	struct vtds_page *page = vtds_page_find(engine, gpa >> VTDS_TABLE_SHIFT);
	unsigned int first = first_entry(gpa), last = last_entry(gpa, bytes);
	enum pass pass = PASS_LEAVES;
	struct vtds_node *node;

	if (!page)
		return pass;
	atomic64_inc(&engine->counters.writes);
	if (page->watches)
		pass = PASS_LINKS;
	list_for_each_entry(node, &page->nodes, page_link) {
		if (vtds_node_sync_leaves(node, first, last))
			continue;
		pass = max(pass, vtds_node_links(node, first, last) ?
			   PASS_LINKS : PASS_STRUCTURE);
	}
	return pass;
}

/* With engine->lock write-held. */
static void write_all(struct vtds_engine *engine, u64 gpa, unsigned int bytes)
{
	u64 gfn = gpa >> VTDS_TABLE_SHIFT;
	struct vtds_page *page;

	atomic64_inc(&engine->counters.writes_structural);
	engine->refusals = 0;
	vtds_page_sync(engine, gfn, first_entry(gpa), last_entry(gpa, bytes));
	page = vtds_page_find(engine, gfn);
	if (page && page->watches)
		engine->client->root_written(engine, gpa, bytes);
}

/* If there may be links where the guest wrote. Return: as client->gate_close(). */
static int gate_close(struct vtds_engine *engine, u64 gpa)
{
	const void *links = vtds_page_links(engine, gpa >> VTDS_TABLE_SHIFT);

	return links ? engine->client->gate_close(engine, links) : 0;
}

/* More than leaves. @gated: the gate is closed already; it is opened. */
static noinline void write_structure(struct vtds_engine *engine, u64 gpa,
				     unsigned int bytes, enum pass pass, int gated)
{
	if (pass == PASS_LINKS && !gated)
		gated = gate_close(engine, gpa);
	if (gated < 0)
		return;
	if (!down_write_killable(&engine->lock)) {
		write_all(engine, gpa, bytes);
		up_write(&engine->lock);
	}
	if (gated)
		engine->client->gate_open(engine);
}

/* Who waits for the lock takes longer, and others may use what he links meanwhile. */
static noinline void write_later(struct vtds_engine *engine, u64 gpa, unsigned int bytes)
{
	enum pass pass = PASS_LEAVES;
	int gated;

	gated = gate_close(engine, gpa);
	if (gated < 0)
		return;
	if (!down_read_killable(&engine->lock)) {
		pass = write_leaves(engine, gpa, bytes);
		up_read(&engine->lock);
	}
	if (pass != PASS_LEAVES)
		write_structure(engine, gpa, bytes, pass, gated);
	else if (gated)
		engine->client->gate_open(engine);
}

/**
 * vtds_engine_write() - the guest wrote to its memory
 * @engine: engine
 * @gpa: first byte written
 * @bytes: number of bytes, within one page
 *
 * What was written is read from guest memory, whatever its size and alignment:
 * every entry that the write touches is compared with its shadow.
 *
 * Context: no engine lock held; may sleep. When it returns the host domains
 * show the new entries, unless the process is being killed.
 */
void vtds_engine_write(struct vtds_engine *engine, u64 gpa, unsigned int bytes)
{
	enum pass pass;

	if (down_read_trylock(&engine->lock)) {
		pass = write_leaves(engine, gpa, bytes);
		up_read(&engine->lock);
		if (pass != PASS_LEAVES)
			write_structure(engine, gpa, bytes, pass, 0);
	} else {
		write_later(engine, gpa, bytes);
	}
	if (atomic_read(&engine->counters.queued) >= engine->limits.queue)
		vtds_engine_flush(engine);
}

/**
 * vtds_engine_flush() - take away everything that the guest removed
 * @engine: engine
 *
 * Context: no engine lock held; may sleep. When it returns 0, no DMA reaches
 * through an entry removed before the call, and its pages are unpinned.
 * Return: 0, or -EINTR if the process is being killed.
 */
int vtds_engine_flush(struct vtds_engine *engine)
{
	struct vtds_domain *domain;

	/* A removal that is not yet counted belongs to a write not yet retired. */
	if (!atomic_read(&engine->counters.queued))
		return 0;

	if (down_write_killable(&engine->lock))
		return -EINTR;
	list_for_each_entry(domain, &engine->domains, link)
		vtds_domain_flush(domain);
	up_write(&engine->lock);
	return 0;
}

/**
 * vtds_engine_retry() - try again what could not be applied
 * @engine: engine
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_engine_retry(struct vtds_engine *engine)
{
	struct vtds_domain *domain;

	vtds_assert_structural(engine);
	engine->refusals = 0;
	list_for_each_entry(domain, &engine->domains, link)
		if (domain->root)
			vtds_node_retry(domain->root);
}

/**
 * vtds_engine_drop_range() - guest memory goes away
 * @engine: engine
 * @gfn: first guest frame
 * @last_gfn: last guest frame
 *
 * Unmaps and unpins every page of the range, and forgets every table in it that
 * is really gone. A domain whose top table is, is left without a tree, not to be
 * found any more; watched pages are left to their owner, who must let go of them and
 * call vtds_engine_retry() before engine->lock is released.
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_engine_drop_range(struct vtds_engine *engine, u64 gfn, u64 last_gfn)
{
	struct vtds_domain *domain;
	struct vtds_page *page;
	unsigned long index;

	vtds_assert_structural(engine);
	xa_for_each_range(&engine->pages, index, page, gfn, last_gfn)
		page->gone = !engine->guest->present(engine, index);

	list_for_each_entry(domain, &engine->domains, link) {
		if (!domain->root)
			continue;
		if (domain->root->page->gone) {
			vtds_node_unlink(domain->root);
			domain->root = NULL;
			continue;
		}
		vtds_node_drop_range(domain->root, gfn, last_gfn);
		vtds_domain_flush(domain);
	}
}

/**
 * vtds_domain_find() - find a shadow of the same guest tables
 * @engine: engine
 * @root_gfn: guest frame of the top table
 * @levels: its level
 * @perm: access for the whole tree
 * @after: continue after this one, or NULL
 *
 * Context: engine->lock write-held. Return: a domain, or NULL.
 */
struct vtds_domain *vtds_domain_find(struct vtds_engine *engine, u64 root_gfn,
				     u8 levels, u8 perm, struct vtds_domain *after)
{
	struct vtds_domain *d = after ?
		after : list_entry(&engine->domains, struct vtds_domain, link);

	vtds_assert_structural(engine);
	list_for_each_entry_continue(d, &engine->domains, link)
		if (d->root && d->root_gfn == root_gfn && d->levels == levels &&
		    d->perm == perm)
			return d;
	return NULL;
}

/**
 * vtds_domain_alloc() - shadow the guest tables below a root
 * @engine: engine
 * @host: an empty host domain
 * @root_gfn: guest frame of the top table
 * @levels: its level
 * @perm: access for the whole tree
 * @requester_id: an endpoint to name in events
 *
 * When it returns, @host maps what the guest's tables map.
 *
 * Context: engine->lock write-held; may sleep.
 * Return: the domain or ERR_PTR(); the refusal has been reported.
 */
struct vtds_domain *vtds_domain_alloc(struct vtds_engine *engine,
				      struct vtds_host *host, u64 root_gfn,
				      u8 levels, u8 perm, u16 requester_id)
{
	const struct vtds_entry top = {
		.type = VTDS_ENTRY_TABLE,
		.perm = perm,
		.next_level = levels,
		.gpa = root_gfn << VTDS_TABLE_SHIFT,
	};
	struct vtds_domain *domain;
	struct vtds_node *root;

	vtds_assert_structural(engine);
	engine->refusals = 0;
	domain = kzalloc(sizeof(*domain), GFP_KERNEL_ACCOUNT);
	if (!domain)
		return ERR_PTR(-ENOMEM);
	domain->engine = engine;
	domain->host = host;
	domain->root_gfn = root_gfn;
	domain->levels = levels;
	domain->perm = perm;
	domain->requester_id = requester_id;
	spin_lock_init(&domain->queue_lock);
	INIT_LIST_HEAD(&domain->queue);

	root = vtds_node_link(domain, NULL, 0, &top);
	if (IS_ERR(root)) {
		kfree(domain);
		return ERR_CAST(root);
	}
	domain->root = root;
	list_add_tail(&domain->link, &engine->domains);
	return domain;
}

/**
 * vtds_domain_free() - unmap everything and free the shadow
 * @domain: domain; its host domain is left empty, for the caller to free
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_domain_free(struct vtds_domain *domain)
{
	vtds_assert_structural(domain->engine);
	if (domain->root)
		vtds_node_unlink(domain->root);
	list_del(&domain->link);
	kfree(domain);
}

/**
 * vtds_domain_lookup() - what a device in this domain reaches
 * @domain: domain
 * @iova: address
 * @result: out
 *
 * Context: engine->lock write-held, as the host's tables may be freed else; may
 * sleep.
 */
void vtds_domain_lookup(struct vtds_domain *domain, u64 iova,
			struct vtds_lookup *result)
{
	struct vtds_node *node = domain->root;
	struct vtds_entry e;
	unsigned long *pages;
	unsigned int i;

	vtds_assert_structural(domain->engine);
	memset(result, 0, sizeof(*result));
	result->hpa = domain->host->ops->lookup(domain->host, iova);

	for (;;) {
		if (!node || (iova - node->iova) >> vtds_level_shift(node->level) >=
			     VTDS_TABLE_ENTRIES)
			return;
		i = vtds_level_index(node->level, iova);
		if (!node->children || !node->children[i])
			break;
		node = node->children[i];
	}

	if (test_bit(i, node->applied)) {
		u64 offset = iova & (vtds_level_span(node->level) - 1);

		e = vtds_fmt_decode(&domain->engine->fmt, node->level, i, node->raw[i]);
		pages = xa_load(&node->partial, i);
		if (!pages || test_bit(offset >> VTDS_TABLE_SHIFT, pages)) {
			result->perm = e.perm & node->perm;
			result->queued = test_bit(i, node->queued);
			result->gpa = e.gpa + offset;
			result->leaf_bytes = vtds_level_span(node->level);
		}
	}
}
