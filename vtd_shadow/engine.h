/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The engine: keeps trees of shadowed guest tables in step with the guest and
 * the host domains in step with the trees.
 *
 * It knows guest memory and the host IOMMU only through struct vtds_guest_ops
 * and struct vtds_host_ops, so that it can be tested without either.
 *
 * Invariants
 *
 * - A leaf entry is *applied* from the successful map of its span in the host
 *   domain until that span is unmapped, the host IOTLB synchronized and its
 *   pages unpinned. Its raw value is then the guest's value it was mapped from.
 * - An applied entry may be *queued*: the guest removed it, the host mapping is
 *   still there, and the next flush takes it away.
 * - One guest leaf is one host unit: no host page spans two of them, and it is
 *   only ever unmapped as a whole, alone or in a run of whole leaves.
 * - An entry that refers to a table is *linked* while it has a child node.
 * - Anything else is unmapped in the host. That includes entries which could not
 *   be applied: they are reported once and fail closed.
 *
 * Locking, outermost first; Documentation/locking.rst has the whole picture:
 *
 *   engine->lock		rwsem. Write: which nodes, pages, domains and
 *				endpoints exist; flushes. Read: leaf entries;
 *				engine->recent, which any reader may change.
 *     node->lock		mutex, with engine->lock read-held: the entries
 *				of one table. Not needed with it write-held.
 *       domain->queue_lock	spinlock: the list of nodes with queued entries
 */
#ifndef VTDS_ENGINE_H
#define VTDS_ENGINE_H

#include <linux/atomic.h>
#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

#include "fmt/fmt.h"
#include "reason.h"

struct vtds_engine;
struct vtds_node;

/**
 * struct vtds_guest_ops - guest memory, as the engine needs it
 * @track: Trap writes to the page at @gfn and make its contents readable.
 *	When it returns, every later write by a vCPU is reported with
 *	vtds_engine_write() after it was done. Returns the contents, or
 *	ERR_PTR(): -ENXIO not RAM, -EDQUOT, -ENOMEM.
 * @untrack: Undo @track. @gone: the memory is gone, and tracking with it.
 * @present: Whether a tracked page is still there, and tracked.
 * @gap: After @pin gave -ENXIO or -EFAULT for @gfn: how many pages, 1 to @n, from
 *	there on cannot be pinned.
 * @pin: Pin @n pages from @gfn on for DMA and give their host page frame numbers.
 *	Returns how many it pinned, from the first on; if that is less than @n,
 *	@err tells about the next: -ENXIO not RAM, -EROFS not writable, -EDQUOT
 *	over a limit, -EFAULT or -ENOMEM otherwise. Counts: every page pinned
 *	needs one @unpin. @n is 1, or engine->lock is write-held and @n is at
 *	most VTDS_TABLE_ENTRIES.
 * @unpin: Undo one @pin of each of @n pages with the same @write. Never fails.
 *
 * All are called with engine->lock held, and may sleep.
 */
struct vtds_guest_ops {
	const __le64 *(*track)(struct vtds_engine *engine, u64 gfn);
	void (*untrack)(struct vtds_engine *engine, u64 gfn, bool gone);
	bool (*present)(struct vtds_engine *engine, u64 gfn);
	u64 (*gap)(struct vtds_engine *engine, u64 gfn, u64 n);
	unsigned int (*pin)(struct vtds_engine *engine, u64 gfn, unsigned int n,
			    bool write, u64 *pfns, int *err);
	void (*unpin)(struct vtds_engine *engine, u64 gfn, unsigned long n, bool write);
};

struct vtds_host;

/**
 * struct vtds_host_ops - a host IOMMU domain, as the engine needs it
 * @map: Map [@iova, @iova + @bytes) to @hpa. All of it or nothing. Uses no host
 *	pages but of 4 KiB, 2 MiB and 1 GiB. The range is within one 2 MiB: in a
 *	larger one, Intel's driver does not tell what it did before it failed.
 * @unmap: Unmap a range that consists of whole mapped ranges, leaving the flush
 *	to @sync.
 * @gather: Prepare @gather for unmaps in [@iova, @last].
 * @sync: When it returns no DMA reaches what was unmapped under @gather.
 * @check: Whether [@iova, @last] can be mapped. 0 or enum vtds_reason.
 * @lookup: Host physical address that @iova is mapped to, 0 if it is not.
 *
 * Different ranges may be mapped and unmapped at the same time.
 */
struct vtds_host_ops {
	int (*map)(struct vtds_host *host, u64 iova, u64 hpa, u64 bytes, u8 perm);
	void (*unmap)(struct vtds_host *host, u64 iova, u64 bytes,
		      struct iommu_iotlb_gather *gather);
	void (*gather)(struct vtds_host *host, u64 iova, u64 last,
		       struct iommu_iotlb_gather *gather);
	void (*sync)(struct vtds_host *host, struct iommu_iotlb_gather *gather);
	enum vtds_reason (*check)(struct vtds_host *host, u64 iova, u64 last);
	u64 (*lookup)(struct vtds_host *host, u64 iova);
};

/** struct vtds_host - base of a host domain */
struct vtds_host {
	const struct vtds_host_ops *ops;
};

