// SPDX-License-Identifier: GPL-2.0
/*
 * Each guest page is pinned once, however often it is mapped, and charged once
 * to RLIMIT_MEMLOCK of the VMM.
 *
 * A page may be pinned twice: for reading and for writing. They are kept apart,
 * because a read-only pin of a copy-on-write page need not be the page that a
 * later writable pin gives.
 *
 * The record of a pin is one word: page frame number above, number of users
 * below. The words of 2 MiB of guest memory are a block, which stays until the
 * guest is done with: 8 bytes for a page of guest memory that was ever near a
 * pinned one.
 *
 * A page without users may stay pinned, idle, if the VMM allows it: most guests
 * map the same pages again and again. When there are too many all of them go,
 * which costs each no more than to go at once.
 */
#include <linux/error-injection.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "kvm.h"
#include "pin.h"

#define PIN_USERS_BITS	24
#define PIN_USERS_MAX	GENMASK_ULL(PIN_USERS_BITS - 1, 0)

#define PIN_LAST_GFN	(U64_MAX >> PAGE_SHIFT)

/* Physical addresses have up to 52 bits. Page 0 is never a user's. */
static_assert(52 - PAGE_SHIFT + PIN_USERS_BITS <= 64);

/**
 * struct pin_block - the pins of VTDS_PIN_BATCH pages of guest memory
 * @index: which: the first one's frame number divided by that
 * @lock: protects what follows
 * @idle: how many words have no users
 * @words: by page: 0 if it is not pinned
 */
struct pin_block {
	u64 index;
	spinlock_t lock;	/* all below */
	unsigned int idle;
	u64 *words;
};

static u64 word_pfn(u64 word)
{
	return word >> PIN_USERS_BITS;
}

static u64 word_users(u64 word)
{
	return word & PIN_USERS_MAX;
}

/* ---- blocks ---- */

/* Those found last are remembered, as blocks stay. */
static struct pin_block *block_find(struct vtds_pins *pins, u64 gfn, bool write)
{
	u64 index = gfn / VTDS_PIN_BATCH;
	struct pin_block **recent = &pins->recent[write][index % VTDS_PIN_RECENT];
	struct pin_block *block = READ_ONCE(*recent);

	if (block && block->index == index)
		return block;
	block = xa_load(&pins->blocks[write], index);
	if (block)
		smp_store_release(recent, block);	/* whole, for the reader above */
	return block;
}

static void block_free(struct pin_block *block)
{
	if (block)
		free_page((unsigned long)block->words);
	kfree(block);
}

static struct pin_block *block_make(struct vtds_pins *pins, u64 gfn, bool write)
{
	struct pin_block *block = kzalloc(sizeof(*block), GFP_KERNEL_ACCOUNT);
	void *old;

	BUILD_BUG_ON(VTDS_PIN_BATCH * sizeof(u64) != PAGE_SIZE);
	if (!block)
		return NULL;
	block->index = gfn / VTDS_PIN_BATCH;
	spin_lock_init(&block->lock);
	block->words = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!block->words)
		goto err_free;
	old = xa_cmpxchg(&pins->blocks[write], gfn / VTDS_PIN_BATCH, NULL, block,
			 GFP_KERNEL_ACCOUNT);
	if (!old)
		return block;
	block_free(block);
	return xa_is_err(old) ? NULL : old;

err_free:
	block_free(block);
	return NULL;
}

/**
 * vtds_pins_init() - start with nothing pinned
 * @pins: what to initialize
 * @mm: the VMM; the caller keeps a reference (mmgrab)
 */
void vtds_pins_init(struct vtds_pins *pins, struct mm_struct *mm)
{
	xa_init_flags(&pins->blocks[0], XA_FLAGS_ACCOUNT);
	xa_init_flags(&pins->blocks[1], XA_FLAGS_ACCOUNT);
	pins->mm = mm;
}

/** vtds_pins_fini() - undo vtds_pins_init(); nothing is used any more */
void vtds_pins_fini(struct vtds_pins *pins)
{
	struct pin_block *block;
	unsigned long index;
	unsigned int write;

	vtds_pins_trim(pins, 0, PIN_LAST_GFN);
	WARN_ON(atomic64_read(&pins->count));
	for (write = 0; write < 2; write++) {
		xa_for_each(&pins->blocks[write], index, block)
			block_free(block);
		xa_destroy(&pins->blocks[write]);
	}
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

	if (!err || !atomic64_read(&pins->idle))
		return err;
	vtds_pins_trim(pins, 0, PIN_LAST_GFN);
	return account_locked_vm(pins->mm, n, true);
}

