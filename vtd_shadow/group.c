// SPDX-License-Identifier: GPL-2.0
/*
 * IOMMU groups: which domain each is attached to. The group's own domain as VFIO
 * set it up is kept, and comes back when translation is off and at the end.
 *
 * Between two domains a group is in the blocking domain, which is what
 * iommu_detach_group() leaves behind while VFIO owns the group's DMA.
 */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "context.h"
#include "trace.h"

/* Protects the list, and that a group is in one context only. Innermost. */
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
	if (found)
		return found->context == group->context ? found : ERR_PTR(-EBUSY);
	group->bypass = iommu_get_domain_for_dev(dev);
	if (!group->bypass)
		return ERR_PTR(-ENODEV);
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

static struct vtds_endpoint *group_endpoint(struct vtds_group *group)
{
	return list_first_entry(&group->endpoints, struct vtds_endpoint, group_link);
}

static void group_report(struct vtds_group *group, enum vtds_reason reason, u64 gpa)
{
	const struct vtds_reject reject = {
		.reason = reason,
		.requester_id = group_endpoint(group)->requester_id,
		.gpa = gpa,
	};

	vtds_engine_reject(&group->context->engine, &reject);
}

static void group_detach(struct vtds_group *group)
{
	if (group->state == VTDS_STATE_BYPASS)
		iommu_detach_group(group->bypass, group->iommu_group);
	else if (group->state == VTDS_STATE_SHADOW)
		iommu_detach_group(group->host->domain, group->iommu_group);
	group->state = VTDS_STATE_BLOCKED;
}

static int group_attach(struct vtds_group *group, struct iommu_domain *domain,
			enum vtds_state state)
{
	int err;

	group_detach(group);
	err = iommu_attach_group(domain, group->iommu_group);
	if (!err)
		group->state = state;
	return err;
}

/*
 * Make a new shadow. It is complete before the group is attached to it: DMA that
 * both the old and the new tables allow is interrupted only for the switch.
 */
static struct vtds_iommu_host *shadow_create(struct vtds_group *group,
					     const struct vtds_target *target)
{
	struct vtds_endpoint *endpoint = group_endpoint(group);
	struct vtds_engine *engine = &group->context->engine;
	struct vtds_iommu_host *host;
	struct vtds_domain *tree;

	host = vtds_iommu_host_alloc(endpoint->dev, group->iommu_group, group->bypass);
	if (IS_ERR(host)) {
		group_report(group, VTDS_REASON_HOST, 0);
		return host;
	}
	tree = vtds_domain_alloc(engine, &host->base, target->root_gfn, target->levels,
				 target->perm, endpoint->requester_id);
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
		if (!vtds_iommu_host_covers(host, group->iommu_group, group->bypass))
			continue;
		if (group_attach(group, host->domain, VTDS_STATE_SHADOW))
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
	if (!group_attach(group, host->domain, VTDS_STATE_SHADOW))
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
		group_detach(group);
	group->host = host;
	if (!old)
		return;
	shadow_put(old);
	/* Both at a time may have been too much; the new one alone need not be. */
	if (atomic64_read(refused) == refused_before)
		return;
	if (host)
		vtds_engine_retry(engine);
	else
		group->host = shadow_make(group, target);
}

static void group_leave_shadow(struct vtds_group *group)
{
	struct vtds_iommu_host *old = group->host;

	group_detach(group);
	group->host = NULL;
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

static bool group_agrees(struct vtds_group *group)
{
	const struct vtds_target *first = &group_endpoint(group)->target;
	struct vtds_endpoint *endpoint;

	list_for_each_entry(endpoint, &group->endpoints, group_link) {
		const struct vtds_target *other = &endpoint->target;

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
		if (group_attach(group, group->bypass, VTDS_STATE_BYPASS))
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
 * @group: group with at least one endpoint
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_group_update(struct vtds_group *group)
{
	static const struct vtds_target blocked = { .state = VTDS_STATE_BLOCKED };

	vtds_assert_structural(&group->context->engine);
	if (group_agrees(group)) {
		group->conflict = false;
		group_go(group, &group_endpoint(group)->target);
		return;
	}
	group_go(group, &blocked);
	if (!group->conflict)
		group_report(group, VTDS_REASON_GROUP_CONFLICT, 0);
	group->conflict = true;
}

/* Give the group back to VFIO's own domain. */
static int group_return(struct vtds_group *group)
{
	if (group->state == VTDS_STATE_BYPASS)
		return 0;
	group_leave_shadow(group);
	return group_attach(group, group->bypass, VTDS_STATE_BYPASS);
}

/**
 * vtds_group_leave() - take an endpoint out of its group
 * @endpoint: endpoint
 * @force: do so even if the group cannot be given back to its bypass domain. It is
 *	then blocked until VFIO lets it go.
 *
 * The group is given back with its last endpoint, and freed.
 *
 * Context: engine.lock write-held; may sleep.
 * Return: 0, or without @force an error and nothing has changed.
 */
int vtds_group_leave(struct vtds_endpoint *endpoint, bool force)
{
	struct vtds_group *group = endpoint->group;
	bool last = list_is_singular(&group->endpoints);
	int err;

	vtds_assert_structural(&group->context->engine);
	err = last ? group_return(group) : 0;
	if (err && !force) {
		vtds_group_update(group);
		return err;
	}
	list_del(&endpoint->group_link);
	if (!last) {
		vtds_group_update(group);
		return 0;
	}
	mutex_lock(&vtds_group_registry_lock);
	list_del(&group->registry_link);
	mutex_unlock(&vtds_group_registry_lock);
	group_free(group);
	return 0;
}
