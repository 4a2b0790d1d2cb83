// SPDX-License-Identifier: GPL-2.0
/* Formats: every kind of entry, bit by bit, against the oracle and by hand. */
#include <linux/module.h>

#include "formats.h"
#include "mock.h"
#include "oracle.h"

struct decode_case {
	const struct test_format *format;
	struct vtds_fmt fmt;
	unsigned int max_level;
};

static const void *format_next(const void *prev, char *desc)
{
	const struct test_format *const *next = prev ?
		(const struct test_format *const *)prev + 1 : test_formats;

	if (!*next)
		return NULL;
	strscpy(desc, (*next)->name, KUNIT_PARAM_DESC_SIZE);
	return next;
}

static void decode_case_init(struct kunit *test, struct decode_case *c)
{
	c->format = *(const struct test_format *const *)test->param_value;
	c->format->setup(&c->fmt);
	/* VT-d has five levels, AMD six */
	c->max_level = c->format->skips ? 6 : 5;
}

/* What the oracle says of a whole leaf, as the engine sees it: by entry. */
static u64 entry_gpa(const struct oracle_entry *o, unsigned int level, unsigned int index)
{
	u64 offset = ((u64)index << (12 + 9 * (level - 1))) & ((1ULL << o->lg2) - 1);

	return o->is == 'l' ? o->gpa + offset : o->gpa;
}

static bool same(const struct vtds_entry *e, const struct oracle_entry *o,
		 unsigned int level, unsigned int index)
{
	u8 perm = (o->read ? VTDS_R : 0) | (o->write ? VTDS_W : 0);

	switch (e->type) {
	case VTDS_ENTRY_NONE:
		return o->is == 'n';
	case VTDS_ENTRY_BAD:
		return o->is == 'b';
	case VTDS_ENTRY_LEAF:
		return o->is == 'l' && e->perm == perm && e->gpa == entry_gpa(o, level, index);
	case VTDS_ENTRY_TABLE:
		return o->is == 't' && e->perm == perm && e->gpa == o->gpa &&
		       e->next_level == o->next;
	}
	return false;
}

/* Return: what it was decoded to. */
static enum vtds_entry_type compare(struct kunit *test, const struct decode_case *c,
				    unsigned int level, unsigned int index, u64 raw)
{
	struct vtds_entry e = vtds_fmt_decode(&c->fmt, level, index, raw);
	struct oracle_entry o = c->format->decode(level, raw);

	if (!same(&e, &o, level, index))
		KUNIT_FAIL(test, "level %u index %u %llx: %d perm %d next %u gpa %llx, want %c",
			   level, index, raw, e.type, e.perm, e.next_level, e.gpa, o.is);
	return e.type;
}

static const u64 addresses[] = {
	0, 0x1000, 0x2000, 0x1ff000, 0x200000, 0x3ff000, 0x3fe00000, 0x3ffff000,
	0x40000000, 0x7fc0000000, BIT_ULL(39), BIT_ULL(TEST_GPA_BITS) - 0x40000000,
	BIT_ULL(TEST_GPA_BITS) - 0x1000, BIT_ULL(TEST_GPA_BITS), BIT_ULL(51),
	GENMASK_ULL(51, 12),
};

/* Levels x kinds x permissions x boundary addresses, well formed or not. */
static void matrix_test(struct kunit *test)
{
	unsigned int level, next, a, perm, seen[4] = {};
	struct decode_case c;

	decode_case_init(test, &c);
	for (level = 1; level <= c.max_level; level++) {
		seen[compare(test, &c, level, 1, 0)]++;
		for (perm = 0; perm <= VTDS_RW; perm++)
			for (a = 0; a < ARRAY_SIZE(addresses); a++) {
				seen[compare(test, &c, level, 1,
					     c.format->leaf(level, addresses[a], perm))]++;
				for (next = 1; next <= 6; next++)
					seen[compare(test, &c, level, 1,
						     c.format->table(level, next, addresses[a],
								     perm))]++;
			}
	}
	for (next = 0; next < ARRAY_SIZE(seen); next++)
		KUNIT_EXPECT_GT(test, seen[next], 0);
}

