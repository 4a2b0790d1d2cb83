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

/* 63 bits are what an xarray value holds; physical addresses have up to 52. */
static_assert(52 - PAGE_SHIFT + PIN_USERS_BITS <= 63);

static unsigned long pin_index(u64 gfn, bool write)
{
	return gfn << 1 | write;
}

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
	xa_init_flags(&pins->pages, XA_FLAGS_ACCOUNT);
	pins->mm = mm;
	atomic64_set(&pins->count, 0);
}

/** vtds_pins_fini() - undo vtds_pins_init(); nothing is used any more */
void vtds_pins_fini(struct vtds_pins *pins)
{
	vtds_pins_trim(pins, 0, U64_MAX >> 1);
	WARN_ON(!xa_empty(&pins->pages));
	xa_destroy(&pins->pages);
}

static void page_release(struct vtds_pins *pins, struct page *page, bool write)
{
	unpin_user_pages_dirty_lock(&page, 1, write);
	account_locked_vm(pins->mm, 1, false);
	atomic64_dec(&pins->count);
}

static int page_acquire(struct vtds_pins *pins, unsigned long hva, bool write,
			struct page **page)
{
	int err;

	/* Not so when the last file is closed by a task that has no mm any more. */
	if (current->mm != pins->mm)
		return -EFAULT;
	err = account_locked_vm(pins->mm, 1, true);
	if (err && READ_ONCE(pins->idle)) {
		vtds_pins_trim(pins, 0, U64_MAX >> 1);
		err = account_locked_vm(pins->mm, 1, true);
	}
	if (err)
		return err;
	err = pin_user_pages_fast(hva, 1, FOLL_LONGTERM | (write ? FOLL_WRITE : 0), page);
	if (err != 1) {
		account_locked_vm(pins->mm, 1, false);
		return err < 0 ? err : -EFAULT;
	}
	atomic64_inc(&pins->count);
	return 0;
}

/* One more user of a page that is pinned. Return: 1, 0 if it is not, -EDQUOT. */
static int pin_again(struct vtds_pins *pins, unsigned long index, u64 *pfn)
{
	XA_STATE(xas, &pins->pages, index);
	int ret = 0;
	void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	if (entry && pin_users(entry) == PIN_USERS_MAX) {
		ret = -EDQUOT;
	} else if (entry) {
		*pfn = pin_pfn(entry);
		xas_store(&xas, pin_entry(*pfn, pin_users(entry) + 1));
		if (!pin_users(entry)) {
			xas_clear_mark(&xas, PIN_IDLE);
			pins->idle--;
		}
		ret = 1;
	}
	xas_unlock(&xas);
	return ret;
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
	unsigned long index = pin_index(gfn, write);
	unsigned long hva;
	struct page *page;
	void *entry;
	int ret;

	for (;;) {
		ret = pin_again(pins, index, pfn);
		if (ret)
			return min(ret, 0);

		ret = vtds_vm_hva(vm, gfn, write, &hva);
		if (ret)
			return ret;
		ret = page_acquire(pins, hva, write, &page);
		if (ret)
			return ret;
		*pfn = page_to_pfn(page);
		entry = xa_cmpxchg(&pins->pages, index, NULL, pin_entry(*pfn, 1),
				   GFP_KERNEL_ACCOUNT);
		if (!entry)
			return 0;
		page_release(pins, page, write);
		if (xa_is_err(entry))
			return xa_err(entry);
		/* Another vCPU pinned it meanwhile: take its. */
	}
}

/* One user less. Return: whether the page is to be released: it was the last. */
static bool pin_drop(struct vtds_pins *pins, unsigned long index, u64 *pfn)
{
	XA_STATE(xas, &pins->pages, index);
	unsigned long users;
	bool last = false;
	void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	if (WARN_ON_ONCE(!entry || !pin_users(entry))) {
		xas_unlock(&xas);
		return false;
	}
	*pfn = pin_pfn(entry);
	users = pin_users(entry) - 1;
	if (users) {
		xas_store(&xas, pin_entry(*pfn, users));
	} else if (pins->idle < pins->idle_max) {
		xas_store(&xas, pin_entry(*pfn, 0));
		xas_set_mark(&xas, PIN_IDLE);
		pins->idle++;
	} else {
		xas_store(&xas, NULL);
		last = true;
	}
	xas_unlock(&xas);
	return last;
}

/**
 * vtds_unpin() - undo one vtds_pin()
 * @pins: pins
 * @gfn: guest frame number
 * @write: as it was pinned
 *
 * Context: any process; may sleep.
 */
void vtds_unpin(struct vtds_pins *pins, u64 gfn, bool write)
{
	u64 pfn;

	if (!pin_drop(pins, pin_index(gfn, write), &pfn))
		return;
	page_release(pins, pfn_to_page(pfn), write);
	if (pins->idle_max)
		vtds_pins_trim(pins, 0, U64_MAX >> 1);
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
	unsigned long index = pin_index(gfn, false);
	unsigned long last = pin_index(last_gfn, true);
	void *entry;

	xa_for_each_marked(&pins->pages, index, entry, PIN_IDLE) {
		XA_STATE(xas, &pins->pages, index);

		if (index > last)
			break;
		xas_lock(&xas);
		entry = xas_load(&xas);
		if (!entry || pin_users(entry)) {
			xas_unlock(&xas);
			continue;
		}
		xas_store(&xas, NULL);
		pins->idle--;
		xas_unlock(&xas);
		page_release(pins, pfn_to_page(pin_pfn(entry)), index & 1);
		cond_resched();
	}
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
	void *entry = xa_load(&pins->pages, pin_index(gfn, write));

	return entry ? pin_pfn(entry) : 0;
}
