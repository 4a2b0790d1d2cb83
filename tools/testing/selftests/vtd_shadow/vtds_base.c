// SPDX-License-Identifier: GPL-2.0
/*
 * What the other programs stand on: the guest writes with each instruction, and
 * the device does DMA in the VMM's own domain. Needs no context of the module;
 * VTDS_DRIVER=vfio-pci runs it with plain VFIO.
 */
#include "test.h"

#define FILL	0x1122334455667788ull

FIXTURE(guest) {
	struct vm vm;
	u64 gpa;
};

FIXTURE_SETUP(guest)
{
	vm_create(&self->vm, 2);
	self->gpa = vm_alloc(&self->vm, 2);
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
}

/* Has vCPU 0 do @op on @gpa, which held @before, and returns what is there then. */
static u64 run_op(struct vm *vm, struct guest_write w, u64 before)
{
	*(u64 *)vm_host(vm, w.gpa) = before;
	vm_exec(vm, 0, &w);
	return vm_read64(vm, w.gpa);
}

#define RUN(...) run_op(&self->vm, (struct guest_write) { .gpa = self->gpa, __VA_ARGS__ }, FILL)

TEST_F(guest, stores)
{
	EXPECT_EQ(0x11223344556677aaull, RUN(.op = GUEST_STORE, .value = 0xaa, .width = 1));
	EXPECT_EQ(0x112233445566aabbull, RUN(.op = GUEST_STORE, .value = 0xaabb, .width = 2));
	EXPECT_EQ(0x11223344aabbccddull,
		  RUN(.op = GUEST_STORE, .value = 0xaabbccdd, .width = 4));
	EXPECT_EQ(0xa1b2c3d4e5f60718ull,
		  RUN(.op = GUEST_STORE, .value = 0xa1b2c3d4e5f60718, .width = 8));
}

TEST_F(guest, locked)
{
	EXPECT_EQ(0x5aull, RUN(.op = GUEST_XCHG, .value = 0x5a, .width = 8));
	EXPECT_EQ(0x6bull, RUN(.op = GUEST_CMPXCHG, .value = 0x6b, .width = 8));
	EXPECT_EQ(0x7c0000007dull, RUN(.op = GUEST_CMPXCHG8B, .value = 0x7c0000007d));
	EXPECT_EQ(FILL & 0xff00, RUN(.op = GUEST_LOCK_AND, .value = 0xff00, .width = 8));
	EXPECT_EQ(FILL | 0xff00, RUN(.op = GUEST_LOCK_OR, .value = 0xff00, .width = 8));
	EXPECT_EQ(FILL | 1, RUN(.op = GUEST_LOCK_BTS, .value = 0, .width = 8));
}

TEST_F(guest, read_modify_write)
{
	EXPECT_EQ(FILL & ~0xffull, RUN(.op = GUEST_AND, .value = 0, .width = 1));
	EXPECT_EQ(FILL | 0xf0, RUN(.op = GUEST_OR, .value = 0xf0, .width = 4));
	EXPECT_EQ(FILL + 1, RUN(.op = GUEST_INC, .width = 8));
}

TEST_F(guest, strings)
{
	EXPECT_EQ(0x1122333333333333ull,
		  RUN(.op = GUEST_REP_STOS, .value = 0x33, .width = 1, .count = 6));
	EXPECT_EQ(0x44ull, RUN(.op = GUEST_REP_STOS, .value = 0x44, .width = 8, .count = 512));
	EXPECT_EQ(0x44ull, vm_read64(&self->vm, self->gpa + 511 * 8));
	EXPECT_EQ(0ull, vm_read64(&self->vm, self->gpa + 512 * 8));
	*(u64 *)vm_host(&self->vm, self->gpa + 64) = 0x77;
	EXPECT_EQ(0x77ull, RUN(.op = GUEST_REP_MOVS, .value = self->gpa + 64, .width = 8,
			       .count = 1));
	EXPECT_EQ(5ull, RUN(.op = GUEST_SSE, .value = 5, .count = 6));
	EXPECT_EQ(6ull, vm_read64(&self->vm, self->gpa + 8));
}

TEST_F(guest, two_vcpus_at_once)
{
	static struct guest_write w[2][1000];
	unsigned int cpu, i;

	for (cpu = 0; cpu < 2; cpu++) {
		for (i = 0; i < 1000; i++)
			w[cpu][i] = (struct guest_write) { .op = GUEST_STORE, .width = 4,
				.gpa = self->gpa + i * 8 + cpu * 4, .value = i + cpu };
		vm_batch_start(&self->vm, cpu, w[cpu], 1000);
	}
	for (cpu = 0; cpu < 2; cpu++)
		vm_batch_wait(&self->vm, cpu);
	for (i = 0; i < 1000; i++)
		ASSERT_EQ(((i + 1ull) << 32) | i, vm_read64(&self->vm, self->gpa + i * 8));
}

FIXTURE(bypass) {
	struct vm vm;
	struct container container;
	struct dev dev[MAX_DEVICES];
	unsigned int nr_devs;
};

FIXTURE_SETUP(bypass)
{
	char bdf[MAX_DEVICES][16];
	unsigned int i;

	vm_create(&self->vm, 1);
	container_open(&self->container);
	self->nr_devs = dev_find(bdf);
	for (i = 0; i < self->nr_devs; i++)
		dev_open(&self->dev[i], &self->container, &self->vm, bdf[i],
			 i ? &self->dev[0] : NULL);
	container_map(&self->container, 0, vm_host(&self->vm, 0), GPA_RAM_END);
	if (!dev_can_dma(&self->dev[0]))
		SKIP(return, "device is not edu");
}

FIXTURE_TEARDOWN(bypass)
{
	unsigned int i;

	for (i = self->nr_devs; i--;)
		dev_close(&self->dev[i]);
	container_close(&self->container);
	vm_destroy(&self->vm);
}

TEST_F(bypass, dma_copies)
{
	u64 src = vm_alloc(&self->vm, 2), dst = vm_alloc(&self->vm, 2);
	u8 *from = vm_host(&self->vm, src), *to = vm_host(&self->vm, dst);
	unsigned int d, i;

	for (d = 0; d < self->nr_devs; d++) {
		for (i = 0; i < 2 * PAGE_BYTES; i++)
			from[i] = i * 7 + i / 256 + d;
		memset(to, 0xee, 2 * PAGE_BYTES);
		/* across a page boundary */
		edu_read(&self->dev[d], src + 0x801, 0, 4095);
		edu_write(&self->dev[d], dst + 0x803, 0, 4095);
		EXPECT_EQ(0, memcmp(from + 0x801, to + 0x803, 4095));
		EXPECT_EQ(0xee, to[0x802]);
		EXPECT_EQ(0xee, to[0x1802]);
	}
}

TEST_F(bypass, tells_its_aperture)
{
	u64 last = container_last_iova(&self->container);

	EXPECT_LE(0xffffffffull, last);
	TH_LOG("last IOVA is %#llx", last);
}

TEST_HARNESS_MAIN
