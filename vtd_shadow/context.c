// SPDX-License-Identifier: GPL-2.0
/* Contexts: guest vIOMMUs. What their ioctls do, and the glue to the engine. */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "context.h"
#include "debugfs.h"
#include "kvm.h"

#define DEFAULT_TABLES		BIT_ULL(16)
#define DEFAULT_MAPPINGS	BIT_ULL(24)
#define DEFAULT_QUEUE		4096
#define DEFAULT_UNMAP_DELAY_MS	50
#define MAX_UNMAP_DELAY_MS	60000

/* How long the close of a device waits for what follows from it. */
#define REAP_PATIENCE_MS	100

/* Here contexts come to their end. Nothing waits for a VMM there. */
static struct workqueue_struct *vtds_workqueue;

/* Contexts that are not at their end. */
static atomic_t vtds_contexts;
static DECLARE_WAIT_QUEUE_HEAD(vtds_contexts_gone);

int vtds_context_init(void)
{
	vtds_workqueue = alloc_workqueue("vtd_shadow", WQ_UNBOUND, 0);
	if (!vtds_workqueue)
		return -ENOMEM;
	vtds_debugfs_init();
	return 0;
}

void vtds_context_fini(void)
{
	wait_event(vtds_contexts_gone, !atomic_read(&vtds_contexts));
	destroy_workqueue(vtds_workqueue);
	vtds_debugfs_fini();
}

static struct vtds_context *context_of(struct vtds_engine *engine)
{
	return container_of(engine, struct vtds_context, engine);
}

/* ---- guest memory for the engine ---- */

static const __le64 *guest_track(struct vtds_engine *engine, u64 gfn)
{
	struct vtds_context *context = context_of(engine);
	u64 pfn;
	int err;

	/* Pinned as well, to be readable from any context and at little cost. */
	err = vtds_pin(&context->pins, context->vm, gfn, false, &pfn);
	if (err)
		return ERR_PTR(err);
	err = vtds_vm_track(context->vm, gfn);
	if (err) {
		vtds_unpin(&context->pins, gfn, 1, false);
		return ERR_PTR(err);
	}
	return page_address(pfn_to_page(pfn));
}

static void guest_untrack(struct vtds_engine *engine, u64 gfn, bool gone)
{
	struct vtds_context *context = context_of(engine);

	if (!gone)
		vtds_vm_untrack(context->vm, gfn);
	vtds_unpin(&context->pins, gfn, 1, false);
}

static bool guest_present(struct vtds_engine *engine, u64 gfn)
{
	return vtds_vm_tracked(context_of(engine)->vm, gfn);
}

static u64 guest_gap(struct vtds_engine *engine, u64 gfn, u64 n)
{
	return vtds_vm_gap(context_of(engine)->vm, gfn, n);
}

static unsigned int guest_pin(struct vtds_engine *engine, u64 gfn, unsigned int n,
			      bool write, u64 *pfns, int *err)
{
	struct vtds_context *context = context_of(engine);

	if (n > 1)
		return vtds_pin_range(&context->pins, context->vm, gfn, n, write, pfns, err);
	*err = vtds_pin(&context->pins, context->vm, gfn, write, pfns);
	return *err ? 0 : 1;
}

static void guest_unpin(struct vtds_engine *engine, u64 gfn, unsigned long n, bool write)
{
	vtds_unpin(&context_of(engine)->pins, gfn, n, write);
}

static const struct vtds_guest_ops context_guest_ops = {
	.track = guest_track,
	.untrack = guest_untrack,
	.present = guest_present,
	.gap = guest_gap,
	.pin = guest_pin,
	.unpin = guest_unpin,
};

/* ---- what the engine tells ---- */

static void client_report(struct vtds_engine *engine, const struct vtds_reject *reject)
{
	vtds_events_report(&context_of(engine)->events, reject);
}

static void client_root_written(struct vtds_engine *engine, u64 gpa, unsigned int bytes)
{
	vtds_endpoints_written(context_of(engine), gpa, bytes);
}

static int client_gate_close(struct vtds_engine *engine, const void *host)
{
	return vtds_gate_close(context_of(engine), host);
}

static void client_gate_open(struct vtds_engine *engine)
{
	vtds_gate_open(context_of(engine));
}

static void client_queued(struct vtds_engine *engine)
{
	struct vtds_context *context = context_of(engine);

	queue_delayed_work(context->workqueue, &context->flush_work, context->unmap_delay);
}

static const struct vtds_engine_client context_engine_client = {
	.report = client_report,
	.root_written = client_root_written,
	.gate_close = client_gate_close,
	.gate_open = client_gate_open,
	.queued = client_queued,
};