/**
 * struct vtds_engine_client - what the engine tells its owner
 * @report: An entry was refused. Called with engine->lock held, must not sleep.
 * @root_written: The guest wrote to a page that is watched (a root, context or
 *	such table). Called with engine->lock write-held.
 * @gate_close: Have vCPUs wait that are about to start DMA, by devices of a host
 *	domain first; it may be another one by now, or none. Called with no engine
 *	lock held. Returns 1 if @gate_open is due, 0 if not, or -EINTR.
 * @gate_open: Undo @gate_close. Called with no engine lock held.
 * @queued: An entry was queued on an empty queue: a flush must follow within the
 *	promised time. Called with engine->lock held, must not sleep.
 */
struct vtds_engine_client {
	void (*report)(struct vtds_engine *engine, const struct vtds_reject *reject);
	void (*root_written)(struct vtds_engine *engine, u64 gpa, unsigned int bytes);
	int (*gate_close)(struct vtds_engine *engine, const void *host);
	void (*gate_open)(struct vtds_engine *engine);
	void (*queued)(struct vtds_engine *engine);
};

/* Refusals that one write of the guest, or one call of the VMM, may cause. */
#define VTDS_MAX_REFUSALS	BIT(22)

/**
 * struct vtds_limits - bounds on what a guest can make us do
 * @tables: nodes at a time
 * @mappings: 4 KiB pages mapped at a time; a superpage counts in full
 * @queue: queued leaf entries at a time, over all domains
 */
struct vtds_limits {
	u64 tables;
	u64 mappings;
	u32 queue;
};

/** struct vtds_counters - see struct vtds_stats of the uapi for the meaning */
struct vtds_counters {
	atomic64_t writes;
	atomic64_t writes_structural;
	atomic64_t maps;
	atomic64_t unmaps;
	atomic64_t remaps;
	atomic64_t host_flushes;
	atomic64_t links;
	atomic64_t unlinks;
	atomic64_t rejects[VTDS_REASON_NR];
	/* gauges */
	atomic64_t tables;
	atomic64_t tracked_pages;
	atomic64_t mappings;
	atomic64_t mapped_pages;
	atomic_t queued;
};

/* A power of two: 256 MiB of leaf tables in a row */
#define VTDS_RECENT_PAGES	128

/**
 * struct vtds_engine - all shadow trees of one guest vIOMMU
 * @lock: see above
 * @pages: struct vtds_page of each tracked page, by gfn
 * @recent: some of them that were looked up last
 * @domains: list of struct vtds_domain
 * @fmt: format of the paging tables
 * @limits: bounds
 * @counters: what happened
 * @guest: guest memory
 * @client: the owner
 * @pass: number of the last vtds_page_sync()
 * @refusals: entries refused since @lock was taken for writing
 * @pfns: scratch for what is done with @lock write-held
 */
struct vtds_engine {
	struct rw_semaphore lock;
	struct xarray pages;
	struct vtds_page *recent[VTDS_RECENT_PAGES];
	struct list_head domains;
	struct vtds_fmt fmt;
	struct vtds_limits limits;
	struct vtds_counters counters;
	const struct vtds_guest_ops *guest;
	const struct vtds_engine_client *client;
	u64 pass;
	u64 refusals;
	u64 pfns[VTDS_TABLE_ENTRIES];
};

/**
 * struct vtds_page - one guest page whose writes are trapped
 * @gfn: which
 * @entries: its contents
 * @refs: nodes and watches
 * @watches: refs that are not nodes: somebody wants root_written()
 * @gone: its memory slot was deleted
 * @links: what vtds_page_links() tells
 * @nodes: the nodes that mirror it; one page may be linked at many places
 * @rcu: for its end
 */
struct vtds_page {
	u64 gfn;
	const __le64 *entries;
	unsigned int refs;
	unsigned int watches;
	bool gone;
	const void *links;
	struct list_head nodes;
	struct rcu_head rcu;
};

/**
 * struct vtds_domain - the shadow of the guest tables below one root
 * @engine: owner
 * @link: in engine->domains
 * @host: the host domain that is kept in step
 * @root: top node
 * @root_gfn: where the guest's top table is
 * @levels: its level
 * @perm: VTDS_R | VTDS_W that applies to the whole tree
 * @requester_id: an endpoint to name in events
 * @queue_lock: protects @queue
 * @queue: nodes with queued entries
 */
struct vtds_domain {
	struct vtds_engine *engine;
	struct list_head link;
	struct vtds_host *host;
	struct vtds_node *root;
	u64 root_gfn;
	u8 levels;
	u8 perm;
	u16 requester_id;
	spinlock_t queue_lock;	/* queue */
	struct list_head queue;
};

