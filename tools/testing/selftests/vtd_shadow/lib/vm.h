/* SPDX-License-Identifier: GPL-2.0 */
/* A bare-metal virtual machine on raw KVM ioctls. See guest.h for its memory. */
#ifndef VTDS_TEST_VM_H
#define VTDS_TEST_VM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

#define PAGE_BYTES	4096ull

typedef __u64 u64;
typedef __s32 s32;
typedef __u32 u32;
typedef __u16 u16;
typedef __u8 u8;

/* Ends the test program: for what must work before anything can be tested. */
void fatal(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

enum vm_slot { SLOT_RAM, SLOT_READONLY, SLOT_EXTRA, SLOT_1G, SLOT_NR };

struct vcpu {
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	struct vm *vm;
	unsigned int index;
};

struct vm {
	int kvm_fd;
	int fd;
	int ram_fd;			/* memfd behind slot 0 and SLOT_1G */
	size_t run_bytes;
	u64 pool_next;			/* bump allocator of pages */
	u64 pool_end;
	unsigned int nr_vcpus;
	struct vcpu vcpu[GUEST_MAX_VCPUS];
	void *mem[SLOT_NR];		/* host address of each slot, or NULL */
};

/*
 * Keeps a VM with an idle vCPU as long as the program lives. KVM patches the
 * kernel's code when the first VM comes and the last one goes (static keys), which
 * takes time, and older emulators (QEMU 7.2) with several processors trip over it.
 */
void vm_hold_kvm(void);

void vm_create(struct vm *vm, unsigned int nr_vcpus);
void vm_destroy(struct vm *vm);

/* Memory slots beyond RAM; set anew after vm_slot_delete() for fresh pages. */
void vm_slot_add(struct vm *vm, enum vm_slot slot);
void vm_slot_delete(struct vm *vm, enum vm_slot slot);

/* Deletes the slot, but keeps its memory mapped in the VMM. */
void vm_slot_forget(struct vm *vm, enum vm_slot slot);

/* Host address of guest memory. What is written here is not trapped. */
void *vm_host(struct vm *vm, u64 gpa);
bool vm_is_ram(struct vm *vm, u64 gpa);

/* A zeroed page, or @pages contiguous ones, of guest RAM; never given back. */
u64 vm_alloc(struct vm *vm, unsigned int pages);

/* Has a vCPU carry out one command. When it returns the write has retired. */
void vm_exec(struct vm *vm, unsigned int cpu, const struct guest_write *cmd);

/* Stores by vCPU 0. */
void vm_store(struct vm *vm, u64 gpa, u64 value, unsigned int width);
void vm_write64(struct vm *vm, u64 gpa, u64 value);

/* Many writes in one go; waits for the end of them with vm_batch_wait(). */
void vm_batch_start(struct vm *vm, unsigned int cpu, const struct guest_write *w,
		    unsigned int nr);
void vm_batch_wait(struct vm *vm, unsigned int cpu);
void vm_batch(struct vm *vm, unsigned int cpu, const struct guest_write *w,
	      unsigned int nr);

static inline u64 vm_read64(struct vm *vm, u64 gpa)
{
	return *(volatile u64 *)vm_host(vm, gpa);
}

#endif
