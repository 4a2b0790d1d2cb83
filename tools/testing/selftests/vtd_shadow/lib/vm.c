// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "vm.h"

extern const u8 guest_blob[], guest_blob_end[];

#define CR0_PE		(1u << 0)
#define CR0_MP		(1u << 1)
#define CR0_ET		(1u << 4)
#define CR0_NE		(1u << 5)
#define CR0_WP		(1u << 16)
#define CR0_PG		(1u << 31)
#define CR4_PAE		(1u << 5)
#define CR4_OSFXSR	(1u << 9)
#define EFER_LME	(1u << 8)
#define EFER_LMA	(1u << 10)
#define PTE_PW		3ull
#define PTE_LARGE	(1ull << 7)
#define BYTES_2M	0x200000ull

static const struct {
	u64 gpa;
	u64 bytes;
	u32 flags;
} slots[SLOT_NR] = {
	[SLOT_RAM] = { 0, GPA_RAM_END, 0 },
	[SLOT_READONLY] = { GPA_READONLY, READONLY_BYTES, KVM_MEM_READONLY },
	[SLOT_EXTRA] = { GPA_EXTRA, EXTRA_BYTES, 0 },
	[SLOT_1G] = { GPA_1G, BYTES_1G, 0 },
};

void fatal(const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "# fatal: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, " (errno %d: %s)\n", saved, strerror(saved));
	va_end(ap);
	exit(1);
}

static void *map_or_die(void *where, size_t bytes, int flags, int fd)
{
	void *p = mmap(where, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		fatal("mmap of %zu bytes", bytes);
	return p;
}

/*
 * 1 GiB of guest memory for the price of RAM: slot 0's file again and again. A
 * leaf of 1 GiB then costs pins, but hardly any memory.
 */
static void *alias_ram(struct vm *vm, u64 bytes)
{
	char *base = map_or_die(NULL, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	u64 done, n;

	for (done = 0; done < bytes; done += n) {
		n = bytes - done < GPA_RAM_END ? bytes - done : GPA_RAM_END;
		map_or_die(base + done, n, MAP_SHARED | MAP_FIXED, vm->ram_fd);
	}
	return base;
}

static void slot_set(struct vm *vm, enum vm_slot slot, u64 bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = bytes ? slots[slot].flags : 0,
		.guest_phys_addr = slots[slot].gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)vm->mem[slot],
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
		fatal("KVM_SET_USER_MEMORY_REGION of slot %d", slot);
}

void vm_slot_add(struct vm *vm, enum vm_slot slot)
{
	u64 bytes = slots[slot].bytes;

	if (slot == SLOT_RAM)
		vm->mem[slot] = map_or_die(NULL, bytes, MAP_SHARED, vm->ram_fd);
	else if (slot == SLOT_1G)
		vm->mem[slot] = alias_ram(vm, bytes);
	else
		vm->mem[slot] = map_or_die(NULL, bytes, MAP_SHARED | MAP_ANONYMOUS, -1);
	slot_set(vm, slot, bytes);
}

void vm_slot_forget(struct vm *vm, enum vm_slot slot)
{
	slot_set(vm, slot, 0);
}

void vm_slot_delete(struct vm *vm, enum vm_slot slot)
{
	vm_slot_forget(vm, slot);
	munmap(vm->mem[slot], slots[slot].bytes);
	vm->mem[slot] = NULL;
}

static void *host_or_null(struct vm *vm, u64 gpa)
{
	int i;

	for (i = 0; i < SLOT_NR; i++)
		if (vm->mem[i] && gpa - slots[i].gpa < slots[i].bytes)
			return (char *)vm->mem[i] + (gpa - slots[i].gpa);
	return NULL;
}

bool vm_is_ram(struct vm *vm, u64 gpa)
{
	return host_or_null(vm, gpa);
}

void *vm_host(struct vm *vm, u64 gpa)
{
	void *host = host_or_null(vm, gpa);

	if (!host)
		fatal("gpa %#llx is not RAM", gpa);
	return host;
}

u64 vm_alloc(struct vm *vm, unsigned int pages)
{
	u64 gpa = vm->pool_next;

	if (gpa + pages * PAGE_BYTES > vm->pool_end)
		fatal("guest page pool is used up");
	vm->pool_next += pages * PAGE_BYTES;
	return gpa;
}

/* Identity map of the first 4 GiB in 2 MiB pages. */
static u64 build_cpu_tables(struct vm *vm)
{
	u64 *pml4 = vm_host(vm, GPA_CPU_TABLES);
	u64 *pdpt = pml4 + 512, *pd = pml4 + 1024;
	u64 i;

	pml4[0] = (GPA_CPU_TABLES + PAGE_BYTES) | PTE_PW;
	for (i = 0; i < 4; i++)
		pdpt[i] = (GPA_CPU_TABLES + (2 + i) * PAGE_BYTES) | PTE_PW;
	for (i = 0; i < 4 * 512; i++)
		pd[i] = (i * BYTES_2M) | PTE_PW | PTE_LARGE;
	return GPA_CPU_TABLES;
}

/* Long-mode SREGS are refused unless CPUID has long mode. */
static void set_cpuid(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	if (!cpuid)
		fatal("no memory");
	cpuid->nent = 256;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) ||
	    ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid))
		fatal("CPUID of a vCPU");
	free(cpuid);
}

