/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tables (node.c) and their leaf entries (leaf.c) share, inside the engine.
 */
#ifndef VTDS_NODE_H
#define VTDS_NODE_H

#include <linux/lockdep.h>
#include <linux/sched/signal.h>

#include "engine.h"

/* The entries of a node are stable with its lock, or the engine's for writing. */
static inline void vtds_assert_entries(struct vtds_node *node)
{
	lockdep_assert(lockdep_is_held(&node->lock) ||
		       lockdep_is_held_type(&node->domain->engine->lock, 0));
}

static inline u64 vtds_entry_iova(const struct vtds_node *node, unsigned int i)
{
	return node->iova + ((u64)i << vtds_level_shift(node->level));
}

static inline u64 vtds_node_last_iova(const struct vtds_node *node)
{
	unsigned int bits = vtds_level_shift(node->level) + VTDS_LEVEL_BITS;

	return node->iova | (bits < 64 ? BIT_ULL(bits) - 1 : U64_MAX);
}

/*
 * What is applied is bounded by the limits; what is refused costs time as well.
 * The counter is for the one who holds the lock for writing; others blur it.
 */
static inline bool vtds_out_of_patience(struct vtds_engine *engine)
{
	return engine->refusals > VTDS_MAX_REFUSALS || fatal_signal_pending(current);
}

/* The entry as it counts here: nothing is present that gives no access. */
static __always_inline struct vtds_entry
vtds_entry_decode(const struct vtds_node *node, unsigned int i, u64 raw)
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

/**
 * struct vtds_run - entries of a level 1 table to be mapped together
 * @first: first entry
 * @n: how many
 * @gpa: what the first one maps; the others follow
 * @perm: access of all
 * @skipped: entries of the table that were left out, as there was no patience
 */
struct vtds_run {
	unsigned int first;
	unsigned int n;
	u64 gpa;
	u8 perm;
	unsigned int skipped;
};

void vtds_entry_reject(struct vtds_node *node, unsigned int i, u64 gpa,
		       enum vtds_reason reason);
enum vtds_reason vtds_pin_reason(int err);
void vtds_domain_sync(struct vtds_domain *domain, struct iommu_iotlb_gather *gather);

void vtds_run_map(struct vtds_node *node, struct vtds_run *run);
bool vtds_leaf_map_page(struct vtds_node *node, unsigned int i,
			const struct vtds_entry *e);
void vtds_leaf_map_superpage(struct vtds_node *node, unsigned int i,
			     const struct vtds_entry *e);
void vtds_leaves_unmap(struct vtds_node *node, unsigned int first, unsigned int end,
		       struct iommu_iotlb_gather *gather);
void vtds_leaves_release(struct vtds_node *node, unsigned int first, unsigned int end);
void vtds_leaf_queue(struct vtds_node *node, unsigned int i);
void vtds_leaf_unqueue(struct vtds_node *node, unsigned int i);
void vtds_leaf_remove(struct vtds_node *node, unsigned int i);

#endif /* VTDS_NODE_H */