static void context_flush_work(struct work_struct *work)
{
	struct vtds_context *context = container_of(to_delayed_work(work),
						    struct vtds_context, flush_work);

	vtds_engine_flush(&context->engine);
}

static void reap_done(struct vtds_context *context)
{
	if (atomic_dec_and_test(&context->reaps))
		wake_up_all(&context->reaped);
	vtds_context_put(context);
}

static void context_reap_work(struct work_struct *work)
{
	struct vtds_context *context = container_of(work, struct vtds_context, reap_work);

	vtds_endpoints_reap(context);
	/* vtds_context_fini() still waits for the context. */
	module_put(THIS_MODULE);
	reap_done(context);
}

/**
 * vtds_context_reap() - have endpoints removed whose devices are closed
 * @context: context
 *
 * That waits for whoever waits for guest memory, which may be for ever. But most
 * often it is done when this returns, and then it is as if it had been done here.
 *
 * Context: in the module's VFIO driver, that is in use; may sleep, for 0.1 s.
 */
void vtds_context_reap(struct vtds_context *context)
{
	vtds_context_get(context);
	__module_get(THIS_MODULE);
	atomic_inc(&context->reaps);
	if (!queue_work(context->workqueue, &context->reap_work)) {
		/* One that has not begun finds what there is now. */
		module_put(THIS_MODULE);
		reap_done(context);
	}
	wait_event_timeout(context->reaped, !atomic_read(&context->reaps),
			   msecs_to_jiffies(REAP_PATIENCE_MS));
}

/* ---- life ---- */

static void context_release_work(struct work_struct *work)
{
	struct vtds_context *context = container_of(work, struct vtds_context, release_work);

	vtds_debugfs_remove(context);
	cancel_delayed_work_sync(&context->flush_work);
	if (context->workqueue)
		destroy_workqueue(context->workqueue);
	vtds_engine_fini(&context->engine);
	vtds_pins_fini(&context->pins);
	mmdrop(context->mm);
	kvfree(context);
	/* The end of the module waits for this worker as well. */
	if (atomic_dec_and_test(&vtds_contexts))
		wake_up_all(&vtds_contexts_gone);
}

/**
 * vtds_context_alloc() - make a context for the current process
 *
 * Return: the context with one reference, or ERR_PTR(-ENOMEM).
 */
struct vtds_context *vtds_context_alloc(void)
{
	struct vtds_context *context = kvzalloc(sizeof(*context), GFP_KERNEL_ACCOUNT);

	if (!context)
		return ERR_PTR(-ENOMEM);
	atomic_inc(&vtds_contexts);
	kref_init(&context->ref);
	context->mm = current->mm;
	mmgrab(context->mm);
	mutex_init(&context->attach_lock);
	init_rwsem(&context->gate);
	mutex_init(&context->bars_lock);
	vtds_engine_init(&context->engine, &context_guest_ops, &context_engine_client);
	vtds_pins_init(&context->pins, context->mm);
	INIT_LIST_HEAD(&context->endpoints);
	vtds_events_init(&context->events);
	INIT_DELAYED_WORK(&context->flush_work, context_flush_work);
	INIT_WORK(&context->reap_work, context_reap_work);
	init_waitqueue_head(&context->reaped);
	INIT_WORK(&context->release_work, context_release_work);
	vtds_debugfs_add(context);
	return context;
}

static void context_release(struct kref *ref)
{
	struct vtds_context *context = container_of(ref, struct vtds_context, ref);

	/* The last reference may be that of its own worker. */
	queue_work(vtds_workqueue, &context->release_work);
}

/**
 * vtds_context_get() - take another reference
 * @context: context
 */
void vtds_context_get(struct vtds_context *context)
{
	kref_get(&context->ref);
}

/**
 * vtds_context_put() - give a reference back
 * @context: context
 *
 * Context: process; may sleep; no lock of the context held.
 */
void vtds_context_put(struct vtds_context *context)
{
	kref_put(&context->ref, context_release);
}

/**
 * vtds_context_close() - the VMM closed the context
 * @context: context; its reference is given back
 *
 * Endpoints stay attached, blocked, until they are detached or closed.
 */
void vtds_context_close(struct vtds_context *context)
{
	down_write(&context->engine.lock);
	context->closed = true;
	vtds_endpoints_update(context);
	up_write(&context->engine.lock);
	vtds_context_put(context);
}

/* ---- ioctls; the uapi documents arguments and errors ---- */

static u64 gpa_reserved(const struct vtds_setup *setup)
{
	return setup->gpa_bits < 52 ? GENMASK_ULL(51, setup->gpa_bits) : 0;
}

