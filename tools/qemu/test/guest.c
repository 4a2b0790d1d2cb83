// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest without an OS (32-bit, multiboot) that writes bad translation
 * entries for an assigned device at 00:01.0 and looks in the vIOMMU's fault
 * recording register for the fault that VT-d defines for each. The device does
 * no DMA: the module finds bad entries when they are written. Prints TAP on the
 * serial port; exits through isa-debug-exit.
 */
#include <stdint.h>

#define VTD_BASE	0xfed90000u
#define CAP		0x08
#define GCMD		0x18
#define GSTS		0x1c
#define RTADDR		0x20
#define CCMD		0x28
#define FSTS		0x34
#define IVA		0xf0
#define IOTLB		0xf8
#define FRCD		0x220

#define CAP_CM		(1u << 7)
#define GCMD_TE		(1u << 31)
#define GCMD_SRTP	(1u << 30)
#define GCMD_ONESHOT	0x96ffffffu
#define FRCD_F		(1u << 31)	/* in the highest word */
#define FSTS_W1C	0x11u

#define DEVFN		(1 << 3)
#define NOT_RAM		0x60000000u	/* the guest has less */
#define RESERVED	(1ull << 45)	/* above aw-bits=39 */

#define FR_NONE			0x0
#define FR_CONTEXT_INVALID	0x3
#define FR_PAGING_ACCESS	0x7
#define FR_ROOT_ACCESS		0x8
#define FR_CONTEXT_ACCESS	0x9
#define FR_ROOT_RESERVED	0xa
#define FR_CONTEXT_RESERVED	0xb
#define FR_PAGING_RESERVED	0xc

struct multiboot {
	uint32_t magic, flags, checksum;
};

__attribute__((section(".multiboot"), used))
static const struct multiboot header = { 0x1badb002, 0, -0x1badb002u };

typedef volatile uint64_t table_t[512] __attribute__((aligned(4096)));
static table_t root, context, l3, l2, l1;
static int tests, failed;

static void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void print(const char *s)
{
	for (; *s; s++) {
		while (!(inb(0x3f8 + 5) & 0x20))
			;
		outb(0x3f8, *s);
	}
}

static void print_hex(uint32_t value)
{
	static const char digits[] = "0123456789abcdef";
	char s[] = "0x00000000";
	int i;

	for (i = 9; i > 1; i--, value >>= 4)
		s[i] = digits[value & 15];
	print(s);
}

static void print_decimal(unsigned int value)
{
	if (value > 9)
		print_decimal(value / 10);
	print((const char[]) { '0' + value % 10, 0 });
}

static uint32_t readl(uint32_t reg)
{
	return *(volatile uint32_t *)(VTD_BASE + reg);
}

static void writel(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)(VTD_BASE + reg) = value;
}

static void writeq(uint32_t reg, uint64_t value)
{
	writel(reg, value);
	writel(reg + 4, value >> 32);
}

static void enable(uint32_t root_gpa)
{
	writeq(RTADDR, root_gpa);
	writel(GCMD, (readl(GSTS) & GCMD_ONESHOT) | GCMD_SRTP);
	writel(GCMD, (readl(GSTS) & GCMD_ONESHOT) | GCMD_TE);
}

static void disable(void)
{
	writel(GCMD, readl(GSTS) & GCMD_ONESHOT & ~GCMD_TE);
}

/* All through the registers: the queue is left to Linux guests. */
static void invalidate_all(void)
{
	writeq(CCMD, 1ull << 63 | 1ull << 61);
	while (readl(CCMD + 4) & 1u << 31)
		;
	writeq(IOTLB, 1ull << 63 | 1ull << 60);
	while (readl(IOTLB + 4) & 1u << 31)
		;
}

