/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The set of formats. To add one: a header of its own that decodes an entry, a
 * kind here, a case in vtds_fmt_decode().
 */
#ifndef VTDS_FMT_FMT_H
#define VTDS_FMT_FMT_H

#include "entry.h"
#include "vtd.h"

enum vtds_fmt_kind {
	VTDS_FMT_VTD_SS,
};

/**
 * struct vtds_fmt - a format with the promises that its checks depend on
 * @kind: which format
 * @vtd: promises of a VT-d
 */
struct vtds_fmt {
	enum vtds_fmt_kind kind;
	union {
		struct vtds_vtd_caps vtd;
	};
};

/**
 * vtds_fmt_decode() - decode a paging entry
 * @fmt: the format
 * @level: level of the table that holds the entry
 * @raw: the entry, read once
 *
 * Context: any. Return: the decoded entry. A VTDS_ENTRY_TABLE has a next level
 * of at least 1 and below @level, so that every walk ends.
 */
static __always_inline struct vtds_entry
vtds_fmt_decode(const struct vtds_fmt *fmt, unsigned int level, u64 raw)
{
	/* One case today: the switch documents where the next one goes. */
	switch (fmt->kind) {
	case VTDS_FMT_VTD_SS:
		break;
	}
	return vtds_vtd_decode_ss(&fmt->vtd, level, raw);
}

#endif /* VTDS_FMT_FMT_H */
