/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Intel VT-d, legacy mode: root entries, context entries and second-stage
 * paging entries.
 *
 * Rules are from "Intel Virtualization Technology for Directed I/O,
 * Architecture Specification", revision 4.1: §9.1 "Root Entry", §9.3 "Context
 * Entry", §9.8 "Second-Stage Paging Entries".
 */
#ifndef VTDS_FMT_VTD_H
#define VTDS_FMT_VTD_H

#include <linux/bits.h>

#include "entry.h"

/* §9.8: common to all second-stage entries */
#define VTDS_VTD_SS_R		BIT_ULL(0)
#define VTDS_VTD_SS_W		BIT_ULL(1)
#define VTDS_VTD_SS_PS		BIT_ULL(7)
#define VTDS_VTD_SS_TM		BIT_ULL(62)
#define VTDS_VTD_ADDR		GENMASK_ULL(51, 12)

/* §9.1 */
#define VTDS_VTD_ROOT_P		BIT_ULL(0)
#define VTDS_VTD_ROOT_RSVD	GENMASK_ULL(11, 1)

/* §9.3, low and high half */
#define VTDS_VTD_CTX_P		BIT_ULL(0)
#define VTDS_VTD_CTX_TT		GENMASK_ULL(3, 2)
#define VTDS_VTD_CTX_LO_RSVD	GENMASK_ULL(11, 4)
#define VTDS_VTD_CTX_AW		GENMASK_ULL(2, 0)
#define VTDS_VTD_CTX_DID	GENMASK_ULL(23, 8)
#define VTDS_VTD_CTX_HI_RSVD	(GENMASK_ULL(63, 24) | BIT_ULL(7))

/* §9.3 "Translation Type" */
#define VTDS_VTD_TT_UNTRANSLATED	0
#define VTDS_VTD_TT_DEVICE_TLB		1
#define VTDS_VTD_TT_PASS_THROUGH	2

/**
 * struct vtds_vtd_caps - what the guest's VT-d promised, ready for checks
 * @rsvd: bits that are reserved in every entry: address bits at and above the
 *	host address width. VTDS_VTD_SS_TM is reserved apart from that in
 *	second-stage entries, see @leaf_rsvd.
 * @leaf_rsvd: further reserved bits of a leaf: TM (bit 62) without Device-TLB
 * @large: bit n is set if an entry of level n may be a leaf; bit 1 always is
 * @levels: bit n is set if tables of n levels may be used
 * @pass_through: ECAP.PT
 * @device_tlb: ECAP.DT
 */
struct vtds_vtd_caps {
	u64 rsvd;
	u64 leaf_rsvd;
	u8 large;
	u8 levels;
	bool pass_through;
	bool device_tlb;
};

/**
 * vtds_vtd_decode_ss() - decode a second-stage paging entry (§9.8)
 * @caps: what was promised
 * @level: level of the table that holds the entry, 1 to 5
 * @raw: the entry
 *
 * An entry with neither R nor W is not present, whatever its other bits hold.
 * SNP (bit 11), the memory type bits and the ignored bits do not matter.
 *
 * Context: any. Return: the decoded entry.
 */
static inline struct vtds_entry
vtds_vtd_decode_ss(const struct vtds_vtd_caps *caps, unsigned int level, u64 raw)
{
	struct vtds_entry e = { .type = VTDS_ENTRY_NONE };
	bool leaf = level == 1 || (raw & VTDS_VTD_SS_PS);
	u64 rsvd = caps->rsvd;

	e.perm = raw & (VTDS_VTD_SS_R | VTDS_VTD_SS_W);
	if (!e.perm)
		return e;

	/* §9.8: the low address bits of a superpage are reserved */
	if (leaf)
		rsvd |= caps->leaf_rsvd |
			((vtds_level_span(level) - 1) & VTDS_VTD_ADDR);
	if ((raw & rsvd) || (leaf && !(caps->large & BIT(level)))) {
		e.type = VTDS_ENTRY_BAD;
		e.gpa = raw & VTDS_VTD_ADDR;
		return e;
	}

	e.type = leaf ? VTDS_ENTRY_LEAF : VTDS_ENTRY_TABLE;
	e.next_level = leaf ? 0 : level - 1;
	e.gpa = raw & VTDS_VTD_ADDR;
	return e;
}

