/* SPDX-License-Identifier: GPL-2.0 */
/* Pinned guest pages. */
#ifndef VTDS_PIN_H
#define VTDS_PIN_H

#include <linux/atomic.h>
#include <linux/xarray.h>

struct mm_struct;
struct vtds_vm;

/**
 * struct vtds_pins - the pinned pages of a guest
 * @pages: by gfn and writability: page frame number and number of pins
 *	(pages.xa_lock protects @idle too)
 * @mm: the VMM, which is charged
 * @count: pinned pages, idle ones included
 * @idle: pages that nobody uses, kept for the next one
 * @idle_max: how many of them may be kept
 */
struct vtds_pins {
	struct xarray pages;
	struct mm_struct *mm;
	atomic64_t count;
	unsigned long idle;
	unsigned long idle_max;
};

void vtds_pins_init(struct vtds_pins *pins, struct mm_struct *mm);
void vtds_pins_fini(struct vtds_pins *pins);
int vtds_pin(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn, bool write, u64 *pfn);
void vtds_unpin(struct vtds_pins *pins, u64 gfn, bool write);
void vtds_pins_trim(struct vtds_pins *pins, u64 gfn, u64 last_gfn);
u64 vtds_pin_lookup(struct vtds_pins *pins, u64 gfn, bool write);

#endif /* VTDS_PIN_H */
