// SPDX-License-Identifier: GPL-2.0
/*
 * The only place that knows KVM. All it uses is KVM's external write tracking
 * and the inline memory slot helpers, which are what is left to modules in new
 * kernels.
 */
#include <linux/err.h>
#include <linux/error-injection.h>
#include <linux/kvm_host.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#include <asm/kvm_page_track.h>

#include "compat.h"
#include "kvm.h"

/**
 * struct vtds_vm - a VM whose guest writes we hear of
 * @kvm: the VM; the registered notifier holds a reference
 * @node: the notifier
 * @client: who is told
 * @data: first argument for @client
 */
struct vtds_vm {
	struct kvm *kvm;
	struct kvm_page_track_notifier_node node;
	const struct vtds_vm_client *client;
	void *data;
};

static void vtds_vm_track_write(gpa_t gpa, const u8 *new, int bytes,
				struct kvm_page_track_notifier_node *node)
{
	struct vtds_vm *vm = container_of(node, struct vtds_vm, node);

	vm->client->written(vm->data, gpa, bytes);
}

static void vtds_vm_track_remove_region(gfn_t gfn, unsigned long nr_pages,
					struct kvm_page_track_notifier_node *node)
{
	struct vtds_vm *vm = container_of(node, struct vtds_vm, node);

	vm->client->removed(vm->data, gfn, gfn + nr_pages - 1);
}

/**
 * vtds_vm_get() - start to listen to a VM
 * @kvm: the VM, of the current process, with a reference held by the caller
 * @client: who is told
 * @data: first argument for @client
 *
 * Context: process; may sleep; no lock held that @client takes.
 * Return: the VM, or ERR_PTR(): -ESRCH another process's VM, -ENOMEM.
 */
struct vtds_vm *vtds_vm_get(struct kvm *kvm, const struct vtds_vm_client *client,
			    void *data)
{
	struct vtds_vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	int err, idx;

	if (!vm)
		return ERR_PTR(-ENOMEM);
	vm->kvm = kvm;
	vm->client = client;
	vm->data = data;
	vm->node.track_write = vtds_vm_track_write;
	vm->node.track_remove_region = vtds_vm_track_remove_region;

	/* It walks the memory slots, and takes that for granted. */
	idx = srcu_read_lock(&kvm->srcu);
	err = kvm_page_track_register_notifier(kvm, &vm->node);
	srcu_read_unlock(&kvm->srcu, idx);
	if (err) {
		kfree(vm);
		return ERR_PTR(err);
	}
	return vm;
}

/**
 * vtds_vm_put() - stop listening
 * @vm: from vtds_vm_get(), with nothing tracked any more
 *
 * Waits for callbacks under way.
 *
 * Context: process; may sleep; no lock held that the client takes.
 */
void vtds_vm_put(struct vtds_vm *vm)
{
	kvm_page_track_unregister_notifier(vm->kvm, &vm->node);
	kfree(vm);
}

/** vtds_vm_is_smp() - whether there is more than one vCPU */
bool vtds_vm_is_smp(const struct vtds_vm *vm)
{
	return atomic_read(&vm->kvm->online_vcpus) > 1;
}

/** vtds_vm_is() - whether this is that VM */
bool vtds_vm_is(const struct vtds_vm *vm, const struct kvm *kvm)
{
	return vm->kvm == kvm;
}

/**
 * vtds_vm_hva() - where a guest page is in the VMM's memory
 * @vm: VM
 * @gfn: guest frame number
 * @write: it will be written
 * @hva: out: user address
 * @n: in: pages wanted; out: of these, pages that follow in the same memory slot
 *
 * Context: may sleep. The answer is good for as long as the caller holds a lock
 * that client->removed() waits for.
 * Return: 0, -ENXIO (not in a memory slot), -EROFS (read-only slot).
 */
int vtds_vm_hva(struct vtds_vm *vm, u64 gfn, bool write, unsigned long *hva,
		unsigned int *n)
{
	struct kvm_memory_slot *slot;
	int err = -ENXIO;
	int idx;

	idx = srcu_read_lock(&vm->kvm->srcu);
	slot = __gfn_to_memslot(kvm_memslots(vm->kvm), gfn);
	if (slot && !(slot->flags & KVM_MEMSLOT_INVALID)) {
		*hva = __gfn_to_hva_memslot(slot, gfn);
		*n = min_t(u64, *n, slot->base_gfn + slot->npages - gfn);
		err = write && (slot->flags & KVM_MEM_READONLY) ? -EROFS : 0;
	}
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return err;
}

/**
 * vtds_vm_gap() - how far there is no memory slot
 * @vm: VM
 * @gfn: guest frame number
 * @n: how far to look
 *
 * Context: may sleep. Return: pages from @gfn on without a memory slot, up to @n;
 * 1 if @gfn has one.
 */
u64 vtds_vm_gap(struct vtds_vm *vm, u64 gfn, u64 n)
{
	struct kvm_memslot_iter iter;
	u64 gap = n;
	int idx;

	idx = srcu_read_lock(&vm->kvm->srcu);
	kvm_for_each_memslot_in_gfn_range(&iter, kvm_memslots(vm->kvm), gfn, gfn + n) {
		gap = iter.slot->base_gfn > gfn ? iter.slot->base_gfn - gfn : 1;
		break;
	}
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return gap;
}

/**
 * vtds_vm_track() - trap guest writes to a page
 * @vm: VM
 * @gfn: guest frame number, not tracked by us
 *
 * KVM counts in 16 bits; each page is tracked once by us.
 *
 * Context: may sleep; as for vtds_vm_hva().
 * Return: 0 or -ENXIO (not in a memory slot).
 */
int vtds_vm_track(struct vtds_vm *vm, u64 gfn)
{
	return kvm_write_track_add_gfn(vm->kvm, gfn) ? -ENXIO : 0;
}
ALLOW_ERROR_INJECTION(vtds_vm_track, ERRNO);

/**
 * vtds_vm_tracked() - whether a page that we track still is tracked
 * @vm: VM
 * @gfn: guest frame number
 *
 * KVM says which frames a removed memory slot had, but not which address space it
 * was of, nor whether it is only moved. The count goes with the slot.
 *
 * Context: may sleep; as for vtds_vm_hva().
 */
bool vtds_vm_tracked(struct vtds_vm *vm, u64 gfn)
{
	struct kvm_memory_slot *slot;
	bool tracked = false;
	int idx;

	idx = srcu_read_lock(&vm->kvm->srcu);
	slot = __gfn_to_memslot(kvm_memslots(vm->kvm), gfn);
	if (slot && slot->arch.gfn_write_track)
		tracked = READ_ONCE(slot->arch.gfn_write_track[gfn - slot->base_gfn]);
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return tracked;
}

/**
 * vtds_vm_untrack() - undo vtds_vm_track(), unless the slot was removed since
 * @vm: VM
 * @gfn: guest frame number
 *
 * Context: may sleep; as for vtds_vm_hva().
 */
void vtds_vm_untrack(struct vtds_vm *vm, u64 gfn)
{
	if (vtds_vm_tracked(vm, gfn))
		kvm_write_track_remove_gfn(vm->kvm, gfn);
}
