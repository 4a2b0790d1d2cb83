/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The oracle: says what a device must reach, by a walk of the guest's tables for
 * each page, from the top. Written from the specifications alone; it shares no
 * code, no type and no constant with the formats and the engine.
 */
#ifndef VTDS_TESTS_ORACLE_H
#define VTDS_TESTS_ORACLE_H

#include <linux/types.h>

struct mock;
struct mock_host;

/**
 * struct oracle_entry - what an entry says
 * @is: 'n' not present, 't' table, 'l' leaf, 'b' bad
 * @read: gives read access
 * @write: gives write access
 * @next: level of the table
 * @gpa: of the table, or of the page
 * @lg2: of the page's size
 */
struct oracle_entry {
	char is;
	bool read, write;
	u8 next;
	u8 lg2;
	u64 gpa;
};

typedef struct oracle_entry (*oracle_decode_fn)(unsigned int level, u64 raw);

struct oracle_entry oracle_decode_vtd(unsigned int level, u64 raw);
struct oracle_entry oracle_decode_amd(unsigned int level, u64 raw);

/**
 * struct oracle_page - what a device reaches through one IOVA page
 * @mapped: anything at all
 * @read: it can be read
 * @write: it can be written
 * @gfn: what
 * @first_page: first IOVA page of the entry that maps it
 * @last_page: its last one
 */
struct oracle_page {
	bool mapped, read, write;
	u64 gfn;
	u64 first_page, last_page;
};

struct oracle_page oracle_walk(const struct mock *mock, const struct mock_host *host,
			       oracle_decode_fn decode, u64 root_gfn,
			       unsigned int levels, bool read, bool write, u64 page);

#endif /* VTDS_TESTS_ORACLE_H */