/* Each bit of the entry turned over, alone and in pairs. */
static void bits_test(struct kunit *test)
{
	unsigned int level, i, j;
	struct decode_case c;

	decode_case_init(test, &c);
	for (level = 1; level <= c.max_level; level++) {
		u64 leaf = c.format->leaf(level, 0xc0000000, VTDS_RW);
		u64 table = c.format->table(level, 1, 0x5000, VTDS_RW);

		for (i = 0; i < 64; i++)
			for (j = i; j < 64; j++) {
				u64 flip = BIT_ULL(i) | BIT_ULL(j);

				compare(test, &c, level, 3, leaf ^ flip);
				compare(test, &c, level, 3, table ^ flip);
				compare(test, &c, level, 3, flip);
			}
	}
}

static void garbage_test(struct kunit *test)
{
	struct decode_case c;
	u64 rng = 42, raw;
	unsigned int i;

	decode_case_init(test, &c);
	for (i = 0; i < 100000 && test->status == KUNIT_SUCCESS; i++) {
		raw = mock_random(&rng) << 20 ^ mock_random(&rng);
		/* Mostly without address bits that are reserved: they hide the rest */
		if (i % 4)
			raw &= ~GENMASK_ULL(51, TEST_GPA_BITS);
		if (i % 3)
			raw &= ~GENMASK_ULL(60, 52);
		compare(test, &c, 1 + i % c.max_level, mock_random(&rng) % 64, raw);
	}
}

/* Sizes between the levels: all 2^13 to 2^56, at each level. */
static void sized_test(struct kunit *test)
{
	unsigned int level, lg2, index, good = 0;
	struct decode_case c;

	decode_case_init(test, &c);
	if (!c.format->sized)
		return;
	for (level = 1; level <= c.max_level; level++)
		for (lg2 = 13; lg2 <= 40; lg2++)
			for (index = 0; index < 64; index++)
				good += VTDS_ENTRY_LEAF ==
					compare(test, &c, level, index,
						c.format->sized(lg2, 0, VTDS_RW));
	/* 8 sizes for each of levels 1 to 3, and 39, 40 bits ... at 4, as far as 40 bits go */
	KUNIT_EXPECT_EQ(test, good, 64 * (8 + 8 + 8 + 1));
}

/* ---- by hand, so that the oracle is not alone ---- */

struct by_hand {
	u64 raw;
	u8 level;
	enum vtds_entry_type type;
	u8 perm, next;
	u64 gpa;
};

static void expect_by_hand(struct kunit *test, const struct vtds_fmt *fmt,
			   const struct by_hand *h)
{
	struct vtds_entry e = vtds_fmt_decode(fmt, h->level, 0, h->raw);

	KUNIT_EXPECT_EQ_MSG(test, e.type, h->type, "level %u entry %llx", h->level, h->raw);
	if (h->type != VTDS_ENTRY_LEAF && h->type != VTDS_ENTRY_TABLE)
		return;
	KUNIT_EXPECT_EQ_MSG(test, e.perm, h->perm, "level %u entry %llx", h->level, h->raw);
	KUNIT_EXPECT_EQ_MSG(test, e.next_level, h->next, "level %u entry %llx", h->level, h->raw);
	KUNIT_EXPECT_EQ_MSG(test, e.gpa, h->gpa, "level %u entry %llx", h->level, h->raw);
}

