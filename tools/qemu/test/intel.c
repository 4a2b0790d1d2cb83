// SPDX-License-Identifier: GPL-2.0-or-later
/* intel-iommu: the fault recording register. */
#include "guest.h"

#define VTD_BASE	0xfed90000u
#define CAP		(VTD_BASE + 0x08)
#define GCMD		(VTD_BASE + 0x18)
#define GSTS		(VTD_BASE + 0x1c)
#define RTADDR		(VTD_BASE + 0x20)
#define CCMD		(VTD_BASE + 0x28)
#define FSTS		(VTD_BASE + 0x34)
#define IVA		(VTD_BASE + 0xf0)
#define IOTLB		(VTD_BASE + 0xf8)
#define FRCD		(VTD_BASE + 0x220)

#define CAP_CM		(1u << 7)
#define GCMD_TE		(1u << 31)
#define GCMD_SRTP	(1u << 30)
#define GCMD_ONESHOT	0x96ffffffu
#define FRCD_F		(1u << 31)	/* in the highest word */
#define FSTS_W1C	0x11u

#define RESERVED	(1ull << 45)	/* above aw-bits=39 */

#define FR_NONE			0x0
#define FR_CONTEXT_INVALID	0x3
#define FR_PAGING_ACCESS	0x7
#define FR_ROOT_ACCESS		0x8
#define FR_CONTEXT_ACCESS	0x9
#define FR_ROOT_RESERVED	0xa
#define FR_CONTEXT_RESERVED	0xb
#define FR_PAGING_RESERVED	0xc

static table_t root, context, l3, l2, l1;

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

static void check(const char *name, uint32_t want)
{
	enable((uint32_t)root);
	report(name, take_fault(POLLS), want);
	take_fault(1);
	disable();
	reset_tables();
}

void guest_main(void)
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

	finish();
}