static int vtd_caps(const struct vtds_setup *setup, struct vtds_vtd_caps *caps)
{
	const u64 sizes = SZ_4K | SZ_2M | SZ_1G;
	const u32 levels = BIT(3) | BIT(4) | BIT(5);

	if (!setup->levels || (setup->levels & ~levels))
		return -EINVAL;
	if (!(setup->page_sizes & SZ_4K) || (setup->page_sizes & ~sizes))
		return -EINVAL;

	caps->pass_through = setup->features & VTDS_FEATURE_PASS_THROUGH;
	caps->device_tlb = setup->features & VTDS_FEATURE_DEVICE_TLB;
	caps->levels = setup->levels;
	caps->large = BIT(1);
	if (setup->page_sizes & SZ_2M)
		caps->large |= BIT(2);
	if (setup->page_sizes & SZ_1G)
		caps->large |= BIT(3);
	caps->rsvd = gpa_reserved(setup);
	caps->leaf_rsvd = caps->device_tlb ? 0 : VTDS_VTD_SS_TM;
	return 0;
}

static int amd_caps(const struct vtds_setup *setup, struct vtds_amd_caps *caps)
{
	const u32 levels = GENMASK(VTDS_MAX_LEVELS, 1);

	if (!setup->levels || (setup->levels & ~levels))
		return -EINVAL;
	if (!(setup->page_sizes & SZ_4K))
		return -EINVAL;
	caps->rsvd = gpa_reserved(setup);
	caps->levels = setup->levels;
	return 0;
}

static int setup_check(const struct vtds_setup *setup)
{
	u32 features = setup->viommu == VTDS_VIOMMU_VTD ?
		       VTDS_FEATURE_PASS_THROUGH | VTDS_FEATURE_DEVICE_TLB : 0;

	if (setup->viommu != VTDS_VIOMMU_VTD && setup->viommu != VTDS_VIOMMU_AMD)
		return -EOPNOTSUPP;
	if (setup->features & ~features)
		return -EOPNOTSUPP;
	if (setup->gpa_bits < 32 || setup->gpa_bits > 52 ||
	    setup->unmap_delay_ms > MAX_UNMAP_DELAY_MS)
		return -EINVAL;
	if (setup->max_tables > VTDS_MAX_TABLES ||
	    setup->max_mappings > VTDS_MAX_MAPPINGS ||
	    setup->pin_cache > VTDS_MAX_MAPPINGS)
		return -EDQUOT;
	return 0;
}

/**
 * vtds_context_setup() - VTDS_IOC_SETUP
 * @context: context
 * @setup: arguments
 */
int vtds_context_setup(struct vtds_context *context, const struct vtds_setup *setup)
{
	struct vtds_fmt fmt = {};
	int err;

	err = setup_check(setup);
	if (err)
		return err;
	if (setup->viommu == VTDS_VIOMMU_AMD) {
		fmt.kind = VTDS_FMT_AMD_V1;
		err = amd_caps(setup, &fmt.amd);
	} else {
		fmt.kind = VTDS_FMT_VTD_SS;
		err = vtd_caps(setup, &fmt.vtd);
	}
	if (err)
		return err;

	if (mutex_lock_killable(&context->attach_lock))
		return -EINTR;
	if (context->setup) {
		mutex_unlock(&context->attach_lock);
		return -EBUSY;
	}
	/* Nobody who has it waits before there is an endpoint. */
	down_write(&context->engine.lock);
	context->engine.fmt = fmt;
	context->engine.limits = (struct vtds_limits) {
		.tables = setup->max_tables ?: DEFAULT_TABLES,
		.mappings = setup->max_mappings ?: DEFAULT_MAPPINGS,
		.queue = setup->queue_max ?: DEFAULT_QUEUE,
	};
	context->pins.idle_max = setup->pin_cache;
	context->unmap_delay =
		msecs_to_jiffies(setup->unmap_delay_ms ?: DEFAULT_UNMAP_DELAY_MS);
	context->setup = true;
	up_write(&context->engine.lock);
	mutex_unlock(&context->attach_lock);
	return 0;
}

static bool is_amd(struct vtds_context *context)
{
	return context->engine.fmt.kind == VTDS_FMT_AMD_V1;
}

