/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The one vocabulary for entries of guest paging tables.
 *
 * Every format we shadow is a radix tree of 4 KiB tables of 512 entries of
 * 8 bytes, each level resolving 9 bits of the IOVA. Levels are counted as the
 * specifications do: 1 is the table whose entries can only be 4 KiB leaves.
 *
 * A format decodes one entry, given its level, into struct vtds_entry. It
 * trusts nothing, keeps no state and reads nothing else.
 */
#ifndef VTDS_FMT_ENTRY_H
#define VTDS_FMT_ENTRY_H

#include <linux/bits.h>
#include <linux/types.h>

#define VTDS_TABLE_SHIFT	12
#define VTDS_TABLE_ENTRIES	512
#define VTDS_LEVEL_BITS		9
#define VTDS_MAX_LEVELS		6

/* Access that an entry gives; the same numbers as VTDS_PERM_* of the uapi. */
#define VTDS_R			BIT(0)
#define VTDS_W			BIT(1)
#define VTDS_RW			(VTDS_R | VTDS_W)

/**
 * enum vtds_entry_type - what one paging entry is
 * @VTDS_ENTRY_NONE: not present
 * @VTDS_ENTRY_LEAF: maps the span of the entry
 * @VTDS_ENTRY_TABLE: refers to a table of a lower level
 * @VTDS_ENTRY_BAD: present, with a reserved bit set or a size not promised
 */
enum vtds_entry_type {
	VTDS_ENTRY_NONE,
	VTDS_ENTRY_LEAF,
	VTDS_ENTRY_TABLE,
	VTDS_ENTRY_BAD,
};

/**
 * struct vtds_entry - a decoded paging entry
 * @type: what it is
 * @perm: VTDS_R | VTDS_W that this entry gives by itself
 * @next_level: level of the table referred to, for VTDS_ENTRY_TABLE
 * @gpa: GPA of the leaf's first byte or of the table
 */
struct vtds_entry {
	enum vtds_entry_type type;
	u8 perm;
	u8 next_level;
	u64 gpa;
};

/**
 * vtds_level_shift() - log2 of the bytes that one entry of a table spans
 * @level: level of the table, 1 to VTDS_MAX_LEVELS
 *
 * Return: 12 for level 1, 21 for level 2, ...
 */
static inline unsigned int vtds_level_shift(unsigned int level)
{
	return VTDS_TABLE_SHIFT + VTDS_LEVEL_BITS * (level - 1);
}

/**
 * vtds_level_span() - bytes that one entry of a table spans
 * @level: level of the table, 1 to VTDS_MAX_LEVELS
 */
static inline u64 vtds_level_span(unsigned int level)
{
	return 1ULL << vtds_level_shift(level);
}

/**
 * vtds_level_index() - index into a table for an IOVA
 * @level: level of the table, 1 to VTDS_MAX_LEVELS
 * @iova: the IOVA
 */
static inline unsigned int vtds_level_index(unsigned int level, u64 iova)
{
	return (iova >> vtds_level_shift(level)) & (VTDS_TABLE_ENTRIES - 1);
}

/** vtds_entry_same() - whether two entries mean the same to a device */
static inline bool vtds_entry_same(const struct vtds_entry *a,
				   const struct vtds_entry *b)
{
	return a->type == b->type && a->perm == b->perm &&
	       a->next_level == b->next_level && a->gpa == b->gpa;
}

#endif /* VTDS_FMT_ENTRY_H */
