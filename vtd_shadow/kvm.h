/* SPDX-License-Identifier: GPL-2.0 */
/* The guest's VM: write tracking and memory slots. No KVM header is needed here. */
#ifndef VTDS_KVM_H
#define VTDS_KVM_H

#include <linux/types.h>

struct kvm;
struct vtds_vm;

/**
 * struct vtds_vm_client - what KVM tells
 * @written: A vCPU wrote @bytes at @gpa, which may or may not be tracked; guest
 *	memory is updated. In vCPU context, may sleep, but must not take any lock
 *	of KVM that is held around waiting for kvm->srcu (slots_lock).
 * @removed: A memory slot with these frames was deleted or moved, and tracking of
 *	its pages ended. It may be one of the other address space (x86's SMM): see
 *	vtds_vm_tracked(). In the context of the ioctl, with slots_lock held; may sleep.
 */
struct vtds_vm_client {
	void (*written)(void *data, u64 gpa, unsigned int bytes);
	void (*removed)(void *data, u64 gfn, u64 last_gfn);
};

struct vtds_vm *vtds_vm_get(struct kvm *kvm, const struct vtds_vm_client *client,
			    void *data);
void vtds_vm_put(struct vtds_vm *vm);
bool vtds_vm_is_smp(const struct vtds_vm *vm);
bool vtds_vm_is(const struct vtds_vm *vm, const struct kvm *kvm);
int vtds_vm_hva(struct vtds_vm *vm, u64 gfn, bool write, unsigned long *hva,
		unsigned int *n);
u64 vtds_vm_gap(struct vtds_vm *vm, u64 gfn, u64 n);
int vtds_vm_track(struct vtds_vm *vm, u64 gfn);
bool vtds_vm_tracked(struct vtds_vm *vm, u64 gfn);
void vtds_vm_untrack(struct vtds_vm *vm, u64 gfn);

#endif /* VTDS_KVM_H */
