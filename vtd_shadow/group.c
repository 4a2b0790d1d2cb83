// SPDX-License-Identifier: GPL-2.0
/*
 * IOMMU groups: which domain each is attached to. The group's own domain as VFIO
 * set it up is kept, and comes back when translation is off and at the end.
 *
 * Between two domains a group is in the blocking domain, which is what
 * iommu_detach_group() leaves behind while VFIO owns the group's DMA.
 *
 * It ends in two steps. When its last device is closed the group is given back to
 * VFIO, under the two locks here, which nobody holds while he waits for guest memory.
 * The engine may be at work on the group all the time: it finds that it cannot move it
 * any more. What it has for the group goes later, with engine.lock held.
 */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "context.h"
#include "trace.h"

/* Protects the list, that a group is in one context only, and how many of it are open. */
static DEFINE_MUTEX(vtds_group_registry_lock);
static LIST_HEAD(vtds_group_registry);

static struct vtds_group *group_find(struct iommu_group *iommu_group)
{
	struct vtds_group *group;

	list_for_each_entry(group, &vtds_group_registry, registry_link)
		if (group->iommu_group == iommu_group)
			return group;
	return NULL;
}

/*
 * Enter @group, unless its IOMMU group is there already. If it is not, nobody has
 * taken the device out of the domain that VFIO made for it: that is when to ask.
 * Return: the group there is then.
 */
static struct vtds_group *group_register(struct vtds_group *group, struct device *dev)
{
	struct vtds_group *found = group_find(group->iommu_group);

	lockdep_assert_held(&vtds_group_registry_lock);
	if (found) {
		if (found->context != group->context)
			return ERR_PTR(-EBUSY);
		found->open++;
		return found;
	}
	group->bypass = iommu_get_domain_for_dev(dev);
	if (!group->bypass)
		return ERR_PTR(-ENODEV);
	/* It has been attached and so knows, which Intel's domains do not before. */
	group->limits = group->bypass->geometry;
	group->at = VTDS_STATE_BYPASS;
	group->open = 1;
	list_add(&group->registry_link, &vtds_group_registry);
	return group;
}

static void group_free(struct vtds_group *group)
{
	iommu_group_put(group->iommu_group);
	kfree(group);
}

/**
 * vtds_group_get() - the group of a device that is being attached
 * @context: vIOMMU that the device is to be behind
 * @dev: the device
 *
 * Context: engine.lock write-held; may sleep.
 * Return: a group, new if it has no endpoints yet, or ERR_PTR(): -ENODEV no
 * IOMMU group, -EBUSY group of another context, -ENOMEM.
 */
struct vtds_group *vtds_group_get(struct vtds_context *context, struct device *dev)
{
	struct vtds_group *group, *found;

	group = kzalloc(sizeof(*group), GFP_KERNEL_ACCOUNT);
	if (!group)
		return ERR_PTR(-ENOMEM);
	group->iommu_group = iommu_group_get(dev);
	if (!group->iommu_group) {
		kfree(group);
		return ERR_PTR(-ENODEV);
	}
	group->context = context;
	group->state = VTDS_STATE_BYPASS;
	INIT_LIST_HEAD(&group->endpoints);
	mutex_init(&group->lock);

	mutex_lock(&vtds_group_registry_lock);
	found = group_register(group, dev);
	mutex_unlock(&vtds_group_registry_lock);
	if (found != group)
		group_free(group);
	return found;
}

static void shadow_put(struct vtds_iommu_host *host)
{
	if (--host->users)
		return;
	vtds_domain_free(host->tree);
	vtds_iommu_host_free(host);
}

/* An endpoint whose device is open, or NULL. */
static struct vtds_endpoint *group_endpoint(struct vtds_group *group)
{
	struct vtds_endpoint *endpoint;

	list_for_each_entry(endpoint, &group->endpoints, group_link)
		if (!READ_ONCE(endpoint->closed))
			return endpoint;
	return NULL;
}