static int set_root_check(struct vtds_context *context, const struct vtds_set_root *set)
{
	bool amd = is_amd(context);

	if (!context->setup)
		return -EINVAL;
	if (set->flags & VTDS_ROOT_SCALABLE)
		return -EOPNOTSUPP;
	if (!IS_ALIGNED(set->root_gpa, SZ_4K) ||
	    (set->root_gpa & vtds_fmt_gpa_reserved(&context->engine.fmt)))
		return -EINVAL;
	/* 48882 §3.4.1 "Device Table Base Address Register": 9 bits of 4 KiB */
	if (set->root_bytes > (amd ? SZ_2M : 0) || !IS_ALIGNED(set->root_bytes, SZ_4K) ||
	    (amd && (set->flags & VTDS_ROOT_ENABLE) && !set->root_bytes))
		return -EINVAL;
	return 0;
}

/**
 * vtds_context_set_root() - VTDS_IOC_SET_ROOT
 * @context: context
 * @set: arguments
 */
int vtds_context_set_root(struct vtds_context *context,
			  const struct vtds_set_root *set)
{
	int err;

	if (down_write_killable(&context->engine.lock))
		return -EINTR;
	err = set_root_check(context, set);
	if (!err) {
		context->root_gpa = set->root_gpa;
		context->root_bytes = set->root_bytes;
		context->enabled = set->flags & VTDS_ROOT_ENABLE;
		vtds_endpoints_update(context);
	}
	up_write(&context->engine.lock);
	return err ?: vtds_engine_flush(&context->engine);
}

/**
 * struct inv_kind - one kind of invalidation
 * @vtd: VT-d has it
 * @amd: AMD has it
 * @domain: domain_id counts
 * @device: requester_id counts
 * @mask: function_mask counts
 * @range: iova and order count
 * @resolve: where the guest sends its devices may have changed
 */
struct inv_kind {
	bool vtd : 1;
	bool amd : 1;
	bool domain : 1;
	bool device : 1;
	bool mask : 1;
	bool range : 1;
	bool resolve : 1;
};

static const struct inv_kind inv_kinds[] = {
	[VTDS_INV_CONTEXT_GLOBAL] = { .vtd = 1, .resolve = 1 },
	[VTDS_INV_CONTEXT_DOMAIN] = { .vtd = 1, .domain = 1, .resolve = 1 },
	[VTDS_INV_CONTEXT_DEVICE] = {
		.vtd = 1, .domain = 1, .device = 1, .mask = 1, .resolve = 1
	},
	[VTDS_INV_IOTLB_GLOBAL] = { .vtd = 1, .amd = 1 },
	[VTDS_INV_IOTLB_DOMAIN] = { .vtd = 1, .amd = 1, .domain = 1 },
	[VTDS_INV_IOTLB_PAGES] = { .vtd = 1, .amd = 1, .domain = 1, .range = 1 },
	[VTDS_INV_DEVICE_ENTRY] = { .amd = 1, .device = 1, .resolve = 1 },
	[VTDS_INV_ALL] = { .amd = 1, .resolve = 1 },
	[VTDS_INV_MEMORY] = { .vtd = 1, .amd = 1, .resolve = 1 },
};

static int inv_check(struct vtds_context *context, const struct vtds_inv_entry *inv)
{
	const struct inv_kind *kind;

	if (!inv->kind || inv->kind >= ARRAY_SIZE(inv_kinds))
		return -EINVAL;
	kind = &inv_kinds[inv->kind];
	if (!(is_amd(context) ? kind->amd : kind->vtd))
		return -EOPNOTSUPP;
	if (inv->__reserved || inv->domain_id > (kind->domain ? U16_MAX : 0) ||
	    inv->requester_id > (kind->device ? U16_MAX : 0) ||
	    inv->function_mask > (kind->mask ? 3 : 0) ||
	    inv->order > (kind->range ? 52 : 0) || (inv->iova && !kind->range))
		return -EINVAL;
	return 0;
}

/**
 * vtds_context_invalidate() - one request of VTDS_IOC_INVALIDATE
 * @context: context
 * @inv: request
 *
 * Paging tables, and VT-d's root and context tables, are followed as they are
 * written: what an invalidation adds is the end of what was removed. So every
 * kind flushes all that is queued, which is what the guest would ask for next
 * anyway.
 */
int vtds_context_invalidate(struct vtds_context *context,
			    const struct vtds_inv_entry *inv)
{
	int err;

	if (!READ_ONCE(context->setup))
		return -EINVAL;
	err = inv_check(context, inv);
	if (err)
		return err;
	atomic64_inc(&context->invalidations);
	err = vtds_engine_flush(&context->engine);
	if (err || !(inv_kinds[inv->kind].resolve || READ_ONCE(context->stale)))
		return err;

	if (down_write_killable(&context->engine.lock))
		return -EINTR;
	if (inv->kind == VTDS_INV_MEMORY) {
		/* They may be of memory that is no longer the guest's. */
		vtds_pins_trim(&context->pins, 0, U64_MAX >> PAGE_SHIFT);
		vtds_engine_retry(&context->engine);
	}
	/* Also: tables that could not be read or tracked may be readable now. */
	vtds_endpoints_update(context);
	up_write(&context->engine.lock);
	return 0;
}

