// SPDX-License-Identifier: GPL-2.0
/*
 * Each guest page is pinned once, however often it is mapped, and charged once
 * to RLIMIT_MEMLOCK of the VMM.
 *
 * A page may be pinned twice: for reading and for writing. They are kept apart,
 * because a read-only pin of a copy-on-write page need not be the page that a
 * later writable pin gives.
 *
 * The record of a pin is one word in an xarray: page frame number above, number
 * of users below. That costs 9 bytes a page and needs no allocation of its own.
 *
 * A page without users may stay pinned, idle, if the VMM allows it: most guests
 * map the same pages again and again. Idle pages are marked. When there are too
 * many all of them go, which costs each no more than to go at once.
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "kvm.h"
#include "pin.h"

#define PIN_USERS_BITS	22
#define PIN_USERS_MAX	GENMASK(PIN_USERS_BITS - 1, 0)

#define PIN_IDLE	XA_MARK_0

#define PIN_LAST_GFN	(U64_MAX >> PAGE_SHIFT)

/* 63 bits are what an xarray value holds; physical addresses have up to 52. */
static_assert(52 - PAGE_SHIFT + PIN_USERS_BITS <= 63);

static u64 pin_pfn(void *entry)
{
	return xa_to_value(entry) >> PIN_USERS_BITS;
}

static unsigned long pin_users(void *entry)
{
	return xa_to_value(entry) & PIN_USERS_MAX;
}

static void *pin_entry(u64 pfn, unsigned long users)
{
	return xa_mk_value(pfn << PIN_USERS_BITS | users);
}

/**
 * vtds_pins_init() - start with nothing pinned
 * @pins: what to initialize
 * @mm: the VMM; the caller keeps a reference (mmgrab)
 */
void vtds_pins_init(struct vtds_pins *pins, struct mm_struct *mm)
{
	unsigned int write;

	for (write = 0; write < 2; write++) {
		xa_init_flags(&pins->set[write].pages, XA_FLAGS_ACCOUNT);
		pins->set[write].write = write;
	}
	pins->mm = mm;
	atomic64_set(&pins->count, 0);
}

/** vtds_pins_fini() - undo vtds_pins_init(); nothing is used any more */
void vtds_pins_fini(struct vtds_pins *pins)
{
	unsigned int write;

	vtds_pins_trim(pins, 0, PIN_LAST_GFN);
	for (write = 0; write < 2; write++) {
		WARN_ON(!xa_empty(&pins->set[write].pages));
		xa_destroy(&pins->set[write].pages);
	}
}

/* Each set has its own lock; a few pages more or less do not matter. */
static unsigned long idle_total(struct vtds_pins *pins)
{
	return READ_ONCE(pins->set[0].idle) + READ_ONCE(pins->set[1].idle);
}

/* ---- pages, from and to the VMM ---- */

static void pages_release(struct vtds_pins *pins, u64 pfn, unsigned long n, bool write)
{
	unpin_user_page_range_dirty_lock(pfn_to_page(pfn), n, write);
	account_locked_vm(pins->mm, n, false);
	atomic64_sub(n, &pins->count);
}

static int pages_charge(struct vtds_pins *pins, unsigned int n)
{
	int err = account_locked_vm(pins->mm, n, true);

	if (!err || !idle_total(pins))
		return err;
	vtds_pins_trim(pins, 0, PIN_LAST_GFN);
	return account_locked_vm(pins->mm, n, true);
}

/* Return: how many pages were pinned, or an error if that is none. */
static int pages_acquire(struct vtds_pins *pins, unsigned long hva, unsigned int n,
			 bool write, struct page **pages)
{
	unsigned int flags = FOLL_LONGTERM | (write ? FOLL_WRITE : 0);
	int got, err;

	/* Not so when the last file is closed by a task that has no mm any more. */
	if (current->mm != pins->mm)
		return -EFAULT;
	err = pages_charge(pins, n);
	if (err)
		return n > 1 ? pages_acquire(pins, hva, 1, write, pages) : err;
	got = pin_user_pages_fast(hva, n, flags, pages);
	account_locked_vm(pins->mm, n - max(got, 0), false);
	if (got <= 0)
		return got ?: -EFAULT;
	atomic64_add(got, &pins->count);
	return got;
}

/* ---- the record ---- */

/*
 * One more user each of the leading pages that are pinned already.
 * Return: how many; @err is set if it is the number of users that ends it.
 */
