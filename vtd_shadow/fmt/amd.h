/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AMD IOMMU: device-table entries and v1 (host) page-table entries.
 *
 * Rules are from "AMD I/O Virtualization Technology (IOMMU) Specification",
 * document 48882, revision 3.10: §2.2.2.1 "Device Table Entry Format", §2.2.3
 * "I/O Page Tables for Host Translations".
 */
#ifndef VTDS_FMT_AMD_H
#define VTDS_FMT_AMD_H

#include <linux/bitops.h>
#include <linux/bits.h>

#include "entry.h"

/* §2.2.3: page directory and page translation entries */
#define VTDS_AMD_PR		BIT_ULL(0)
#define VTDS_AMD_NEXT		GENMASK_ULL(11, 9)
#define VTDS_AMD_ADDR		GENMASK_ULL(51, 12)
#define VTDS_AMD_LEAF_RSVD	GENMASK_ULL(58, 52)	/* U and FC may be set */
#define VTDS_AMD_TABLE_RSVD	GENMASK_ULL(60, 52)
#define VTDS_AMD_IR		BIT_ULL(61)
#define VTDS_AMD_IW		BIT_ULL(62)

/* Next Level values that are no level */
#define VTDS_AMD_NEXT_LEAF	0	/* page of the level's size */
#define VTDS_AMD_NEXT_SIZED	7	/* page of the size in the address */

/* §2.2.2.1: device-table entry, by quadword */
#define VTDS_AMD_DTE_BYTES	32
#define VTDS_AMD_DTE0_V		BIT_ULL(0)
#define VTDS_AMD_DTE0_TV	BIT_ULL(1)
#define VTDS_AMD_DTE0_MODE	GENMASK_ULL(11, 9)
#define VTDS_AMD_DTE0_GV	BIT_ULL(55)
#define VTDS_AMD_DTE0_RSVD	(GENMASK_ULL(6, 2) | BIT_ULL(63))
#define VTDS_AMD_DTE1_DOMAIN_ID	GENMASK_ULL(15, 0)

/**
 * struct vtds_amd_caps - what the guest's AMD IOMMU promised
 * @rsvd: address bits at and above the physical address width
 * @levels: bit n is set if tables of n levels may be used (Mode n)
 */
struct vtds_amd_caps {
	u64 rsvd;
	u8 levels;
};

static inline u8 vtds_amd_perm(u64 raw)
{
	return (raw & VTDS_AMD_IR ? VTDS_R : 0) | (raw & VTDS_AMD_IW ? VTDS_W : 0);
}

/*
 * §2.2.3 "page size encoding": the lowest clear bit at or above bit 12 is the
 * upper half bit of the size: all below it are set and are not address bits.
 */
static inline u64 vtds_amd_sized_bytes(u64 raw)
{
	u64 addr = (raw & VTDS_AMD_ADDR) | (BIT_ULL(12) - 1);

	return 2ULL << __ffs64(~addr);
}

/**
 * vtds_amd_decode_v1() - decode a v1 page-table entry (§2.2.3)
 * @caps: what was promised
 * @level: level of the table that holds the entry, 1 to 6
 * @index: index of the entry in it
 * @raw: the entry
 *
 * A page of a size between two levels fills several entries, each of which has
 * to hold the same. Each is decoded as a leaf of its own for its part of the
 * page, as the IOMMU uses it.
 *
 * Context: any. Return: the decoded entry.
 */