/**
 * struct vtds_node - the shadow of one guest table at one place in one tree
 * @domain: the tree
 * @page: the guest page
 * @page_link: in page->nodes
 * @parent: node that links to this one, NULL for the root
 * @parent_index: where it does
 * @level: level of the table
 * @perm: access that the entries on the way here leave
 * @mappable: nothing of its IOVA range is reserved, or beyond the host's aperture
 * @iova: first IOVA of the table
 * @pass: the last vtds_page_sync() that it was part of
 * @lock: protects what follows, see above
 * @raw: guest entries as last seen, or as applied for queued ones
 * @children: child nodes by index, or NULL if there never was one
 * @partial: by index: bitmap of the 4 KiB pages that an applied superpage maps,
 *	for those with holes
 * @applied: leaf entries that are mapped in the host
 * @queued: of these, the ones that the guest removed
 * @queue_link: in domain->queue while @queued is not empty
 */
struct vtds_node {
	struct vtds_domain *domain;
	struct vtds_page *page;
	struct list_head page_link;
	struct vtds_node *parent;
	u16 parent_index;
	u8 level;
	u8 perm;
	bool mappable;
	u64 iova;
	u64 pass;
	struct mutex lock;	/* what follows */
	u64 *raw;
	struct vtds_node **children;
	struct xarray partial;
	DECLARE_BITMAP(applied, VTDS_TABLE_ENTRIES);
	DECLARE_BITMAP(queued, VTDS_TABLE_ENTRIES);
	struct list_head queue_link;
};

/**
 * struct vtds_lookup - what an IOVA reaches
 * @perm: 0 if nothing
 * @queued: the guest removed it, the host still has it
 * @gpa: what it reaches
 * @leaf_bytes: size of the leaf
 * @hpa: where the host domain leads to, 0 if nowhere
 */
struct vtds_lookup {
	u8 perm;
	bool queued;
	u64 gpa;
	u64 leaf_bytes;
	u64 hpa;
};

/* engine.c */
void vtds_engine_init(struct vtds_engine *engine,
		      const struct vtds_guest_ops *guest,
		      const struct vtds_engine_client *client);
void vtds_engine_fini(struct vtds_engine *engine);
void vtds_engine_write(struct vtds_engine *engine, u64 gpa, unsigned int bytes);
int vtds_engine_flush(struct vtds_engine *engine);
void vtds_engine_retry(struct vtds_engine *engine);
void vtds_engine_drop_range(struct vtds_engine *engine, u64 gfn, u64 last_gfn);
void vtds_engine_reject(struct vtds_engine *engine, const struct vtds_reject *reject);
struct vtds_domain *vtds_domain_find(struct vtds_engine *engine, u64 root_gfn,
				     u8 levels, u8 perm, struct vtds_domain *after);
struct vtds_domain *vtds_domain_alloc(struct vtds_engine *engine,
				      struct vtds_host *host, u64 root_gfn,
				      u8 levels, u8 perm, u16 requester_id);
void vtds_domain_free(struct vtds_domain *domain);
void vtds_domain_lookup(struct vtds_domain *domain, u64 iova,
			struct vtds_lookup *result);

/* page.c */
struct vtds_page *vtds_page_load(struct vtds_engine *engine, u64 gfn);
struct vtds_page *vtds_page_get(struct vtds_engine *engine, u64 gfn,
				const void *links);
void vtds_page_put(struct vtds_engine *engine, struct vtds_page *page);
const void *vtds_page_links(struct vtds_engine *engine, u64 gfn);
struct vtds_page *vtds_page_watch(struct vtds_engine *engine, u64 gfn);
void vtds_page_unwatch(struct vtds_engine *engine, struct vtds_page *page);

/* node.c */
int vtds_node_cache_init(void);
void vtds_node_cache_fini(void);
struct vtds_node *vtds_node_link(struct vtds_domain *domain,
				 struct vtds_node *parent, unsigned int index,
				 const struct vtds_entry *entry);
void vtds_node_unlink(struct vtds_node *node);
void vtds_page_sync(struct vtds_engine *engine, u64 gfn, unsigned int first,
		    unsigned int last);
bool vtds_node_sync_leaves(struct vtds_node *node, unsigned int first,
			   unsigned int last);
void vtds_node_sync(struct vtds_node *node, unsigned int first, unsigned int last);
bool vtds_node_links(struct vtds_node *node, unsigned int first, unsigned int last);
void vtds_node_retry(struct vtds_node *node);
void vtds_node_drop_range(struct vtds_node *node, u64 gfn, u64 last_gfn);
void vtds_domain_flush(struct vtds_domain *domain);

static inline struct vtds_page **vtds_page_recent(struct vtds_engine *engine, u64 gfn)
{
	return &engine->recent[gfn % VTDS_RECENT_PAGES];
}

/**
 * vtds_page_find() - find a tracked page
 * @engine: engine
 * @gfn: guest frame number
 *
 * A guest writes to the same few tables again and again: those found last are
 * remembered.
 *
 * Context: engine->lock held. Return: the page, or NULL.
 */
static inline struct vtds_page *vtds_page_find(struct vtds_engine *engine, u64 gfn)
{
	struct vtds_page *page = READ_ONCE(*vtds_page_recent(engine, gfn));

	return page && page->gfn == gfn ? page : vtds_page_load(engine, gfn);
}

static inline void vtds_assert_structural(struct vtds_engine *engine)
{
	lockdep_assert_held_write(&engine->lock);
}

#endif /* VTDS_ENGINE_H */
