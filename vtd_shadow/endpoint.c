// SPDX-License-Identifier: GPL-2.0
/* Endpoints: assigned devices behind a guest vIOMMU. */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "context.h"
#include "kvm.h"
#include "trace.h"

/* Where it goes, and tell of a fault of the guest's tables, if it is a new one. */
static void endpoint_resolve(struct vtds_endpoint *endpoint)
{
	struct vtds_target old = endpoint->target;
	struct vtds_target *target = &endpoint->target;
	struct vtds_reject reject = { .requester_id = endpoint->requester_id };

	vtds_resolve(endpoint, target);
	if (!target->reason || (target->reason == old.reason && target->gpa == old.gpa))
		return;
	reject.reason = target->reason;
	reject.gpa = target->gpa;
	vtds_engine_reject(&endpoint->context->engine, &reject);
}

/**
 * vtds_endpoints_update() - put every endpoint where the guest's tables say
 * @context: context
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_endpoints_update(struct vtds_context *context)
{
	struct vtds_endpoint *endpoint;

	vtds_assert_structural(&context->engine);
	/* All first: endpoints of one group are looked at together. */
	list_for_each_entry(endpoint, &context->endpoints, link)
		endpoint_resolve(endpoint);
	list_for_each_entry(endpoint, &context->endpoints, link)
		vtds_group_update(endpoint->group);
}

/**
 * vtds_endpoints_written() - the guest wrote to a root or context table
 * @context: context
 * @gpa: first byte written
 * @bytes: number of bytes
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_endpoints_written(struct vtds_context *context, u64 gpa,
			    unsigned int bytes)
{
	u64 gfn = gpa >> VTDS_TABLE_SHIFT;
	unsigned int offset = gpa & (BIT(VTDS_TABLE_SHIFT) - 1);
	struct vtds_endpoint *endpoint;
	bool concerned = false;
	unsigned int n;

	list_for_each_entry(endpoint, &context->endpoints, link) {
		for (n = 0; n < VTDS_STEPS; n++) {
			const struct vtds_step *step = &endpoint->steps[n];

			concerned |= step->page && step->page->gfn == gfn &&
				     offset < step->offset + step->bytes &&
				     step->offset < offset + bytes;
		}
	}
	if (concerned)
		vtds_endpoints_update(context);
}

/**
 * vtds_endpoint_find() - look up a requester id
 * @context: context
 * @requester_id: guest requester id
 *
 * Context: engine.lock held. Return: the endpoint or NULL.
 */
struct vtds_endpoint *vtds_endpoint_find(struct vtds_context *context,
					 u32 requester_id)
{
	struct vtds_endpoint *endpoint;

	lockdep_assert_held(&context->engine.lock);
	list_for_each_entry(endpoint, &context->endpoints, link)
		if (endpoint->requester_id == requester_id)
			return endpoint;
	return NULL;
}

static int endpoint_add(struct vtds_endpoint *endpoint)
{
	struct vtds_context *context = endpoint->context;
	struct vtds_group *group;

	if (vtds_endpoint_find(context, endpoint->requester_id))
		return -EBUSY;
	group = vtds_group_get(context, endpoint->dev);
	if (IS_ERR(group))
		return PTR_ERR(group);

	endpoint->group = group;
	list_add_tail(&endpoint->group_link, &group->endpoints);
	list_add_tail(&endpoint->link, &context->endpoints);
	endpoint_resolve(endpoint);
	vtds_group_update(group);
	trace_vtds_attach(endpoint->requester_id, iommu_group_id(group->iommu_group), true);
	return 0;
}

/* What it takes to change which endpoints there are. */
static int endpoint_lock(struct vtds_context *context)
{
	int err = down_write_killable(&context->gate);

	if (err)
		return err;
	err = down_write_killable(&context->engine.lock);
	if (err)
		up_write(&context->gate);
	return err;
}

static void endpoint_unlock(struct vtds_context *context)
{
	up_write(&context->engine.lock);
	up_write(&context->gate);
}

/* The VM comes with the first endpoint and goes with the last one. */
static void context_put_vm(struct vtds_context *context)
{
	lockdep_assert_held(&context->attach_lock);
	if (!list_empty(&context->endpoints))
		return;
	vtds_vm_put(context->vm);
	context->vm = NULL;
	vtds_pins_trim(&context->pins, 0, U64_MAX >> PAGE_SHIFT);
}

static const struct vtds_vm_client vtds_context_vm_client;

static int context_get_vm(struct vtds_context *context, struct kvm *kvm)
{
	struct vtds_vm *vm;

	lockdep_assert_held(&context->attach_lock);
	if (context->vm)
		return vtds_vm_is(context->vm, kvm) ? 0 : -ESRCH;
	vm = vtds_vm_get(kvm, &vtds_context_vm_client, context);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	context->vm = vm;
	return 0;
}