static inline struct vtds_entry
vtds_amd_decode_v1(const struct vtds_amd_caps *caps, unsigned int level,
		   unsigned int index, u64 raw)
{
	unsigned int next = (raw & VTDS_AMD_NEXT) >> 9;
	struct vtds_entry e = { .type = VTDS_ENTRY_NONE };
	u64 bytes = vtds_level_span(level);

	if (!(raw & VTDS_AMD_PR))
		return e;
	/* Level 6 resolves the last 7 bits of 64; the rest cannot be reached. */
	if (level == VTDS_MAX_LEVELS && index >= BIT(64 - vtds_level_shift(level)))
		return e;

	e.perm = vtds_amd_perm(raw);
	e.gpa = raw & VTDS_AMD_ADDR;
	e.type = VTDS_ENTRY_BAD;
	if (raw & caps->rsvd)
		return e;

	if (next == VTDS_AMD_NEXT_LEAF || next == VTDS_AMD_NEXT_SIZED) {
		if (raw & VTDS_AMD_LEAF_RSVD)
			return e;
		if (next == VTDS_AMD_NEXT_SIZED) {
			bytes = vtds_amd_sized_bytes(raw);
			if (bytes <= vtds_level_span(level) ||
			    bytes >= vtds_level_span(level) * VTDS_TABLE_ENTRIES)
				return e;
		}
		e.type = VTDS_ENTRY_LEAF;
		e.gpa &= ~(bytes - 1);
		e.gpa |= ((u64)index << vtds_level_shift(level)) & (bytes - 1);
		return e;
	}

	/* A level may be skipped, never repeated: so every walk ends. */
	if ((raw & VTDS_AMD_TABLE_RSVD) || next >= level)
		return e;
	e.type = VTDS_ENTRY_TABLE;
	e.next_level = next;
	return e;
}

/**
 * enum vtds_amd_check - verdict on a device-table entry
 * @VTDS_AMD_PASS: not translated
 * @VTDS_AMD_BLOCK: no access, as the guest wants it
 * @VTDS_AMD_TRANSLATE: translated by v1 tables
 * @VTDS_AMD_RESERVED: a reserved bit is set
 * @VTDS_AMD_INVALID: a value that was not promised
 * @VTDS_AMD_UNSUPPORTED: valid, but not shadowed by us
 */
enum vtds_amd_check {
	VTDS_AMD_PASS,
	VTDS_AMD_BLOCK,
	VTDS_AMD_TRANSLATE,
	VTDS_AMD_RESERVED,
	VTDS_AMD_INVALID,
	VTDS_AMD_UNSUPPORTED,
};

/**
 * struct vtds_amd_device - a decoded device-table entry
 * @levels: Mode
 * @perm: VTDS_R | VTDS_W for all that is below
 * @domain_id: DomainID
 * @table_gpa: GPA of the top page table
 */
struct vtds_amd_device {
	u8 levels;
	u8 perm;
	u16 domain_id;
	u64 table_gpa;
};

/**
 * vtds_amd_decode_device() - decode a device-table entry (§2.2.2.1)
 * @caps: what was promised
 * @dte: its four quadwords
 * @device: out: filled in if VTDS_AMD_TRANSLATE
 *
 * Without V nothing is translated. With V but not TV what would need a walk is
 * refused. Mode 0 is no translation with the access that IR and IW give; only
 * one of them we cannot give without a domain of its own.
 */
static inline enum vtds_amd_check
vtds_amd_decode_device(const struct vtds_amd_caps *caps, const u64 dte[4],
		       struct vtds_amd_device *device)
{
	u8 perm = vtds_amd_perm(dte[0]);

	if (!(dte[0] & VTDS_AMD_DTE0_V))
		return VTDS_AMD_PASS;
	if (dte[0] & VTDS_AMD_DTE0_RSVD)
		return VTDS_AMD_RESERVED;
	if (!(dte[0] & VTDS_AMD_DTE0_TV))
		return VTDS_AMD_BLOCK;
	if (dte[0] & VTDS_AMD_DTE0_GV)
		return VTDS_AMD_UNSUPPORTED;
	if (!perm)
		return VTDS_AMD_BLOCK;

	device->levels = (dte[0] & VTDS_AMD_DTE0_MODE) >> 9;
	device->perm = perm;
	device->domain_id = dte[1] & VTDS_AMD_DTE1_DOMAIN_ID;
	device->table_gpa = dte[0] & VTDS_AMD_ADDR;
	if (!device->levels)
		return perm == VTDS_RW ? VTDS_AMD_PASS : VTDS_AMD_UNSUPPORTED;
	if (device->levels > VTDS_MAX_LEVELS || !(caps->levels & BIT(device->levels)))
		return VTDS_AMD_INVALID;
	if (device->table_gpa & caps->rsvd)
		return VTDS_AMD_RESERVED;
	return VTDS_AMD_TRANSLATE;
}

#endif /* VTDS_FMT_AMD_H */
