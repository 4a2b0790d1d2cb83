/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The set of formats. To add one: a header of its own that decodes an entry, a
 * kind here, a line in vtds_fmt_decode().
 */
#ifndef VTDS_FMT_FMT_H
#define VTDS_FMT_FMT_H

#include "amd.h"
#include "entry.h"
#include "vtd.h"

enum vtds_fmt_kind {
	VTDS_FMT_VTD_SS,
	VTDS_FMT_AMD_V1,
};

/**
 * struct vtds_fmt - a format with the promises that its checks depend on
 * @kind: which format
 * @vtd: promises of a VT-d
 * @amd: promises of an AMD IOMMU
 */
struct vtds_fmt {
	enum vtds_fmt_kind kind;
	union {
		struct vtds_vtd_caps vtd;
		struct vtds_amd_caps amd;
	};
};

/**
 * vtds_fmt_decode() - decode a paging entry
 * @fmt: the format
 * @level: level of the table that holds the entry
 * @index: index of the entry in it
 * @raw: the entry, read once
 *
 * Context: any. Return: the decoded entry. A VTDS_ENTRY_TABLE has a next level
 * of at least 1 and below @level, so that every walk ends.
 */
static __always_inline struct vtds_entry
vtds_fmt_decode(const struct vtds_fmt *fmt, unsigned int level,
		unsigned int index, u64 raw)
{
	if (fmt->kind == VTDS_FMT_AMD_V1)
		return vtds_amd_decode_v1(&fmt->amd, level, index, raw);
	return vtds_vtd_decode_ss(&fmt->vtd, level, raw);
}

/**
 * vtds_fmt_gpa_reserved() - address bits that may be set in no entry
 * @fmt: the format
 */
static inline u64 vtds_fmt_gpa_reserved(const struct vtds_fmt *fmt)
{
	u64 rsvd = fmt->kind == VTDS_FMT_AMD_V1 ? fmt->amd.rsvd : fmt->vtd.rsvd;

	return rsvd | GENMASK_ULL(63, 52);
}

#endif /* VTDS_FMT_FMT_H */