static void group_report(struct vtds_group *group, enum vtds_reason reason, u64 gpa)
{
	struct vtds_endpoint *endpoint = group_endpoint(group);
	struct vtds_reject reject = { .reason = reason, .gpa = gpa };

	if (!endpoint)
		return;
	reject.requester_id = endpoint->requester_id;
	vtds_engine_reject(&group->context->engine, &reject);
}

static void group_detach(struct vtds_group *group)
{
	switch (group->at) {
	case VTDS_STATE_BYPASS:
		iommu_detach_group(group->bypass, group->iommu_group);
		break;
	case VTDS_STATE_SHADOW:
		vtds_iommu_host_leave(group->at_host, group->iommu_group);
		break;
	case VTDS_STATE_BLOCKED:
		break;
	}
	group->at = VTDS_STATE_BLOCKED;
}

/*
 * VFIO may unmap something at the same time, and Intel's driver lets the devices use a
 * domain a moment before it knows that they are to be flushed.
 */
static int bypass_attach(struct vtds_group *group)
{
	int err = iommu_attach_group(group->bypass, group->iommu_group);

	if (!err)
		iommu_flush_iotlb_all(group->bypass);
	return err;
}

/* After an error it is blocked. */
static int group_attach(struct vtds_group *group, enum vtds_state to,
			struct vtds_iommu_host *host)
{
	int err = 0;

	lockdep_assert_held(&group->lock);
	group_detach(group);
	if (to == VTDS_STATE_BYPASS)
		err = bypass_attach(group);
	else if (to == VTDS_STATE_SHADOW)
		err = iommu_attach_group(host->domain, group->iommu_group);
	if (err)
		return err;
	group->at = to;
	group->at_host = host;
	return 0;
}

/* group_attach() for the engine. */
static int group_move(struct vtds_group *group, enum vtds_state to,
		      struct vtds_iommu_host *host)
{
	int err;

	mutex_lock(&group->lock);
	err = group->returned ? -ENODEV : group_attach(group, to, host);
	mutex_unlock(&group->lock);
	group->state = err ? VTDS_STATE_BLOCKED : to;
	return err;
}

static void group_block(struct vtds_group *group)
{
	group_move(group, VTDS_STATE_BLOCKED, NULL);
}

/* With the help of a device of the group, while it has one that is open. */
static int host_init(struct vtds_iommu_host *host, struct vtds_group *group,
		     u16 *requester_id)
{
	struct vtds_endpoint *endpoint;
	int err = -ENODEV;

	mutex_lock(&group->lock);
	endpoint = group_endpoint(group);
	if (endpoint) {
		*requester_id = endpoint->requester_id;
		err = vtds_iommu_host_init(host, endpoint->dev, &group->limits);
	}
	mutex_unlock(&group->lock);
	return err;
}

/* A host domain that suits the group. */
static struct vtds_iommu_host *host_make(struct vtds_group *group, u16 *requester_id)
{
	struct vtds_iommu_host *host = vtds_iommu_host_alloc(group->iommu_group);
	int err;

	if (IS_ERR(host))
		return host;
	err = host_init(host, group, requester_id);
	if (!err)
		return host;
	vtds_iommu_host_free(host);
	return ERR_PTR(err);
}

/*
 * Make a new shadow. It is complete before the group is attached to it: DMA that
 * both the old and the new tables allow is interrupted only for the switch.
 */
static struct vtds_iommu_host *shadow_create(struct vtds_group *group,
					     const struct vtds_target *target)
{
	struct vtds_engine *engine = &group->context->engine;
	struct vtds_iommu_host *host;
	struct vtds_domain *tree;
	u16 requester_id;

	host = host_make(group, &requester_id);
	if (IS_ERR(host)) {
		group_report(group, VTDS_REASON_HOST, 0);
		return host;
	}
	tree = vtds_domain_alloc(engine, &host->base, target->root_gfn, target->levels,
				 target->perm, requester_id);
	if (IS_ERR(tree)) {
		vtds_iommu_host_free(host);
		return ERR_CAST(tree);
	}
	host->tree = tree;
	host->users = 1;
	return host;
}

