/* SPDX-License-Identifier: GPL-2.0 */
/* Guest formats as the tests see them: how a guest makes entries. */
#ifndef VTDS_TESTS_FORMATS_H
#define VTDS_TESTS_FORMATS_H

#include "engine.h"
#include "oracle.h"

/**
 * struct test_format - a format with the heights to be tested
 * @name: name
 * @setup: fill in what the guest was promised
 * @decode: the oracle's decoder
 * @leaf: make an entry that maps its span
 * @table: make an entry that refers to a table; @next is @level - 1, or any
 *	lower one for a format that can skip levels
 * @sized: make a leaf of 2^@lg2 bytes, NULL if all leaves have their level's size
 * @skips: whether levels can be skipped
 * @leaf_levels: bitmap of levels that have leaves
 * @levels: heights of trees, ends with 0
 */
struct test_format {
	const char *name;
	void (*setup)(struct vtds_fmt *fmt);
	oracle_decode_fn decode;
	u64 (*leaf)(unsigned int level, u64 gpa, u8 perm);
	u64 (*table)(unsigned int level, unsigned int next, u64 gpa, u8 perm);
	u64 (*sized)(unsigned int lg2, u64 gpa, u8 perm);
	bool skips;
	u8 leaf_levels;
	u8 levels[8];
};

extern const struct test_format test_format_vtd;
extern const struct test_format test_format_amd;
extern const struct test_format *const test_formats[];

/* Width of guest addresses that the tests promise: bits 40 to 51 are reserved. */
#define TEST_GPA_BITS	40

#endif /* VTDS_TESTS_FORMATS_H */