/**
 * enum vtds_vtd_check - verdict on a root or context entry
 * @VTDS_VTD_ABSENT: not present
 * @VTDS_VTD_OK: present and valid
 * @VTDS_VTD_RESERVED: a reserved bit is set
 * @VTDS_VTD_INVALID: a value that was not promised
 */
enum vtds_vtd_check {
	VTDS_VTD_ABSENT,
	VTDS_VTD_OK,
	VTDS_VTD_RESERVED,
	VTDS_VTD_INVALID,
};

/**
 * vtds_vtd_decode_root() - decode a root entry (§9.1)
 * @caps: what was promised
 * @lo: low half
 * @hi: high half, all reserved in legacy mode
 * @context_gpa: out: GPA of the context table, if VTDS_VTD_OK
 */
static inline enum vtds_vtd_check
vtds_vtd_decode_root(const struct vtds_vtd_caps *caps, u64 lo, u64 hi,
		     u64 *context_gpa)
{
	if (!(lo & VTDS_VTD_ROOT_P))
		return VTDS_VTD_ABSENT;
	if ((lo & (VTDS_VTD_ROOT_RSVD | caps->rsvd | GENMASK_ULL(63, 52))) || hi)
		return VTDS_VTD_RESERVED;
	*context_gpa = lo & VTDS_VTD_ADDR;
	return VTDS_VTD_OK;
}

/**
 * struct vtds_vtd_context - a decoded context entry
 * @pass_through: DMA is not translated; the fields below do not matter
 * @levels: levels of the second-stage tables
 * @domain_id: DID field
 * @table_gpa: GPA of the top second-stage table
 */
struct vtds_vtd_context {
	bool pass_through;
	u8 levels;
	u16 domain_id;
	u64 table_gpa;
};

/**
 * vtds_vtd_decode_context() - decode a context entry (§9.3)
 * @caps: what was promised
 * @lo: low half
 * @hi: high half
 * @ctx: out: filled in if VTDS_VTD_OK
 */
static inline enum vtds_vtd_check
vtds_vtd_decode_context(const struct vtds_vtd_caps *caps, u64 lo, u64 hi,
			struct vtds_vtd_context *ctx)
{
	unsigned int tt = (lo & VTDS_VTD_CTX_TT) >> 2;

	if (!(lo & VTDS_VTD_CTX_P))
		return VTDS_VTD_ABSENT;
	if ((lo & (VTDS_VTD_CTX_LO_RSVD | caps->rsvd | GENMASK_ULL(63, 52))) ||
	    (hi & VTDS_VTD_CTX_HI_RSVD))
		return VTDS_VTD_RESERVED;

	ctx->pass_through = tt == VTDS_VTD_TT_PASS_THROUGH;
	/* AW: 001b is 3 levels (39 bits), 010b 4 (48 bits), 011b 5 (57 bits) */
	ctx->levels = (hi & VTDS_VTD_CTX_AW) + 2;
	ctx->domain_id = (hi & VTDS_VTD_CTX_DID) >> 8;
	ctx->table_gpa = lo & VTDS_VTD_ADDR;

	switch (tt) {
	case VTDS_VTD_TT_UNTRANSLATED:
		break;
	case VTDS_VTD_TT_DEVICE_TLB:
		if (!caps->device_tlb)
			return VTDS_VTD_INVALID;
		break;
	case VTDS_VTD_TT_PASS_THROUGH:
		if (!caps->pass_through)
			return VTDS_VTD_INVALID;
		break;
	default:
		return VTDS_VTD_INVALID;
	}
	if (ctx->levels > 7 || !(caps->levels & BIT(ctx->levels)))
		return VTDS_VTD_INVALID;
	return VTDS_VTD_OK;
}

#endif /* VTDS_FMT_VTD_H */