/* Attach to a shadow of these tables that other groups use already. */
static struct vtds_iommu_host *shadow_join(struct vtds_group *group,
					   const struct vtds_target *target)
{
	struct vtds_domain *tree = NULL;
	struct vtds_iommu_host *host;

	while ((tree = vtds_domain_find(&group->context->engine, target->root_gfn,
					target->levels, target->perm, tree))) {
		host = vtds_iommu_host(tree->host);
		if (!vtds_iommu_host_covers(host, group->iommu_group, &group->limits))
			continue;
		if (group_move(group, VTDS_STATE_SHADOW, host))
			continue;
		host->users++;
		return host;
	}
	return NULL;
}

static struct vtds_iommu_host *shadow_make(struct vtds_group *group,
					   const struct vtds_target *target)
{
	struct vtds_iommu_host *host = shadow_create(group, target);

	if (IS_ERR(host))
		return NULL;
	if (!group_move(group, VTDS_STATE_SHADOW, host))
		return host;
	shadow_put(host);
	group_report(group, VTDS_REASON_HOST, 0);
	return NULL;
}

static void group_shadow(struct vtds_group *group, const struct vtds_target *target)
{
	struct vtds_engine *engine = &group->context->engine;
	atomic64_t *refused = &engine->counters.rejects[VTDS_REASON_LIMIT];
	struct vtds_iommu_host *old = group->host;
	s64 refused_before = atomic64_read(refused);
	struct vtds_iommu_host *host;

	/* group->host goes with group->state: it changes once the group has left. */
	host = shadow_join(group, target);
	if (!host)
		host = shadow_make(group, target);
	if (!host)
		group_block(group);
	WRITE_ONCE(group->host, host);
	if (!old)
		return;
	shadow_put(old);
	/* Both at a time may have been too much; the new one alone need not be. */
	if (atomic64_read(refused) == refused_before)
		return;
	if (host)
		vtds_engine_retry(engine);
	else
		WRITE_ONCE(group->host, shadow_make(group, target));
}

static void group_leave_shadow(struct vtds_group *group)
{
	struct vtds_iommu_host *old = group->host;

	group_block(group);
	WRITE_ONCE(group->host, NULL);
	if (old)
		shadow_put(old);
}

static bool group_is_at(struct vtds_group *group, const struct vtds_target *target)
{
	struct vtds_domain *tree;

	if (group->state != target->state)
		return false;
	if (group->state != VTDS_STATE_SHADOW)
		return true;
	tree = group->host->tree;
	return tree->root && tree->root_gfn == target->root_gfn &&
	       tree->levels == target->levels && tree->perm == target->perm;
}

static bool group_agrees(struct vtds_group *group, const struct vtds_target *first)
{
	struct vtds_endpoint *endpoint;

	list_for_each_entry(endpoint, &group->endpoints, group_link) {
		const struct vtds_target *other = &endpoint->target;

		if (READ_ONCE(endpoint->closed))
			continue;
		if (other->state != first->state || other->root_gfn != first->root_gfn ||
		    other->levels != first->levels || other->perm != first->perm)
			return false;
	}
	return true;
}

static void group_go(struct vtds_group *group, const struct vtds_target *target)
{
	if (group_is_at(group, target))
		return;

	switch (target->state) {
	case VTDS_STATE_SHADOW:
		group_shadow(group, target);
		break;
	case VTDS_STATE_BYPASS:
		group_leave_shadow(group);
		if (group_move(group, VTDS_STATE_BYPASS, NULL))
			group_report(group, VTDS_REASON_HOST, 0);
		break;
	case VTDS_STATE_BLOCKED:
		group_leave_shadow(group);
		break;
	}
	group->context->switches++;
	trace_vtds_switch(iommu_group_id(group->iommu_group), group->state,
			  target->root_gfn << VTDS_TABLE_SHIFT);
}