static void vtd_by_hand_test(struct kunit *test)
{
	static const struct by_hand entries[] = {
		{ 0, 1, VTDS_ENTRY_NONE },
		{ 0xfffffffffffffffc, 1, VTDS_ENTRY_NONE },
		{ 0x1001, 1, VTDS_ENTRY_LEAF, VTDS_R, 0, 0x1000 },
		{ 0x1002, 1, VTDS_ENTRY_LEAF, VTDS_W, 0, 0x1000 },
		{ 0x1003, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 },
		/* PS is ignored in level 1; SNP, memory type and AVL everywhere */
		{ 0x1083, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 },
		{ 0xbff0000000001f7f, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 },
		{ 0x4000000000001003, 1, VTDS_ENTRY_BAD },
		{ 0x5003, 2, VTDS_ENTRY_TABLE, VTDS_RW, 1, 0x5000 },
		{ 0x4000000000005003, 2, VTDS_ENTRY_TABLE, VTDS_RW, 1, 0x5000 },
		{ 0x200083, 2, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x200000 },
		{ 0x201083, 2, VTDS_ENTRY_BAD },
		{ 0x300083, 2, VTDS_ENTRY_BAD },
		{ 0x40000082, 3, VTDS_ENTRY_LEAF, VTDS_W, 0, 0x40000000 },
		{ 0x40200082, 3, VTDS_ENTRY_BAD },
		{ 0x8000000082, 4, VTDS_ENTRY_BAD },
		{ 0x82, 5, VTDS_ENTRY_BAD },
		{ 0xffffffe003, 5, VTDS_ENTRY_TABLE, VTDS_RW, 4, 0xffffffe000 },
		{ 0x10000000003, 5, VTDS_ENTRY_BAD },
		{ 0x8000000000003, 1, VTDS_ENTRY_BAD },
	};
	struct vtds_fmt fmt = {};
	unsigned int i;

	test_format_vtd.setup(&fmt);
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		expect_by_hand(test, &fmt, &entries[i]);

	/* Leaf sizes that were not promised; and TM with Device-TLB */
	fmt.vtd.large = BIT(1) | BIT(2);
	expect_by_hand(test, &fmt, &(struct by_hand){ 0x40000083, 3, VTDS_ENTRY_BAD });
	fmt.vtd.large = BIT(1);
	expect_by_hand(test, &fmt, &(struct by_hand){ 0x200083, 2, VTDS_ENTRY_BAD });
	expect_by_hand(test, &fmt,
		       &(struct by_hand){ 0x1003, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 });
	fmt.vtd.leaf_rsvd = 0;
	expect_by_hand(test, &fmt, &(struct by_hand){ 0x4000000000001003, 1, VTDS_ENTRY_LEAF,
		       VTDS_RW, 0, 0x1000 });
}

static void amd_by_hand_test(struct kunit *test)
{
	const u64 rw = 3ULL << 61, r = 1ULL << 61, w = 1ULL << 62;
	const struct by_hand entries[] = {
		{ 0, 1, VTDS_ENTRY_NONE },
		{ rw | 0x1000, 1, VTDS_ENTRY_NONE },
		{ r | 0x1001, 1, VTDS_ENTRY_LEAF, VTDS_R, 0, 0x1000 },
		{ w | 0x1001, 1, VTDS_ENTRY_LEAF, VTDS_W, 0, 0x1000 },
		{ rw | 0x1001, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 },
		/* FC and U mean nothing here, nor what is ignored */
		{ rw | 3ULL << 59 | 0x11ff, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x1000 },
		{ rw | BIT_ULL(58) | 0x1001, 1, VTDS_ENTRY_BAD },
		{ rw | BIT_ULL(52) | 0x1001, 1, VTDS_ENTRY_BAD },
		{ rw | BIT_ULL(40) | 0x1001, 1, VTDS_ENTRY_BAD },
		{ rw | 0x200001, 2, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x200000 },
		{ rw | 0x5201, 2, VTDS_ENTRY_TABLE, VTDS_RW, 1, 0x5000 },
		/* FC and U are reserved in what refers to a table */
		{ rw | BIT_ULL(60) | 0x5201, 2, VTDS_ENTRY_BAD },
		/* Level 2 in level 2, and in 1; level 1 in level 4 */
		{ rw | 0x5401, 2, VTDS_ENTRY_BAD },
		{ rw | 0x5401, 1, VTDS_ENTRY_BAD },
		{ rw | 0x5201, 1, VTDS_ENTRY_BAD },
		{ rw | 0x5201, 4, VTDS_ENTRY_TABLE, VTDS_RW, 1, 0x5000 },
		{ rw | 0x5c01, 6, VTDS_ENTRY_BAD },
		{ rw | 0x5a01, 6, VTDS_ENTRY_TABLE, VTDS_RW, 5, 0x5000 },
		/* 8 KiB, 1 MiB; 2 MiB is for the next level, 4 MiB as well */
		{ rw | 0x4e01, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x4000 },
		{ rw | 0x47fe01, 1, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x400000 },
		{ rw | 0xffe01, 1, VTDS_ENTRY_BAD },
		{ rw | 0x8ffe01, 2, VTDS_ENTRY_BAD },
		{ rw | 0x9ffe01, 2, VTDS_ENTRY_LEAF, VTDS_RW, 0, 0x800000 },
		{ rw | 0x9ffe01, 1, VTDS_ENTRY_BAD },
	};
	struct vtds_fmt fmt = {};
	struct vtds_entry e;
	unsigned int i;

	test_format_amd.setup(&fmt);
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		expect_by_hand(test, &fmt, &entries[i]);

	/* The second half of 8 KiB; and where 64 bits of IOVA end */
	e = vtds_fmt_decode(&fmt, 1, 7, rw | 0x4e01);
	KUNIT_EXPECT_EQ(test, e.gpa, 0x5000);
	e = vtds_fmt_decode(&fmt, 6, 127, rw | 0x5a01);
	KUNIT_EXPECT_EQ(test, e.type, VTDS_ENTRY_TABLE);
	e = vtds_fmt_decode(&fmt, 6, 128, rw | 0x5a01);
	KUNIT_EXPECT_EQ(test, e.type, VTDS_ENTRY_NONE);
}