/* Return: how many pages were pinned, or an error if that is none. */
static noinline int pages_acquire(struct vtds_pins *pins, unsigned long hva,
				  unsigned int n, bool write, struct page **pages)
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
ALLOW_ERROR_INJECTION(pages_acquire, ERRNO);

/* ---- pinning, within a block ---- */

/*
 * One more user each of the leading pages that are pinned already.
 * Return: how many; if none, -EDQUOT, or 0 and @missing pages from there are not.
 */
static int pin_again(struct vtds_pins *pins, struct pin_block *block, unsigned int first,
		     unsigned int n, u64 *pfns, unsigned int *missing)
{
	unsigned int i, woken = 0;
	int ret;

	spin_lock(&block->lock);
	for (i = 0; i < n && block->words[first + i]; i++) {
		u64 *word = &block->words[first + i];

		if (word_users(*word) == PIN_USERS_MAX)
			break;
		woken += !word_users(*word);
		pfns[i] = word_pfn(*word);
		++*word;
	}
	ret = i;
	if (!i && block->words[first])
		ret = -EDQUOT;
	for (*missing = i; *missing < n && !block->words[first + *missing]; ++*missing)
		;
	*missing -= i;
	block->idle -= woken;
	spin_unlock(&block->lock);
	if (woken)
		atomic64_sub(woken, &pins->idle);
	return ret;
}

/* pin_again() of a single page, the usual case. Return: whether it is done. */
static bool pin_again_one(struct vtds_pins *pins, struct pin_block *block,
			  unsigned int i, u64 *pfn)
{
	u64 *word = &block->words[i];
	bool pinned, idle;

	spin_lock(&block->lock);
	idle = !word_users(*word);
	pinned = *word && word_users(*word) != PIN_USERS_MAX;
	if (pinned) {
		*pfn = word_pfn(*word);
		++*word;
		block->idle -= idle;
	}
	spin_unlock(&block->lock);
	if (pinned && idle)
		atomic64_dec(&pins->idle);
	return pinned;
}

/* Record pages, up to one that another vCPU has recorded. Return: how many. */
static unsigned int pin_record(struct pin_block *block, unsigned int first,
			       struct page **pages, unsigned int n, u64 *pfns)
{
	unsigned int i;

	spin_lock(&block->lock);
	for (i = 0; i < n && !block->words[first + i]; i++) {
		pfns[i] = page_to_pfn(pages[i]);
		block->words[first + i] = pfns[i] << PIN_USERS_BITS | 1;
	}
	spin_unlock(&block->lock);
	return i;
}

/* Pin leading pages. Return: how many, 0 to try again, or an error. */
static int pin_some(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn, unsigned int n,
		    bool write, struct page **pages, u64 *pfns)
{
	unsigned int first = gfn % VTDS_PIN_BATCH;
	struct pin_block *block = block_find(pins, gfn, write);
	unsigned int missing, recorded;
	unsigned long hva;
	int got, ret;

	n = min(n, VTDS_PIN_BATCH - first);
	if (block) {
		ret = pin_again(pins, block, first, n, pfns, &missing);
		if (ret)
			return ret;
		n = missing;
	}
	ret = vtds_vm_hva(vm, gfn, write, &hva, &n);
	if (ret)
		return ret;
	if (!block)
		block = block_make(pins, gfn, write);
	if (!block)
		return -ENOMEM;
	got = pages_acquire(pins, hva, n, write, pages);
	if (got < 0)
		return got;
	recorded = pin_record(block, first, pages, got, pfns);
	while (got > recorded)
		pages_release(pins, page_to_pfn(pages[--got]), 1, write);
	return recorded;
}

static unsigned int pin_pages(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn,
			      unsigned int n, bool write, struct page **pages,
			      u64 *pfns, int *err)
{
	unsigned int done = 0;
	int ret;

	while (done < n) {
		ret = pin_some(pins, vm, gfn + done, n - done, write, pages, pfns + done);
		if (ret < 0) {
			*err = ret;
			break;
		}
		done += ret;
	}
	return done;
}