/**
 * vtds_group_update() - put a group where its endpoints' targets say
 * @group: group
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_group_update(struct vtds_group *group)
{
	static const struct vtds_target blocked = { .state = VTDS_STATE_BLOCKED };
	struct vtds_endpoint *endpoint = group_endpoint(group);

	vtds_assert_structural(&group->context->engine);
	if (!endpoint)
		return;
	if (group_agrees(group, &endpoint->target)) {
		group->conflict = false;
		group_go(group, &endpoint->target);
		return;
	}
	group_go(group, &blocked);
	if (!group->conflict)
		group_report(group, VTDS_REASON_GROUP_CONFLICT, 0);
	group->conflict = true;
}

/* Give the group back to VFIO's own domain, and let it go. */
static int group_return(struct vtds_group *group, bool force)
{
	int err = 0;

	lockdep_assert_held(&group->lock);
	if (group->at != VTDS_STATE_BYPASS)
		err = group_attach(group, VTDS_STATE_BYPASS, NULL);
	if (err && !force)
		return err;
	group->returned = true;
	list_del(&group->registry_link);
	return 0;
}

static int endpoint_drop(struct vtds_endpoint *endpoint, bool force)
{
	struct vtds_group *group = endpoint->group;
	int err = 0;

	mutex_lock(&vtds_group_registry_lock);
	mutex_lock(&group->lock);
	if (group->open == 1)
		err = group_return(group, force);
	if (!err) {
		WRITE_ONCE(endpoint->closed, true);
		/* The others may go elsewhere now, but not from here. */
		if (--group->open)
			WRITE_ONCE(group->context->stale, true);
	}
	mutex_unlock(&group->lock);
	mutex_unlock(&vtds_group_registry_lock);
	return err;
}

/**
 * vtds_group_detach() - first step of an endpoint's end, while its device is open
 * @endpoint: endpoint
 *
 * With the last one of its group, this is given back to VFIO.
 *
 * Context: engine.lock write-held; may sleep.
 * Return: 0, or an error and nothing has changed.
 */
int vtds_group_detach(struct vtds_endpoint *endpoint)
{
	struct vtds_group *group = endpoint->group;
	int err = endpoint_drop(endpoint, false);

	vtds_assert_structural(&group->context->engine);
	if (err) {
		group->state = VTDS_STATE_BLOCKED;
		vtds_group_update(group);
	}
	return err;
}

/**
 * vtds_group_close() - the same when the device is closed
 * @endpoint: endpoint
 *
 * A group that cannot be given back is blocked until VFIO lets it go.
 *
 * Context: any process; may sleep, but does not wait for guest memory.
 */
void vtds_group_close(struct vtds_endpoint *endpoint)
{
	endpoint_drop(endpoint, true);
}

/**
 * vtds_group_has_closed() - whether the first step is done
 * @endpoint: endpoint
 *
 * Context: process; may sleep.
 * Return: whether vtds_group_leave() is due; who did the first step has left then.
 */
bool vtds_group_has_closed(struct vtds_endpoint *endpoint)
{
	bool closed;

	mutex_lock(&vtds_group_registry_lock);
	closed = endpoint->closed;
	mutex_unlock(&vtds_group_registry_lock);
	return closed;
}

/**
 * vtds_group_leave() - second step: take an endpoint out of its group
 * @endpoint: endpoint, the first step done
 *
 * Without endpoints the group is freed.
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_group_leave(struct vtds_endpoint *endpoint)
{
	struct vtds_group *group = endpoint->group;

	vtds_assert_structural(&group->context->engine);
	list_del(&endpoint->group_link);
	if (list_empty(&group->endpoints)) {
		if (group->host)
			shadow_put(group->host);
		group_free(group);
	} else if (current->mm == group->context->mm) {
		vtds_group_update(group);
	} else {
		/* No memory can be pinned here. */
		WRITE_ONCE(group->context->stale, true);
	}
}