static void set_registers(struct vcpu *vcpu, u64 cr3)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1,
	};
	struct kvm_regs regs = {
		.rflags = 2,
		.rip = GPA_CODE,
		.rdi = GPA_MAILBOX + vcpu->index * PAGE_BYTES,
		/* as after a call: 8 below a multiple of 16 */
		.rsp = GPA_STACK_TOP - vcpu->index * PAGE_BYTES - 8,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		fatal("KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = cr3;
	sregs.cr4 = CR4_PAE | CR4_OSFXSR;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		fatal("registers of a vCPU");
}

/* Runs until the guest ends a command. There is no interrupt in the guest. */
static void run_to_out(struct vcpu *vcpu)
{
	struct kvm_regs regs = { 0 };

	while (ioctl(vcpu->fd, KVM_RUN, 0))
		/* ENOMEM: a failure that was injected */
		if (errno != EINTR && errno != EAGAIN && errno != ENOMEM)
			fatal("KVM_RUN");
	if (vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == GUEST_PORT)
		return;
	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	errno = 0;
	fatal("vCPU %u: exit reason %u at rip %#llx, last command's gpa %#llx", vcpu->index,
	      vcpu->run->exit_reason, regs.rip,
	      ((struct guest_mailbox *)vm_host(vcpu->vm, GPA_MAILBOX + vcpu->index *
					       PAGE_BYTES))->cmd.gpa);
}

static void vcpu_create(struct vm *vm, unsigned int index, u64 cr3)
{
	struct vcpu *vcpu = &vm->vcpu[index];

	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, index);
	if (vcpu->fd < 0)
		fatal("KVM_CREATE_VCPU");
	vcpu->run = map_or_die(NULL, vm->run_bytes, MAP_SHARED, vcpu->fd);
	set_cpuid(vm, vcpu);
	set_registers(vcpu, cr3);
	run_to_out(vcpu);
}

void vm_create(struct vm *vm, unsigned int nr_vcpus)
{
	unsigned int i;
	u64 cr3;

	memset(vm, 0, sizeof(*vm));
	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		fatal("/dev/kvm");
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		fatal("KVM_CREATE_VM");
	vm->run_bytes = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->ram_fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (vm->ram_fd < 0 || ftruncate(vm->ram_fd, GPA_RAM_END))
		fatal("memfd for guest RAM");
	vm_slot_add(vm, SLOT_RAM);
	vm->pool_next = GPA_POOL;
	vm->pool_end = GPA_DATA_2M;
	memcpy(vm_host(vm, GPA_CODE), guest_blob, guest_blob_end - guest_blob);
	cr3 = build_cpu_tables(vm);
	for (i = 0; i < nr_vcpus; i++)
		vcpu_create(vm, i, cr3);
	vm->nr_vcpus = nr_vcpus;
}

void vm_hold_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
		fatal("a VM to keep");
}

void vm_destroy(struct vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		munmap(vm->vcpu[i].run, vm->run_bytes);
		close(vm->vcpu[i].fd);
	}
	close(vm->fd);
	close(vm->kvm_fd);
	for (i = 0; i < SLOT_NR; i++)
		if (vm->mem[i])
			munmap(vm->mem[i], slots[i].bytes);
	close(vm->ram_fd);
}

void vm_exec(struct vm *vm, unsigned int cpu, const struct guest_write *cmd)
{
	struct guest_mailbox *mb = vm_host(vm, GPA_MAILBOX + cpu * PAGE_BYTES);
	u64 before = mb->done;

	mb->cmd = *cmd;
	run_to_out(&vm->vcpu[cpu]);
	if (mb->done != before + 1)
		fatal("vCPU %u did not carry out its command", cpu);
}

void vm_store(struct vm *vm, u64 gpa, u64 value, unsigned int width)
{
	vm_exec(vm, 0, &(struct guest_write) {
		.op = GUEST_STORE, .gpa = gpa, .value = value, .width = width });
}

void vm_write64(struct vm *vm, u64 gpa, u64 value)
{
	vm_store(vm, gpa, value, 8);
}

static void batch_prepare(struct vm *vm, unsigned int cpu, const struct guest_write *w,
			  unsigned int nr)
{
	if (nr > GUEST_BATCH_MAX)
		fatal("batch of %u writes is too long", nr);
	memcpy(vm_host(vm, GPA_BATCH + cpu * GUEST_BATCH_BYTES), w, nr * sizeof(*w));
}

static struct guest_write batch_cmd(unsigned int cpu, unsigned int nr)
{
	return (struct guest_write) { .op = GUEST_BATCH, .count = nr,
		.value = GPA_BATCH + cpu * GUEST_BATCH_BYTES };
}

void vm_batch(struct vm *vm, unsigned int cpu, const struct guest_write *w, unsigned int nr)
{
	struct guest_write cmd = batch_cmd(cpu, nr);

	batch_prepare(vm, cpu, w, nr);
	vm_exec(vm, cpu, &cmd);
}

static void *batch_thread(void *arg)
{
	struct vcpu *vcpu = arg;

	run_to_out(vcpu);
	return NULL;
}

void vm_batch_start(struct vm *vm, unsigned int cpu, const struct guest_write *w,
		    unsigned int nr)
{
	struct guest_mailbox *mb = vm_host(vm, GPA_MAILBOX + cpu * PAGE_BYTES);

	batch_prepare(vm, cpu, w, nr);
	mb->cmd = batch_cmd(cpu, nr);
	mb->result = mb->done + 1;
	if (pthread_create(&vm->vcpu[cpu].thread, NULL, batch_thread, &vm->vcpu[cpu]))
		fatal("thread of vCPU %u", cpu);
}

void vm_batch_wait(struct vm *vm, unsigned int cpu)
{
	struct guest_mailbox *mb = vm_host(vm, GPA_MAILBOX + cpu * PAGE_BYTES);

	pthread_join(vm->vcpu[cpu].thread, NULL);
	if (mb->done != mb->result)
		fatal("vCPU %u did not carry out its batch", cpu);
}