/* ---- VT-d root and context entries, AMD device-table entries ---- */

static void vtd_root_test(struct kunit *test)
{
	struct vtds_fmt fmt = {};
	unsigned int bit;
	u64 gpa = 0;

	test_format_vtd.setup(&fmt);
	KUNIT_EXPECT_EQ(test, vtds_vtd_decode_root(&fmt.vtd, ~1ULL, ~0ULL, &gpa), VTDS_VTD_ABSENT);
	KUNIT_EXPECT_EQ(test, vtds_vtd_decode_root(&fmt.vtd, 0xfffffff001, 0, &gpa), VTDS_VTD_OK);
	KUNIT_EXPECT_EQ(test, gpa, 0xfffffff000);
	for (bit = 1; bit < 64; bit++)
		KUNIT_EXPECT_EQ_MSG(test,
				    vtds_vtd_decode_root(&fmt.vtd, 1 | BIT_ULL(bit), 0, &gpa),
				    bit >= 12 && bit < TEST_GPA_BITS ?
					VTDS_VTD_OK : VTDS_VTD_RESERVED, "bit %u", bit);
	for (bit = 0; bit < 64; bit++)
		KUNIT_EXPECT_EQ_MSG(test, vtds_vtd_decode_root(&fmt.vtd, 1, BIT_ULL(bit), &gpa),
				    VTDS_VTD_RESERVED, "bit %u", 64 + bit);
}

static enum vtds_vtd_check context(const struct vtds_fmt *fmt, u64 lo, u64 hi,
				   struct vtds_vtd_context *ctx)
{
	memset(ctx, 0, sizeof(*ctx));
	return vtds_vtd_decode_context(&fmt->vtd, lo, hi, ctx);
}