/**
 * vtds_endpoint_attach() - put a device behind a guest vIOMMU
 * @context: vIOMMU
 * @dev: the device, whose DMA this process owns
 * @mapping: what processes map of its BARs
 * @kvm: VM that the device is assigned to, or NULL
 * @requester_id: as the guest sees it
 *
 * Context: in the VMM's process; may sleep.
 * Return: the endpoint or ERR_PTR(): -EINVAL not set up, -ESRCH no VM, another
 * VM, or another process's, -EBUSY requester id or group in use, -ENODEV no
 * IOMMU group, -ENOMEM.
 */
struct vtds_endpoint *vtds_endpoint_attach(struct vtds_context *context,
					   struct device *dev,
					   struct address_space *mapping,
					   struct kvm *kvm, u16 requester_id)
{
	struct vtds_endpoint *endpoint;
	int err;

	if (!kvm || current->mm != context->mm)
		return ERR_PTR(-ESRCH);
	endpoint = kzalloc(sizeof(*endpoint), GFP_KERNEL_ACCOUNT);
	if (!endpoint)
		return ERR_PTR(-ENOMEM);
	endpoint->context = context;
	endpoint->dev = dev;
	endpoint->mapping = mapping;
	endpoint->requester_id = requester_id;

	err = mutex_lock_killable(&context->attach_lock);
	if (err)
		goto err_free;
	err = context->setup ? context_get_vm(context, kvm) : -EINVAL;
	if (err)
		goto err_unlock;

	err = endpoint_lock(context);
	if (!err) {
		err = endpoint_add(endpoint);
		endpoint_unlock(context);
	}
	if (err) {
		context_put_vm(context);
		goto err_unlock;
	}
	kref_get(&context->ref);
	mutex_unlock(&context->attach_lock);
	return endpoint;

err_unlock:
	mutex_unlock(&context->attach_lock);
err_free:
	kfree(endpoint);
	return ERR_PTR(err);
}

/* Who has to go (@force) waits for as long as it takes. */
static int detach_lock(struct vtds_context *context, bool force)
{
	int err;

	if (force) {
		mutex_lock(&context->attach_lock);
		down_write(&context->gate);
		down_write(&context->engine.lock);
		return 0;
	}
	err = mutex_lock_killable(&context->attach_lock);
	if (err)
		return err;
	err = endpoint_lock(context);
	if (err)
		mutex_unlock(&context->attach_lock);
	return err;
}

/**
 * vtds_endpoint_detach() - take a device away from its vIOMMU
 * @endpoint: endpoint, freed on success
 * @force: do so even if its group cannot be given back to VFIO's domain
 *
 * Context: any process; may sleep.
 * Return: 0, or without @force an error, and it is still attached.
 */
int vtds_endpoint_detach(struct vtds_endpoint *endpoint, bool force)
{
	struct vtds_context *context = endpoint->context;
	int group_id = iommu_group_id(endpoint->group->iommu_group);
	int err;

	err = detach_lock(context, force);
	if (err)
		return err;
	err = vtds_group_leave(endpoint, force);
	if (!err) {
		trace_vtds_attach(endpoint->requester_id, group_id, false);
		list_del(&endpoint->link);
		vtds_resolve_clear(endpoint);
	}
	endpoint_unlock(context);
	if (!err)
		context_put_vm(context);
	mutex_unlock(&context->attach_lock);
	if (err)
		return err;

	kfree(endpoint);
	vtds_context_put(context);
	return 0;
}

static void vm_written(void *data, u64 gpa, unsigned int bytes)
{
	struct vtds_context *context = data;

	trace_vtds_write(gpa, bytes);
	vtds_engine_write(&context->engine, gpa, bytes);
}

/*
 * First everything lets go of the memory, then its pins go, and only then is
 * anything pinned again: what is pinned is not looked up in the memory slots.
 */
static void vm_removed(void *data, u64 gfn, u64 last_gfn)
{
	struct vtds_context *context = data;
	struct vtds_endpoint *endpoint;

	down_write(&context->engine.lock);
	vtds_engine_drop_range(&context->engine, gfn, last_gfn);
	list_for_each_entry(endpoint, &context->endpoints, link)
		vtds_resolve_clear(endpoint);
	vtds_pins_trim(&context->pins, gfn, last_gfn);

	vtds_endpoints_update(context);
	/* What is left of superpages that lost a part */
	vtds_engine_retry(&context->engine);
	up_write(&context->engine.lock);
}

static const struct vtds_vm_client vtds_context_vm_client = {
	.written = vm_written,
	.removed = vm_removed,
};
