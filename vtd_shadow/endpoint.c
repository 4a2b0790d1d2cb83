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
	WRITE_ONCE(context->stale, false);
	/* All first: endpoints of one group are looked at together. */
	list_for_each_entry(endpoint, &context->endpoints, link)
		if (!READ_ONCE(endpoint->closed))
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
		if (endpoint->requester_id == requester_id && !READ_ONCE(endpoint->closed))
			return endpoint;
	return NULL;
}

/**
 * vtds_endpoints_open() - count the devices behind a vIOMMU
 * @context: context
 *
 * Context: engine.lock held.
 */
unsigned int vtds_endpoints_open(struct vtds_context *context)
{
	struct vtds_endpoint *endpoint;
	unsigned int n = 0;

	list_for_each_entry(endpoint, &context->endpoints, link)
		n += !READ_ONCE(endpoint->closed);
	return n;
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

static void endpoint_free(struct vtds_endpoint *endpoint)
{
	struct vtds_context *context = endpoint->context;

	put_device(endpoint->dev);
	kfree(endpoint);
	vtds_context_put(context);
}

/* The caller has a reference to the context, so its locks stay. */
static void endpoint_remove(struct vtds_endpoint *endpoint)
{
	trace_vtds_attach(endpoint->requester_id,
			  iommu_group_id(endpoint->group->iommu_group), false);
	list_del(&endpoint->link);
	vtds_group_leave(endpoint);
	vtds_resolve_clear(endpoint);
	endpoint_free(endpoint);
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
	if (!context->vm || !list_empty(&context->endpoints))
		return;
	vtds_vm_put(context->vm);
	context->vm = NULL;
	vtds_pins_trim(&context->pins, 0, U64_MAX >> PAGE_SHIFT);
}

/* One at a time: what one waits for the next one would. */
static int context_get_workqueue(struct vtds_context *context)
{
	lockdep_assert_held(&context->attach_lock);
	if (!context->workqueue)
		context->workqueue = alloc_ordered_workqueue("vtd_shadow/%d", 0,
							     task_tgid_nr(current));
	return context->workqueue ? 0 : -ENOMEM;
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

/* Second step of vtds_endpoint_close(). */
static int endpoints_reap(struct vtds_context *context)
{
	struct vtds_endpoint *endpoint, *next;
	int err;

	lockdep_assert_held(&context->attach_lock);
	err = endpoint_lock(context);
	if (err)
		return err;
	list_for_each_entry_safe(endpoint, next, &context->endpoints, link)
		if (vtds_group_has_closed(endpoint))
			endpoint_remove(endpoint);
	endpoint_unlock(context);
	context_put_vm(context);
	return 0;
}

/**
 * vtds_endpoints_reap() - remove the endpoints whose devices are closed
 * @context: context; the caller has a reference
 *
 * Context: process; may sleep, for as long as guest memory is waited for.
 */
void vtds_endpoints_reap(struct vtds_context *context)
{
	/* Killable, as all that waits for guest memory; a worker is not killed. */
	if (mutex_lock_killable(&context->attach_lock))
		return;
	endpoints_reap(context);
	mutex_unlock(&context->attach_lock);
}

/* With attach_lock held. */
static int endpoint_attach(struct vtds_endpoint *endpoint, struct kvm *kvm)
{
	struct vtds_context *context = endpoint->context;
	int err;

	if (!context->setup)
		return -EINVAL;
	/* What is closed is not to be in the way of what is opened. */
	err = endpoints_reap(context);
	if (err)
		return err;
	err = context_get_workqueue(context);
	if (err)
		return err;
	err = context_get_vm(context, kvm);
	if (err)
		return err;
	err = endpoint_lock(context);
	if (!err) {
		err = endpoint_add(endpoint);
		endpoint_unlock(context);
	}
	if (err)
		context_put_vm(context);
	return err;
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
 * IOMMU group, -ENOMEM, -EINTR.
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
	vtds_context_get(context);
	endpoint->context = context;
	endpoint->dev = get_device(dev);
	endpoint->mapping = mapping;
	endpoint->requester_id = requester_id;

	err = mutex_lock_killable(&context->attach_lock);
	if (!err) {
		err = endpoint_attach(endpoint, kvm);
		mutex_unlock(&context->attach_lock);
	}
	if (!err)
		return endpoint;
	endpoint_free(endpoint);
	return ERR_PTR(err);
}

/* With the locks of endpoint_lock() held. */
static int endpoint_detach(struct vtds_endpoint *endpoint)
{
	int err = vtds_group_detach(endpoint);

	if (!err)
		endpoint_remove(endpoint);
	return err;
}

/**
 * vtds_endpoint_detach() - take a device away from its vIOMMU
 * @endpoint: endpoint, freed on success
 *
 * Context: in the VMM's process, with a reference to the context; may sleep.
 * Return: 0, or an error, and it is still attached.
 */
int vtds_endpoint_detach(struct vtds_endpoint *endpoint)
{
	struct vtds_context *context = endpoint->context;
	int err;

	err = mutex_lock_killable(&context->attach_lock);
	if (err)
		return err;
	err = endpoint_lock(context);
	if (!err) {
		err = endpoint_detach(endpoint);
		endpoint_unlock(context);
		context_put_vm(context);
	}
	mutex_unlock(&context->attach_lock);
	return err;
}

/**
 * vtds_endpoint_close() - the device is closed
 * @endpoint: endpoint, not to be used any more
 *
 * The device and its group are VFIO's when this returns. What there is for it here
 * goes later: that needs locks which are held while guest memory is waited for, and
 * who closes a device holds locks that do not concern our VMM alone.
 *
 * Context: any process, with a reference to the context; does not wait for the VMM
 * longer than vtds_context_reap() does.
 */
void vtds_endpoint_close(struct vtds_endpoint *endpoint)
{
	struct vtds_context *context = endpoint->context;

	mutex_lock(&context->bars_lock);
	endpoint->mapping = NULL;
	mutex_unlock(&context->bars_lock);
	vtds_group_close(endpoint);
	vtds_context_reap(context);
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
