// SPDX-License-Identifier: GPL-2.0
#include "formats.h"

static void vtd_setup(struct vtds_fmt *fmt)
{
	fmt->kind = VTDS_FMT_VTD_SS;
	fmt->vtd = (struct vtds_vtd_caps){
		.rsvd = GENMASK_ULL(51, TEST_GPA_BITS),
		.leaf_rsvd = BIT_ULL(62),
		.large = BIT(1) | BIT(2) | BIT(3),
		.levels = BIT(3) | BIT(4) | BIT(5),
		.pass_through = true,
	};
}

static u64 vtd_leaf(unsigned int level, u64 gpa, u8 perm)
{
	return gpa | perm | (level > 1 ? BIT_ULL(7) : 0);
}

static u64 vtd_table(unsigned int level, unsigned int next, u64 gpa, u8 perm)
{
	return gpa | perm;
}

const struct test_format test_format_vtd = {
	.name = "vtd-ss",
	.setup = vtd_setup,
	.decode = oracle_decode_vtd,
	.leaf = vtd_leaf,
	.table = vtd_table,
	.leaf_levels = BIT(1) | BIT(2) | BIT(3),
	.levels = { 3, 4, 5 },
};

static void amd_setup(struct vtds_fmt *fmt)
{
	fmt->kind = VTDS_FMT_AMD_V1;
	fmt->amd = (struct vtds_amd_caps){
		.rsvd = GENMASK_ULL(51, TEST_GPA_BITS),
		.levels = GENMASK(6, 1),
	};
}

static u64 amd_entry(unsigned int next, u64 gpa, u8 perm)
{
	return gpa | (u64)next << 9 | (u64)perm << 61 | 1;
}

static u64 amd_leaf(unsigned int level, u64 gpa, u8 perm)
{
	return amd_entry(0, gpa, perm);
}

static u64 amd_table(unsigned int level, unsigned int next, u64 gpa, u8 perm)
{
	return amd_entry(next, gpa, perm);
}

static u64 amd_sized(unsigned int lg2, u64 gpa, u8 perm)
{
	/* All address bits below the highest one that the size leaves free */
	return amd_entry(7, (gpa & ~(BIT_ULL(lg2) - 1)) | (BIT_ULL(lg2 - 1) - 0x1000), perm);
}

const struct test_format test_format_amd = {
	.name = "amd-v1",
	.setup = amd_setup,
	.decode = oracle_decode_amd,
	.leaf = amd_leaf,
	.table = amd_table,
	.sized = amd_sized,
	.skips = true,
	.leaf_levels = GENMASK(6, 1),
	.levels = { 1, 2, 3, 4, 5, 6 },
};

const struct test_format *const test_formats[] = {
	&test_format_vtd, &test_format_amd, NULL,
};
