// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * amd-iommu: capabilities, the event log and its interrupt, command order.
 * Sections are those of AMD's document 48882, revision 3.10.
 */
#include "guest.h"

#define AMD_BASE	0xfed80000u
#define DEVTAB		(AMD_BASE + 0x00)
#define CMDBUF		(AMD_BASE + 0x08)
#define EVTLOG		(AMD_BASE + 0x10)
#define CONTROL		(AMD_BASE + 0x18)
#define EFR		(AMD_BASE + 0x30)
#define CMD_HEAD	(AMD_BASE + 0x2000)
#define CMD_TAIL	(AMD_BASE + 0x2008)
#define EVT_HEAD	(AMD_BASE + 0x2010)
#define EVT_TAIL	(AMD_BASE + 0x2018)
#define STATUS		(AMD_BASE + 0x2020)

#define CONTROL_ENABLE	1u
#define CONTROL_EVENTS	(3u << 2)	/* log and interrupt */
#define CONTROL_COMMANDS (1u << 12)
#define EFR_PPR		(1u << 1)
#define EFR_GT		(1u << 4)
#define STATUS_OVERFLOW	(1u << 0)
#define STATUS_EVENT	(1u << 1)
#define RING_256	(8u << 24)	/* entries of 16 bytes; upper half */
#define RING_BYTES	4096u

/* Capability header, §3.2.1 */
#define CAP_ID		0xf
#define CAP_NPCACHE	(1u << 26)
#define CAP_IOTLB	(1u << 24)
#define PCI_CAP_MSI	5

#define CMD_WAIT	(1u << 28)	/* upper half */
#define CMD_DEVTAB	(2u << 28)
#define CMD_PAGES	(3u << 28)
#define CMD_WAIT_STORE	1u

#define V_TV		3u
#define MODE(levels)	((levels) << 9)
#define IR_IW		(3ull << 61)
#define RESERVED	(1ull << 52)
#define DTE_RESERVED	(1u << 2)
#define DTE_SA		(1ull << 34)
#define DOMAIN		5

/* Upper half of an event's first quadword, §2.5 "Event Log" */
#define EVENT_NONE		0
#define EVENT_ILLEGAL_DTE	(1u << 28)
#define EVENT_PAGE_FAULT	(2u << 28 | 1u << 20 | 1u << 23 | DOMAIN) /* PR, RZ */
#define EVENT_DEVTAB		(3u << 28 | 1u << 25)
#define EVENT_PAGETAB		(4u << 28 | 1u << 25 | DOMAIN)
#define EVENT_RZ		(1u << 23)

#define MSI_DATA	0xabcdu

static table_t devtab, commands, events, l3, l2, l1;
static volatile uint32_t msi, waited;

static uint32_t config(uint32_t devfn, uint32_t offset)
{
	outl(0xcf8, 1u << 31 | devfn << 8 | (offset & ~3u));
	return inl(0xcfc);
}

static void set_config(uint32_t devfn, uint32_t offset, uint32_t value)
{
	outl(0xcf8, 1u << 31 | devfn << 8 | offset);
	outl(0xcfc, value);
}

static uint32_t find_iommu(void)
{
	uint32_t devfn;

	for (devfn = 0; devfn < 256; devfn++)
		if (config(devfn, 8) >> 16 == 0x0806)
			break;
	return devfn;
}

static uint32_t find_cap(uint32_t devfn, uint32_t id)
{
	uint32_t offset = config(devfn, 0x34) & 0xff;

	while (offset && (config(devfn, offset) & 0xff) != id)
		offset = config(devfn, offset) >> 8 & 0xff;
	return offset;
}

/* An MSI is a write to memory: let it be one. */
static void set_msi(uint32_t devfn)
{
	uint32_t offset = find_cap(devfn, PCI_CAP_MSI);

	set_config(devfn, offset + 4, (uint32_t)&msi);
	set_config(devfn, offset + 8, 0);
	set_config(devfn, offset + 12, MSI_DATA);
	set_config(devfn, offset, config(devfn, offset) | 1u << 16);
}

/* Base registers only change while the IOMMU is off. */
static void enable(uint32_t devtab_gpa)
{
	writeq(DEVTAB, devtab_gpa);
	writeq(CMDBUF, (uint64_t)RING_256 << 32 | (uint32_t)commands);
	writeq(EVTLOG, (uint64_t)RING_256 << 32 | (uint32_t)events);
	writel(CMD_HEAD, 0);
	writel(CMD_TAIL, 0);
	writel(EVT_HEAD, 0);
	writel(EVT_TAIL, 0);
	writeq(CONTROL, CONTROL_ENABLE | CONTROL_EVENTS | CONTROL_COMMANDS);
}

static void disable(void)
{
	writeq(CONTROL, 0);
	writel(STATUS, STATUS_OVERFLOW | STATUS_EVENT);
}

static void command(uint64_t first, uint64_t second)
{
	uint32_t tail = readl(CMD_TAIL);

	commands[tail / 8] = first;
	commands[tail / 8 + 1] = second;
	writel(CMD_TAIL, (tail + 16) % RING_BYTES);
}

static void wait(void)
{
	waited = 0;
	command((uint64_t)CMD_WAIT << 32 | (uint32_t)&waited | CMD_WAIT_STORE, 1);
	while (!waited)
		;
}

static void invalidate_device(void)
{
	command((uint64_t)CMD_DEVTAB << 32 | DEVFN, 0);
	wait();
}

static void invalidate_pages(uint64_t address)
{
	command((uint64_t)(CMD_PAGES | DOMAIN) << 32, address);
	wait();
}