static unsigned int pin_again(struct vtds_pin_set *set, u64 gfn, unsigned int n,
			      u64 *pfns, int *err)
{
	XA_STATE(xas, &set->pages, gfn);
	unsigned int i;
	void *entry;

	*err = 0;
	xas_lock(&xas);
	for (i = 0, entry = xas_load(&xas); i < n && entry; entry = xas_next(&xas)) {
		if (pin_users(entry) == PIN_USERS_MAX) {
			*err = -EDQUOT;
			break;
		}
		pfns[i] = pin_pfn(entry);
		xas_store(&xas, pin_entry(pfns[i++], pin_users(entry) + 1));
		if (!pin_users(entry)) {
			xas_clear_mark(&xas, PIN_IDLE);
			set->idle--;
		}
	}
	xas_unlock(&xas);
	return i;
}

/*
 * Record pages that were pinned, up to one that another vCPU has recorded
 * meanwhile. Return: how many; @err is set if it is memory that ends it.
 */
static unsigned int pin_record(struct vtds_pin_set *set, u64 gfn, struct page **pages,
			       unsigned int n, u64 *pfns, int *err)
{
	XA_STATE(xas, &set->pages, gfn);
	unsigned int i = 0;
	bool taken = false;

	do {
		xas_lock(&xas);
		for (; i < n && !taken; xas_next(&xas)) {
			taken = xas_load(&xas);
			if (taken)
				break;
			pfns[i] = page_to_pfn(pages[i]);
			xas_store(&xas, pin_entry(pfns[i], 1));
			if (xas_error(&xas))
				break;
			i++;
		}
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_KERNEL_ACCOUNT));

	*err = xas_error(&xas);
	return i;
}

/* Leading pages that are not pinned; there is at least one. */
static unsigned int pin_missing(struct vtds_pin_set *set, u64 gfn, unsigned int n)
{
	unsigned long index = gfn;

	if (n == 1 || !xa_find(&set->pages, &index, gfn + n - 1, XA_PRESENT))
		return n;
	return max_t(unsigned long, index - gfn, 1);
}

/* Pin leading pages that are not pinned yet. Return: how many, or an error. */
static int pin_new(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn, unsigned int n,
		   bool write, struct page **pages, u64 *pfns)
{
	struct vtds_pin_set *set = &pins->set[write];
	unsigned long hva;
	unsigned int i, done;
	int got, err;

	n = pin_missing(set, gfn, n);
	err = vtds_vm_hva(vm, gfn, write, &hva, &n);
	if (err)
		return err;
	got = pages_acquire(pins, hva, n, write, pages);
	if (got < 0)
		return got;
	done = pin_record(set, gfn, pages, got, pfns, &err);
	for (i = done; i < got; i++)
		pages_release(pins, page_to_pfn(pages[i]), 1, write);
	return done ?: err;
}

static unsigned int pin_pages(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn,
			      unsigned int n, bool write, struct page **pages,
			      u64 *pfns, int *err)
{
	struct vtds_pin_set *set = &pins->set[write];
	unsigned int done = 0;
	int got;

	for (;;) {
		done += pin_again(set, gfn + done, n - done, pfns + done, err);
		if (done == n || *err)
			return done;
		got = pin_new(pins, vm, gfn + done, n - done, write, pages, pfns + done);
		if (got < 0) {
			*err = got;
			return done;
		}
		done += got;
		if (done == n)
			return done;
	}
}

/**
 * vtds_pin() - pin a guest page
 * @pins: pins
 * @vm: VM that the page is of
 * @gfn: guest frame number
 * @write: for writing
 * @pfn: out: host page frame number
 *
 * Context: in the VMM's process, otherwise -EFAULT; may sleep; see
 * vtds_vm_hva() for what keeps the memory slot.
 * Return: 0, -ENXIO not RAM, -EROFS read-only memory slot, -EDQUOT too many
 * users, -ENOMEM (also: over RLIMIT_MEMLOCK), -EFAULT not a page that can be
 * pinned.
 */
int vtds_pin(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn, bool write, u64 *pfn)
{
	struct page *page;
	int err;

	return pin_pages(pins, vm, gfn, 1, write, &page, pfn, &err) ? 0 : err;
}

/**
 * vtds_pin_range() - pin guest pages that follow one another
 * @pins: pins
 * @vm: VM that the pages are of
 * @gfn: first guest frame number
 * @n: how many, up to VTDS_PIN_BATCH
 * @write: for writing
 * @pfns: out: host page frame numbers
 * @err: out: if not all were pinned, why the next one was not, as vtds_pin()
 *
 * Context: as vtds_pin(); and one call at a time, for the scratch in @pins.
 * Return: how many were pinned, from the first one on.
 */
