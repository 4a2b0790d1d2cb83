/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Contexts, endpoints and groups: one guest vIOMMU, the devices behind it, and
 * the host IOMMU groups that these are in.
 *
 * Locking, outermost first; Documentation/locking.rst has the whole picture:
 *
 *   context->attach_lock	mutex: attach, detach, and with it context->vm
 *     context->gate		rwsem: who starts DMA; see gate.c
 *       context->bars_lock	mutex: endpoint->mapping
 *       context->engine.lock	rwsem, for writing: all the rest
 *         group registry	mutex: which groups exist, over all contexts
 *           group->lock	mutex: where a group is attached
 */
#ifndef VTDS_CONTEXT_H
#define VTDS_CONTEXT_H

#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "engine.h"
#include "event.h"
#include "host.h"
#include "pin.h"

struct dentry;
struct address_space;
struct device;
struct kvm;
struct vtds_context;
struct vtds_vm;

/**
 * struct vtds_target - where the guest's tables send an endpoint
 * @state: bypass, blocked or shadow
 * @levels: levels of the guest's paging tables, if shadow
 * @perm: access for the whole tree, if shadow
 * @domain_id: guest's domain id, if shadow
 * @root_gfn: guest frame of the top paging table, if shadow
 * @reason: why it is blocked, if the guest's tables are at fault, else 0
 * @gpa: what the reason is about
 */
struct vtds_target {
	enum vtds_state state;
	u8 levels;
	u8 perm;
	u16 domain_id;
	u64 root_gfn;
	enum vtds_reason reason;
	u64 gpa;
};

/**
 * struct vtds_step - a table on the way from the root to an endpoint's target
 * @page: the tracked page, or NULL
 * @offset: where the endpoint's entry is in it
 * @bytes: its length
 */
struct vtds_step {
	struct vtds_page *page;
	unsigned int offset;
	unsigned int bytes;
};

#define VTDS_STEPS	2	/* root table, context table */

/**
 * struct vtds_endpoint - one assigned device
 * @context: vIOMMU that it is behind; holds a reference
 * @link: in context->endpoints
 * @group: its IOMMU group
 * @group_link: in group->endpoints
 * @dev: the device; holds a reference, but once @closed it is VFIO's
 * @mapping: what processes map of its BARs, NULL once @closed
 * @requester_id: as the guest sees it
 * @closed: the device is closed, and what is left here waits to be removed
 * @first: its BARs are taken away before others; set and used by who closes the gate
 * @steps: root and context table
 * @target: where the guest's tables send it
 */
struct vtds_endpoint {
	struct vtds_context *context;
	struct list_head link;
	struct vtds_group *group;
	struct list_head group_link;
	struct device *dev;
	struct address_space *mapping;
	u16 requester_id;
	bool closed;
	bool first;
	struct vtds_step steps[VTDS_STEPS];
	struct vtds_target target;
};

/**
 * struct vtds_group - a host IOMMU group with endpoints
 * @context: vIOMMU that all its endpoints are behind
 * @registry_link: in the registry of all groups
 * @iommu_group: the group; holds a reference
 * @endpoints: its endpoints
 * @open: how many of them are not closed, or about to be there
 * @limits: what its IOMMU can translate
 * @lock: protects the next four, and that the devices are not closed
 * @bypass: the domain that the VMM set up through VFIO, until it is @returned
 * @at: where it is attached
 * @at_host: to which shadow, in VTDS_STATE_SHADOW
 * @returned: VFIO has it back, where it is attached is no longer ours to say
 * @state: where the engine has put it
 * @host: in which shadow, in VTDS_STATE_SHADOW; gate.c compares it without a lock
 * @conflict: its endpoints have different targets, and that was reported
 */
struct vtds_group {
	struct vtds_context *context;
	struct list_head registry_link;
	struct iommu_group *iommu_group;
	struct list_head endpoints;
	unsigned int open;
	struct iommu_domain_geometry limits;
	struct mutex lock;	/* where it is attached */
	struct iommu_domain *bypass;
	enum vtds_state at;
	struct vtds_iommu_host *at_host;
	bool returned;
	enum vtds_state state;
	struct vtds_iommu_host *host;
	bool conflict;
};

