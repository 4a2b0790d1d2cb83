/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guests without an OS have in common (32-bit, multiboot). They write
 * bad translation entries for an assigned device at 00:02.0 and look for the
 * fault that the vIOMMU's architecture defines for each. The device does no DMA:
 * the module finds bad entries when they are written. They print TAP on the
 * serial port and exit through isa-debug-exit.
 */
#include <stdint.h>

#define DEVFN		(2 << 3)
#define NOT_RAM		0x60000000u	/* the guest has less */

/* What a write to a table caused takes a way through QEMU's main loop. */
#define POLLS		3000

struct multiboot {
	uint32_t magic, flags, checksum;
};

__attribute__((section(".multiboot"), used))
static const struct multiboot header = { 0x1badb002, 0, -0x1badb002u };

typedef volatile uint64_t table_t[512] __attribute__((aligned(4096)));
static int tests, failed;

void guest_main(void);

static void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

__attribute__((unused))
static void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

__attribute__((unused))
static uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
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

static uint32_t readl(uint32_t address)
{
	return *(volatile uint32_t *)address;
}

static void writel(uint32_t address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

static void writeq(uint32_t address, uint64_t value)
{
	writel(address, value);
	writel(address + 4, value >> 32);
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

static void finish(void)
{
	print(failed ? "# some failed\n1.." : "# all passed\n1..");
	print_decimal(tests);
	print("\n");
	outb(0xf4, failed ? 1 : 0);	/* exit status 2n + 1 */
}

static uint8_t stack[16384] __attribute__((used, aligned(16)));

__asm__(".globl _start\n"
	"_start: movl $stack + 16384, %esp\n"
	"call guest_main\n"
	"1: hlt\n"
	"jmp 1b\n");