static void vtd_context_test(struct kunit *test)
{
	struct vtds_vtd_context ctx;
	struct vtds_fmt fmt = {};
	unsigned int bit, aw;

	test_format_vtd.setup(&fmt);
	KUNIT_EXPECT_EQ(test, context(&fmt, ~1ULL, ~0ULL, &ctx), VTDS_VTD_ABSENT);
	KUNIT_EXPECT_EQ(test, context(&fmt, 0xfffffff001, 0xabcd02, &ctx), VTDS_VTD_OK);
	KUNIT_EXPECT_EQ(test, ctx.table_gpa, 0xfffffff000);
	KUNIT_EXPECT_EQ(test, ctx.domain_id, 0xabcd);
	KUNIT_EXPECT_EQ(test, ctx.levels, 4);
	KUNIT_EXPECT_FALSE(test, ctx.pass_through);

	/* FPD (1) is allowed; 3:2 is TT */
	for (bit = 1; bit < 64; bit++)
		if (bit != 2 && bit != 3)
			KUNIT_EXPECT_EQ_MSG(test, context(&fmt, 1 | BIT_ULL(bit), 2, &ctx),
					    bit == 1 || (bit >= 12 && bit < TEST_GPA_BITS) ?
						VTDS_VTD_OK : VTDS_VTD_RESERVED, "bit %u", bit);
	/* 6:3 are ignored; 2:0 is AW */
	for (bit = 3; bit < 64; bit++)
		KUNIT_EXPECT_EQ_MSG(test, context(&fmt, 1, 2 | BIT_ULL(bit), &ctx),
				    bit < 7 || (bit >= 8 && bit < 24) ?
					VTDS_VTD_OK : VTDS_VTD_RESERVED, "bit %u", 64 + bit);
	for (aw = 0; aw < 8; aw++) {
		KUNIT_EXPECT_EQ_MSG(test, context(&fmt, 1, aw, &ctx),
				    aw >= 1 && aw <= 3 ? VTDS_VTD_OK : VTDS_VTD_INVALID,
				    "AW %u", aw);
		if (aw >= 1 && aw <= 3)
			KUNIT_EXPECT_EQ(test, ctx.levels, aw + 2);
	}
	fmt.vtd.levels = BIT(4);
	KUNIT_EXPECT_EQ(test, context(&fmt, 1, 1, &ctx), VTDS_VTD_INVALID);
	KUNIT_EXPECT_EQ(test, context(&fmt, 1, 2, &ctx), VTDS_VTD_OK);

	KUNIT_EXPECT_EQ(test, context(&fmt, 5, 2, &ctx), VTDS_VTD_INVALID);
	KUNIT_EXPECT_EQ(test, context(&fmt, 9, 2, &ctx), VTDS_VTD_OK);
	KUNIT_EXPECT_TRUE(test, ctx.pass_through);
	KUNIT_EXPECT_EQ(test, context(&fmt, 13, 2, &ctx), VTDS_VTD_INVALID);
	fmt.vtd.pass_through = false;
	fmt.vtd.device_tlb = true;
	KUNIT_EXPECT_EQ(test, context(&fmt, 5, 2, &ctx), VTDS_VTD_OK);
	KUNIT_EXPECT_FALSE(test, ctx.pass_through);
	KUNIT_EXPECT_EQ(test, context(&fmt, 9, 2, &ctx), VTDS_VTD_INVALID);
}

static enum vtds_amd_check device(const struct vtds_fmt *fmt, u64 first, u64 second,
				  struct vtds_amd_device *d)
{
	const u64 dte[4] = { first, second };

	memset(d, 0, sizeof(*d));
	return vtds_amd_decode_device(&fmt->amd, dte, d);
}