static void translate_shadow(struct vtds_context *context,
			     struct vtds_endpoint *endpoint, struct vtds_translate *t)
{
	struct vtds_lookup found;
	u64 pfn;

	vtds_domain_lookup(endpoint->group->host->tree, t->iova, &found);
	t->domain_id = endpoint->target.domain_id;
	t->levels = endpoint->target.levels;
	t->perm = found.perm;
	t->gpa = found.gpa;
	t->leaf_bytes = found.leaf_bytes;
	if (found.queued)
		t->result |= VTDS_TRANSLATE_QUEUED;
	if (!found.perm) {
		if (!found.hpa)
			t->result |= VTDS_TRANSLATE_HOST_OK;
		return;
	}
	pfn = vtds_pin_lookup(&context->pins, PHYS_PFN(found.gpa), found.perm & VTDS_W);
	if (pfn && found.hpa == PFN_PHYS(pfn) + offset_in_page(t->iova))
		t->result |= VTDS_TRANSLATE_HOST_OK;
}

/**
 * vtds_context_translate() - VTDS_IOC_TRANSLATE
 * @context: context
 * @t: arguments and results
 */
int vtds_context_translate(struct vtds_context *context, struct vtds_translate *t)
{
	struct vtds_endpoint *endpoint;
	int err = -EINVAL;

	t->gpa = 0;
	t->leaf_bytes = 0;
	t->perm = 0;
	t->result = 0;
	t->domain_id = 0;
	t->levels = 0;

	if (down_write_killable(&context->engine.lock))
		return -EINTR;
	if (!context->setup)
		goto out;
	err = -ENOENT;
	endpoint = vtds_endpoint_find(context, t->requester_id);
	if (!endpoint)
		goto out;

	err = 0;
	t->state = endpoint->group->state;
	switch (endpoint->group->state) {
	case VTDS_STATE_SHADOW:
		translate_shadow(context, endpoint, t);
		break;
	case VTDS_STATE_BYPASS:
		t->gpa = t->iova;
		t->leaf_bytes = SZ_4K;
		t->perm = VTDS_PERM_READ | VTDS_PERM_WRITE;
		t->result = VTDS_TRANSLATE_HOST_OK;
		break;
	case VTDS_STATE_BLOCKED:
		t->result = VTDS_TRANSLATE_HOST_OK;
		break;
	}
out:
	up_write(&context->engine.lock);
	return err;
}

/**
 * vtds_context_stats() - VTDS_IOC_STATS
 * @context: context
 * @stats: results
 *
 * Return: 0, or -EINTR if the process is being killed.
 */
int vtds_context_stats(struct vtds_context *context, struct vtds_stats *stats)
{
	struct vtds_counters *c = &context->engine.counters;
	unsigned int i;

	if (down_read_killable(&context->engine.lock))
		return -EINTR;
	stats->invalidations = atomic64_read(&context->invalidations);
	stats->switches = context->switches;
	stats->gatings = atomic64_read(&context->gatings);
	stats->endpoints = vtds_endpoints_open(context);
	stats->domains = list_count_nodes(&context->engine.domains);
	up_read(&context->engine.lock);

	stats->writes = atomic64_read(&c->writes);
	stats->writes_structural = atomic64_read(&c->writes_structural);
	stats->maps = atomic64_read(&c->maps);
	stats->unmaps = atomic64_read(&c->unmaps);
	stats->remaps = atomic64_read(&c->remaps);
	stats->host_flushes = atomic64_read(&c->host_flushes);
	stats->links = atomic64_read(&c->links);
	stats->unlinks = atomic64_read(&c->unlinks);
	stats->tables = atomic64_read(&c->tables);
	stats->tracked_pages = atomic64_read(&c->tracked_pages);
	stats->mappings = atomic64_read(&c->mappings);
	stats->queued = atomic_read(&c->queued);
	stats->pinned_pages = atomic64_read(&context->pins.count);
	for (i = 0; i < VTDS_REASON_NR; i++)
		stats->rejects[i] = atomic64_read(&c->rejects[i]);

	spin_lock(&context->events.lock);
	stats->events = context->events.total;
	stats->events_lost = context->events.total_lost;
	spin_unlock(&context->events.lock);
	return 0;
}