/**
 * struct vtds_context - one guest vIOMMU
 * @ref: the file and each endpoint hold one
 * @mm: process that opened it, the VMM
 * @attach_lock: see above
 * @gate: see gate.c; closed while it is held for writing
 * @bars_lock: protects @mapping of the endpoints
 * @engine: shadow trees; engine.lock protects all that follows
 * @pins: pinned guest pages
 * @vm: the VM, while there is an endpoint
 * @endpoints: attached devices; for changes the gate is closed as well
 * @events: what the VMM is told
 * @flush_work: flush of queued entries that no invalidation came for
 * @unmap_delay: jiffies until then
 * @reap_work: removes endpoints whose devices are closed
 * @reaps: how often that is queued or under way
 * @reaped: who waits for the end of it
 * @workqueue: for these, of its own: they wait for the VMM. From the first endpoint on
 * @release_work: the end
 * @setup: VTDS_IOC_SETUP was done
 * @closed: the file is closed: everything is blocked
 * @stale: an endpoint has gone, and who did it could not see to the rest of its group
 * @enabled: translation is enabled
 * @root_gpa: root table, or device table
 * @root_bytes: size of the device table
 * @invalidations: counter
 * @switches: counter
 * @gatings: counter
 * @debugfs: directory that shows it
 */
struct vtds_context {
	struct kref ref;
	struct mm_struct *mm;
	struct mutex attach_lock;	/* attach, detach; vm */
	struct rw_semaphore gate;	/* doorbells; see gate.c */
	struct mutex bars_lock;		/* mapping of endpoints */
	struct vtds_engine engine;
	struct vtds_pins pins;
	struct vtds_vm *vm;
	struct list_head endpoints;
	struct vtds_events events;
	struct delayed_work flush_work;
	unsigned long unmap_delay;
	struct work_struct reap_work;
	atomic_t reaps;
	wait_queue_head_t reaped;
	struct workqueue_struct *workqueue;
	struct work_struct release_work;
	bool setup;
	bool closed;
	bool stale;
	bool enabled;
	u64 root_gpa;
	u64 root_bytes;
	atomic64_t invalidations;
	u64 switches;
	atomic64_t gatings;
	struct dentry *debugfs;
};

#define VTDS_MAX_TABLES		BIT_ULL(20)
#define VTDS_MAX_MAPPINGS	BIT_ULL(30)

/* context.c */
int vtds_context_init(void);
void vtds_context_fini(void);
struct vtds_context *vtds_context_alloc(void);
void vtds_context_close(struct vtds_context *context);
void vtds_context_get(struct vtds_context *context);
void vtds_context_put(struct vtds_context *context);
void vtds_context_reap(struct vtds_context *context);
int vtds_context_setup(struct vtds_context *context, const struct vtds_setup *setup);
int vtds_context_set_root(struct vtds_context *context,
			  const struct vtds_set_root *set);
int vtds_context_invalidate(struct vtds_context *context,
			    const struct vtds_inv_entry *inv);
int vtds_context_translate(struct vtds_context *context, struct vtds_translate *t);
int vtds_context_stats(struct vtds_context *context, struct vtds_stats *stats);

/* endpoint.c */
struct vtds_endpoint *vtds_endpoint_attach(struct vtds_context *context,
					   struct device *dev,
					   struct address_space *mapping,
					   struct kvm *kvm, u16 requester_id);
int vtds_endpoint_detach(struct vtds_endpoint *endpoint);
void vtds_endpoint_close(struct vtds_endpoint *endpoint);
void vtds_endpoints_reap(struct vtds_context *context);
unsigned int vtds_endpoints_open(struct vtds_context *context);
struct vtds_endpoint *vtds_endpoint_find(struct vtds_context *context,
					 u32 requester_id);
void vtds_endpoints_update(struct vtds_context *context);
void vtds_endpoints_written(struct vtds_context *context, u64 gpa,
			    unsigned int bytes);

/* gate.c */
int vtds_gate_close(struct vtds_context *context, const void *host);
void vtds_gate_open(struct vtds_context *context);
bool vtds_gate_pass(struct vtds_context *context);
void vtds_gate_passed(struct vtds_context *context);
int vtds_gate_wait(struct vtds_context *context);

/* resolve.c */
void vtds_resolve(struct vtds_endpoint *endpoint, struct vtds_target *target);
void vtds_resolve_clear(struct vtds_endpoint *endpoint);

/* group.c */
struct vtds_group *vtds_group_get(struct vtds_context *context, struct device *dev);
int vtds_group_detach(struct vtds_endpoint *endpoint);
void vtds_group_close(struct vtds_endpoint *endpoint);
bool vtds_group_has_closed(struct vtds_endpoint *endpoint);
void vtds_group_leave(struct vtds_endpoint *endpoint);
void vtds_group_update(struct vtds_group *group);

#endif /* VTDS_CONTEXT_H */