/* Tables in order: one page is mapped, at 0. */
static void reset_tables(void)
{
	int i;

	for (i = 0; i < 512; i++)
		devtab[i] = l3[i] = l2[i] = l1[i] = 0;
	l1[0] = 0x100000 | IR_IW | 1;
	l2[0] = (uint32_t)l1 | MODE(1) | IR_IW | 1;
	l3[0] = (uint32_t)l2 | MODE(2) | IR_IW | 1;
	devtab[4 * DEVFN] = (uint32_t)l3 | MODE(3) | IR_IW | V_TV;
	devtab[4 * DEVFN + 1] = DOMAIN;
}

/* Upper half of the next event's first quadword. */
static uint32_t take_event(int polls)
{
	uint32_t head = readl(EVT_HEAD);
	uint64_t event;
	int i;

	for (i = 0; i < polls && readl(EVT_TAIL) == head; i++)
		;
	if (readl(EVT_TAIL) == head)
		return EVENT_NONE;
	event = events[head / 8];
	writel(EVT_HEAD, (head + 16) % RING_BYTES);
	return (uint32_t)event == DEVFN ? event >> 32 : (uint32_t)event | 1u << 31;
}

static uint32_t event_address(void)
{
	return events[1];
}

static void check(const char *name, uint32_t want)
{
	enable((uint32_t)devtab);
	report(name, take_event(POLLS), want);
	take_event(1);
	disable();
	reset_tables();
}

static void check_promises(uint32_t iommu)
{
	uint32_t header = config(iommu, find_cap(iommu, CAP_ID));

	report("NpCache and IOTLB support are not promised",
	       header & (CAP_NPCACHE | CAP_IOTLB), 0);
	report("guest translation and page requests are not promised",
	       readl(EFR) & (EFR_GT | EFR_PPR), 0);
}

static void check_events(void)
{
	check("good tables: no event", EVENT_NONE);
	devtab[4 * DEVFN] |= DTE_RESERVED;
	check("reserved bit in the device table entry", EVENT_ILLEGAL_DTE | EVENT_RZ);
	devtab[4 * DEVFN] |= MODE(7);
	check("undefined Mode", EVENT_ILLEGAL_DTE);
	devtab[4 * DEVFN] = NOT_RAM | MODE(3) | IR_IW | V_TV;
	check("top paging table is not RAM", EVENT_PAGETAB);
	l3[0] = NOT_RAM | MODE(2) | IR_IW | 1;
	check("next paging table is not RAM", EVENT_PAGETAB);
	l3[0] |= RESERVED;
	check("reserved bit in a table pointer", EVENT_PAGE_FAULT);
	l2[0] |= MODE(2);
	check("next level is not lower", EVENT_PAGE_FAULT);
	l1[0] |= RESERVED;
	check("reserved bit in a leaf", EVENT_PAGE_FAULT);
	l1[0] |= RESERVED;
	devtab[4 * DEVFN + 1] |= DTE_SA;
	check("the same with SA set: no event", EVENT_NONE);

	enable(NOT_RAM);
	report("device table is not RAM", take_event(POLLS), EVENT_DEVTAB);
	report("  its address", event_address(), NOT_RAM + 32 * DEVFN);
	disable();
}

static void check_while_enabled(void)
{
	enable((uint32_t)devtab);
	report("enabled again", take_event(POLLS), EVENT_NONE);
	msi = 0;
	l1[3] = RESERVED | IR_IW | 1;
	report("bad leaf while enabled, no command", take_event(POLLS),
	       EVENT_PAGE_FAULT);
	report("  its address", event_address(), 3 * 4096);
	report("  EventLogInt", readl(STATUS) & STATUS_EVENT, STATUS_EVENT);
	report("  interrupt", msi, MSI_DATA);
	l1[3] = 0;
	invalidate_pages(3 * 4096);
	report("gone, invalidated: no event", take_event(POLLS), EVENT_NONE);

	devtab[4 * DEVFN] |= DTE_RESERVED;
	report("bad device table entry, no command: no event", take_event(POLLS),
	       EVENT_NONE);
	invalidate_device();
	report("INVALIDATE_DEVTAB_ENTRY makes it count", take_event(POLLS),
	       EVENT_ILLEGAL_DTE | EVENT_RZ);
	disable();
	reset_tables();
}

/* The module keeps 256 events; the log has room for one less than its entries. */
static void check_overflow(void)
{
	int i;

	for (i = 0; i < 512; i++)
		l1[i] = RESERVED | IR_IW | 1;
	enable((uint32_t)devtab);
	for (i = 0; i < POLLS && !(readl(STATUS) & STATUS_OVERFLOW); i++)
		;
	report("log overflows", readl(STATUS) & STATUS_OVERFLOW, STATUS_OVERFLOW);
	report("  and is full", readl(EVT_TAIL), RING_BYTES - 16);
	for (i = 0; i < 255 && take_event(1) == EVENT_PAGE_FAULT; i++)
		;
	report("  with the events", i, 255);
	writel(STATUS, STATUS_OVERFLOW);
	l1[7] = 0;
	l1[7] = RESERVED | IR_IW | 1;
	report("goes on when that is cleared", take_event(POLLS), EVENT_PAGE_FAULT);
	report("  at the begin", readl(EVT_TAIL), 0);
	disable();
	reset_tables();
}

void guest_main(void)
{
	uint32_t iommu = find_iommu();

	reset_tables();
	set_msi(iommu);
	check_promises(iommu);
	check_events();
	check_while_enabled();
	check_overflow();
	finish();
}