/* Tables in order: one page is mapped, at 0. */
static void reset_tables(void)
{
	int i;

	for (i = 0; i < 512; i++)
		root[i] = context[i] = l3[i] = l2[i] = l1[i] = 0;
	l1[0] = 0x100000 | 3;
	l2[0] = (uint32_t)l1 | 3;
	l3[0] = (uint32_t)l2 | 3;
	context[2 * DEVFN] = (uint32_t)l3 | 1;
	context[2 * DEVFN + 1] = 1 << 8 | 1;	/* domain 1, 3 levels */
	root[0] = (uint32_t)context | 1;
}

/* What a write to a table caused takes a way through QEMU's main loop. */
#define POLLS	3000

static uint32_t take_fault(int polls)
{
	uint32_t hi = 0, sid = 0;
	int i;

	for (i = 0; i < polls; i++) {
		hi = readl(FRCD + 12);
		if (hi & FRCD_F)
			break;
	}
	if (!(hi & FRCD_F))
		return FR_NONE;
	sid = readl(FRCD + 8) & 0xffff;
	writel(FRCD + 12, FRCD_F);
	writel(FSTS, FSTS_W1C);
	return sid == DEVFN ? hi & 0xff : 0x10000 | sid;
}

static void report(const char *name, uint32_t got, uint32_t want)
{
	tests++;
	if (got != want) {
		failed++;
		print("not ");
	}
	print("ok - ");
	print(name);
	if (got != want) {
		print(": got ");
		print_hex(got);
		print(" want ");
		print_hex(want);
	}
	print("\n");
}

static void check(const char *name, uint32_t want)
{
	enable((uint32_t)root);
	report(name, take_fault(POLLS), want);
	take_fault(1);
	disable();
	reset_tables();
}

int guest_main(void)
{
	report("CAP.CM is 0", readl(CAP) & CAP_CM, 0);
	reset_tables();
	check("good tables: no fault", FR_NONE);

	root[0] |= 2;
	check("reserved bit in the root entry", FR_ROOT_RESERVED);
	root[0] = NOT_RAM | 1;
	check("context table is not RAM", FR_CONTEXT_ACCESS);
	context[2 * DEVFN] |= 1 << 4;
	check("reserved bit in the context entry", FR_CONTEXT_RESERVED);
	context[2 * DEVFN] |= 3 << 2;
	check("undefined translation type", FR_CONTEXT_INVALID);
	context[2 * DEVFN + 1] = 1 << 8 | 2;
	check("address width that was not promised", FR_CONTEXT_INVALID);
	context[2 * DEVFN] = NOT_RAM | 1;
	check("top paging table is not RAM", FR_CONTEXT_INVALID);
	l3[0] = NOT_RAM | 3;
	check("next paging table is not RAM", FR_PAGING_ACCESS);
	l3[0] |= RESERVED;
	check("reserved bit in a table pointer", FR_PAGING_RESERVED);
	l1[0] |= RESERVED;
	check("reserved bit in a leaf", FR_PAGING_RESERVED);
	context[2 * DEVFN] |= 2;
	l1[0] |= RESERVED;
	check("the same with FPD set: no fault", FR_NONE);

	enable(NOT_RAM);
	report("root table is not RAM", take_fault(POLLS), FR_ROOT_ACCESS);
	disable();

	enable((uint32_t)root);
	report("enabled again", take_fault(POLLS), FR_NONE);
	l1[1] = RESERVED | 3;
	report("bad leaf while enabled, no invalidation", take_fault(POLLS),
	       FR_PAGING_RESERVED);
	l1[1] = 0;
	invalidate_all();
	report("gone: no fault", take_fault(POLLS), FR_NONE);
	disable();

	print(failed ? "# some failed\n1.." : "# all passed\n1..");
	print_decimal(tests);
	print("\n");
	outb(0xf4, failed ? 1 : 0);	/* exit status 2n + 1 */
	return 0;
}

static uint8_t stack[16384] __attribute__((used, aligned(16)));

__asm__(".globl _start\n"
	"_start: movl $stack + 16384, %esp\n"
	"call guest_main\n"
	"1: hlt\n"
	"jmp 1b\n");