unsigned int vtds_pin_range(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn,
			    unsigned int n, bool write, u64 *pfns, int *err)
{
	return pin_pages(pins, vm, gfn, n, write, pins->batch, pfns, err);
}

/**
 * struct pin_run - pages to release, contiguous in the host
 * @pfn: first
 * @n: how many
 */
struct pin_run {
	u64 pfn;
	unsigned long n;
};

/*
 * One user less of each of up to @n pages, ending before one that has to be
 * released but does not continue the run. Return: how many.
 */
static unsigned long pin_drop(struct vtds_pins *pins, struct vtds_pin_set *set,
			      u64 gfn, unsigned long n, struct pin_run *run)
{
	XA_STATE(xas, &set->pages, gfn);
	unsigned long i, users;
	void *entry;
	u64 pfn;

	run->n = 0;
	xas_lock(&xas);
	for (i = 0, entry = xas_load(&xas); i < n; i++, entry = xas_next(&xas)) {
		if (WARN_ON_ONCE(!entry || !pin_users(entry)))
			continue;
		pfn = pin_pfn(entry);
		users = pin_users(entry) - 1;
		if (!users && idle_total(pins) >= pins->idle_max) {
			if (run->n && pfn != run->pfn + run->n)
				break;
			if (!run->n)
				run->pfn = pfn;
			run->n++;
			xas_store(&xas, NULL);
			continue;
		}
		xas_store(&xas, pin_entry(pfn, users));
		if (!users) {
			xas_set_mark(&xas, PIN_IDLE);
			set->idle++;
		}
	}
	xas_unlock(&xas);
	return i;
}

/**
 * vtds_unpin() - undo one vtds_pin() of each page of a range
 * @pins: pins
 * @gfn: first guest frame number
 * @n: how many
 * @write: as they were pinned
 *
 * Context: any process; may sleep.
 */
void vtds_unpin(struct vtds_pins *pins, u64 gfn, unsigned long n, bool write)
{
	struct vtds_pin_set *set = &pins->set[write];
	bool full = false;
	struct pin_run run;
	unsigned long done;

	while (n) {
		done = pin_drop(pins, set, gfn, min_t(unsigned long, n, VTDS_PIN_BATCH),
				&run);
		if (run.n) {
			pages_release(pins, run.pfn, run.n, write);
			full = true;
		}
		gfn += done;
		n -= done;
		cond_resched();
	}
	if (full && pins->idle_max)
		vtds_pins_trim(pins, 0, PIN_LAST_GFN);
}

static void set_trim(struct vtds_pins *pins, struct vtds_pin_set *set, u64 gfn,
		     u64 last_gfn)
{
	unsigned long index;
	void *entry;

	for (index = gfn, entry = xa_find(&set->pages, &index, last_gfn, PIN_IDLE); entry;
	     entry = xa_find_after(&set->pages, &index, last_gfn, PIN_IDLE)) {
		XA_STATE(xas, &set->pages, index);

		xas_lock(&xas);
		entry = xas_load(&xas);
		if (!entry || pin_users(entry)) {
			xas_unlock(&xas);
			continue;
		}
		xas_store(&xas, NULL);
		set->idle--;
		xas_unlock(&xas);
		pages_release(pins, pin_pfn(entry), 1, set->write);
		cond_resched();
	}
}

/**
 * vtds_pins_trim() - unpin the idle pages of a range
 * @pins: pins
 * @gfn: first guest frame
 * @last_gfn: last guest frame
 *
 * Context: any process; may sleep.
 */
void vtds_pins_trim(struct vtds_pins *pins, u64 gfn, u64 last_gfn)
{
	set_trim(pins, &pins->set[0], gfn, last_gfn);
	set_trim(pins, &pins->set[1], gfn, last_gfn);
}

/**
 * vtds_pin_lookup() - host page frame number of a pinned page
 * @pins: pins
 * @gfn: guest frame number
 * @write: as it was pinned
 *
 * Return: the number, 0 if the page is not pinned.
 */
u64 vtds_pin_lookup(struct vtds_pins *pins, u64 gfn, bool write)
{
	void *entry = xa_load(&pins->set[write].pages, gfn);

	return entry ? pin_pfn(entry) : 0;
}