/* Not inlined, so that a page that is pinned already costs less. */
static noinline int pin_missing(struct vtds_pins *pins, struct vtds_vm *vm, u64 gfn,
				bool write, u64 *pfn)
{
	struct page *page;
	int err;

	return pin_pages(pins, vm, gfn, 1, write, &page, pfn, &err) ? 0 : err;
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
	struct pin_block *block = block_find(pins, gfn, write);

	if (block && pin_again_one(pins, block, gfn % VTDS_PIN_BATCH, pfn))
		return 0;
	return pin_missing(pins, vm, gfn, write, pfn);
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

/* ---- unpinning ---- */

/**
 * struct pin_run - pages to release, contiguous in the host
 * @pfn: first
 * @n: how many
 */
struct pin_run {
	u64 pfn;
	unsigned long n;
};

/* Whether the run can take one more page. */
static bool run_add(struct pin_run *run, u64 pfn)
{
	if (run->n && pfn != run->pfn + run->n)
		return false;
	if (!run->n)
		run->pfn = pfn;
	run->n++;
	return true;
}

/*
 * One user less of each of @n pages of a block, ending before one that has to be
 * released but does not continue the run. Return: how many.
 */
static unsigned int pin_drop(struct vtds_pins *pins, struct pin_block *block,
			     unsigned int first, unsigned int n, struct pin_run *run)
{
	s64 room = pins->idle_max - atomic64_read(&pins->idle);
	unsigned int i, idle = 0;

	run->n = 0;
	spin_lock(&block->lock);
	for (i = 0; i < n; i++) {
		u64 *word = &block->words[first + i];

		if (WARN_ON_ONCE(!word_users(*word)))
			continue;
		if (word_users(*word) > 1) {
			--*word;
		} else if (idle < room) {
			--*word;
			idle++;
		} else {
			if (!run_add(run, word_pfn(*word)))
				break;
			*word = 0;
		}
	}
	block->idle += idle;
	spin_unlock(&block->lock);
	if (idle)
		atomic64_add(idle, &pins->idle);
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
	bool full = false;
	struct pin_run run;
	unsigned int first, done;

	while (n) {
		first = gfn % VTDS_PIN_BATCH;
		done = min_t(unsigned long, n, VTDS_PIN_BATCH - first);
		done = pin_drop(pins, block_find(pins, gfn, write), first, done, &run);
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

/* Take idle pages of a block out, from *@first on, as far as they are a run. */
static void trim_run(struct vtds_pins *pins, struct pin_block *block,
		     unsigned int *first, unsigned int last, struct pin_run *run)
{
	run->n = 0;
	spin_lock(&block->lock);
	for (; block->idle && *first <= last; ++*first) {
		u64 *word = &block->words[*first];

		if (!*word || word_users(*word))
			continue;
		if (!run_add(run, word_pfn(*word)))
			break;
		*word = 0;
		block->idle--;
	}
	if (!block->idle)
		*first = last + 1;
	spin_unlock(&block->lock);
	atomic64_sub(run->n, &pins->idle);
}

static void trim_block(struct vtds_pins *pins, struct pin_block *block,
		       unsigned int first, unsigned int last, bool write)
{
	struct pin_run run;

	while (first <= last) {
		trim_run(pins, block, &first, last, &run);
		if (run.n)
			pages_release(pins, run.pfn, run.n, write);
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
	struct pin_block *block;
	unsigned long index;
	unsigned int write;

	if (!atomic64_read(&pins->idle))
		return;
	for (write = 0; write < 2; write++) {
		xa_for_each_range(&pins->blocks[write], index, block,
				  gfn / VTDS_PIN_BATCH, last_gfn / VTDS_PIN_BATCH) {
			u64 base = (u64)index * VTDS_PIN_BATCH;

			trim_block(pins, block, gfn > base ? gfn - base : 0,
				   min_t(u64, last_gfn - base, VTDS_PIN_BATCH - 1), write);
		}
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
	struct pin_block *block = block_find(pins, gfn, write);

	return block ? word_pfn(READ_ONCE(block->words[gfn % VTDS_PIN_BATCH])) : 0;
}
