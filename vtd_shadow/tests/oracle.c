// SPDX-License-Identifier: GPL-2.0
#include "mock.h"
#include "oracle.h"

/*
 * VT-d 4.1 §9.8 "Second-Stage Paging Entries", for a guest that was promised 40
 * bits of address, leaves of 4 KiB, 2 MiB and 1 GiB, and no Device-TLB.
 */
struct oracle_entry oracle_decode_vtd(unsigned int level, u64 raw)
{
	struct oracle_entry e = { .is = 'b' };
	bool page;
	int bit;

	e.read = raw & 0x1;
	e.write = raw & 0x2;
	if (!e.read && !e.write) {
		e.is = 'n';
		return e;
	}
	for (bit = 40; bit <= 51; bit++)
		if (raw >> bit & 1)
			return e;

	page = level == 1 || (raw >> 7 & 1);
	e.gpa = raw & 0xfffffff000;
	if (!page) {
		e.is = 't';
		e.next = level - 1;
		return e;
	}
	if (level > 3 || (raw >> 62 & 1))
		return e;
	e.lg2 = level == 1 ? 12 : level == 2 ? 21 : 30;
	for (bit = 12; bit < e.lg2; bit++)
		if (raw >> bit & 1)
			return e;
	e.is = 'l';
	return e;
}

/*
 * AMD 48882 3.10 §2.2.3 "I/O Page Tables for Host Translations", for a guest with
 * 40 bits of address.
 */
struct oracle_entry oracle_decode_amd(unsigned int level, u64 raw)
{
	struct oracle_entry e = { .is = 'b' };
	unsigned int next = raw >> 9 & 7;
	int bit;

	if (!(raw & 1)) {
		e.is = 'n';
		return e;
	}
	e.read = raw >> 61 & 1;
	e.write = raw >> 62 & 1;
	/* Address bits that were not promised, then bits reserved in all entries */
	for (bit = 40; bit <= 58; bit++)
		if (raw >> bit & 1)
			return e;

	if (next >= 1 && next <= 6) {
		if (next >= level || (raw >> 59 & 3))
			return e;
		e.is = 't';
		e.next = next;
		e.gpa = raw & 0xfffffff000;
		return e;
	}
	e.lg2 = 12 + 9 * (level - 1);
	if (next == 7) {
		/* The first zero from bit 12 up ends the run that tells the size */
		for (bit = 12; bit < 52 && (raw >> bit & 1); bit++)
			;
		if (bit + 1 <= e.lg2 || bit + 1 >= e.lg2 + 9)
			return e;
		e.lg2 = bit + 1;
	}
	e.is = 'l';
	e.gpa = (raw & 0xfffffff000) >> e.lg2 << e.lg2;
	return e;
}

/*
 * Pages are numbers of 4 KiB. Not mapped is also what the host cannot map, and
 * what would be written but cannot be.
 */
struct oracle_page oracle_walk(const struct mock *mock, const struct mock_host *host,
			       oracle_decode_fn decode, u64 root_gfn,
			       unsigned int levels, bool read, bool write, u64 page)
{
	struct oracle_page result = { .read = read, .write = write };
	unsigned int level = levels;
	u64 table = root_gfn;

	/* Address bits above what the tables resolve have to be zero. */
	if (9 * levels < 52 && page >> (9 * levels))
		return result;
	for (;;) {
		struct oracle_entry e;
		u64 entry_pages = 1ULL << (9 * (level - 1));

		if (!mock_is_ram(mock, table))
			return result;
		e = decode(level, mock_read(mock, table, page / entry_pages % 512));
		result.read &= e.read;
		result.write &= e.write;
		if (e.is == 't') {
			/* So have those of skipped levels. */
			if (page % entry_pages >> (9 * e.next))
				return result;
			table = e.gpa >> 12;
			level = e.next;
			continue;
		}
		/* Pages above 1 GiB are not shadowed. */
		if (e.is != 'l' || level > 3 || (!result.read && !result.write))
			return result;

		result.gfn = (e.gpa >> 12) + page % (1ULL << (e.lg2 - 12));
		result.first_page = page / entry_pages * entry_pages;
		result.last_page = result.first_page + entry_pages - 1;
		result.mapped = mock_is_ram(mock, result.gfn) &&
				!(result.write && mock_is_rom(result.gfn)) &&
				!mock_host_reason(host, page);
		return result;
	}
}