static void amd_device_test(struct kunit *test)
{
	const u64 rw = 3ULL << 61;
	struct vtds_amd_device d;
	struct vtds_fmt fmt = {};
	unsigned int mode, bit;

	test_format_amd.setup(&fmt);
	KUNIT_EXPECT_EQ(test, device(&fmt, ~1ULL, 0, &d), VTDS_AMD_PASS);
	KUNIT_EXPECT_EQ(test, device(&fmt, 1, 0, &d), VTDS_AMD_BLOCK);
	KUNIT_EXPECT_EQ(test, device(&fmt, rw | 1, 0, &d), VTDS_AMD_BLOCK);
	KUNIT_EXPECT_EQ(test, device(&fmt, 3 | 4 << 9, 0, &d), VTDS_AMD_BLOCK);
	KUNIT_EXPECT_EQ(test, device(&fmt, rw | 3, 0, &d), VTDS_AMD_PASS);
	KUNIT_EXPECT_EQ(test, device(&fmt, BIT_ULL(61) | 3, 0, &d), VTDS_AMD_UNSUPPORTED);
	KUNIT_EXPECT_EQ(test, device(&fmt, rw | BIT_ULL(55) | 3, 0, &d), VTDS_AMD_UNSUPPORTED);

	for (mode = 1; mode < 8; mode++) {
		KUNIT_EXPECT_EQ_MSG(test, device(&fmt, rw | mode << 9 | 0x5003, 0xfffabcd, &d),
				    mode < 7 ? VTDS_AMD_TRANSLATE : VTDS_AMD_INVALID,
				    "mode %u", mode);
		if (mode == 7)
			continue;
		KUNIT_EXPECT_EQ(test, d.levels, mode);
		KUNIT_EXPECT_EQ(test, d.perm, VTDS_RW);
		KUNIT_EXPECT_EQ(test, d.table_gpa, 0x5000);
		KUNIT_EXPECT_EQ(test, d.domain_id, 0xabcd);
	}
	KUNIT_EXPECT_EQ(test, device(&fmt, BIT_ULL(62) | 4 << 9 | 3, 0, &d), VTDS_AMD_TRANSLATE);
	KUNIT_EXPECT_EQ(test, d.perm, VTDS_W);
	fmt.amd.levels = BIT(3);
	KUNIT_EXPECT_EQ(test, device(&fmt, rw | 4 << 9 | 3, 0, &d), VTDS_AMD_INVALID);

	for (bit = 2; bit < 7; bit++)
		KUNIT_EXPECT_EQ_MSG(test, device(&fmt, rw | 3 << 9 | 3 | BIT_ULL(bit), 0, &d),
				    VTDS_AMD_RESERVED, "bit %u", bit);
	KUNIT_EXPECT_EQ(test, device(&fmt, rw | 3 << 9 | 3 | BIT_ULL(63), 0, &d),
			VTDS_AMD_RESERVED);
	for (bit = TEST_GPA_BITS; bit < 52; bit++)
		KUNIT_EXPECT_EQ_MSG(test, device(&fmt, rw | 3 << 9 | 3 | BIT_ULL(bit), 0, &d),
				    VTDS_AMD_RESERVED, "bit %u", bit);
}

static void level_test(struct kunit *test)
{
	static const u64 spans[] = { 0, BIT_ULL(12), BIT_ULL(21), BIT_ULL(30), BIT_ULL(39),
				     BIT_ULL(48), BIT_ULL(57) };
	unsigned int level;

	for (level = 1; level <= VTDS_MAX_LEVELS; level++) {
		KUNIT_EXPECT_EQ(test, vtds_level_span(level), spans[level]);
		KUNIT_EXPECT_EQ(test, vtds_level_index(level, spans[level]), 1);
		KUNIT_EXPECT_EQ(test, vtds_level_index(level, spans[level] - 1), 0);
		KUNIT_EXPECT_EQ(test, vtds_level_index(level, U64_MAX), level < 6 ? 511 : 127);
	}
}

static struct kunit_case fmt_cases[] = {
	KUNIT_CASE(level_test),
	KUNIT_CASE_PARAM(matrix_test, format_next),
	KUNIT_CASE_PARAM(bits_test, format_next),
	KUNIT_CASE_PARAM(garbage_test, format_next),
	KUNIT_CASE_PARAM(sized_test, format_next),
	KUNIT_CASE(vtd_by_hand_test),
	KUNIT_CASE(amd_by_hand_test),
	KUNIT_CASE(vtd_root_test),
	KUNIT_CASE(vtd_context_test),
	KUNIT_CASE(amd_device_test),
	{}
};

static struct kunit_suite fmt_suite = {
	.name = "vtds_fmt",
	.test_cases = fmt_cases,
};

kunit_test_suite(fmt_suite);

MODULE_DESCRIPTION("KUnit tests of vtd_shadow's formats and engine");
MODULE_LICENSE("GPL");
