// SPDX-License-Identifier: GPL-2.0
/*
 * Tracked guest pages: one object per guest page, however many tables mirror
 * it, so that KVM tracks it once and a write finds all its users in one lookup.
 */
#include <linux/err.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "engine.h"
#include "trace.h"

/**
 * vtds_page_load() - find a tracked page that is not among those found last
 * @engine: engine
 * @gfn: guest frame number
 *
 * It is remembered. Many may do so at a time, of a page that none of them can free.
 *
 * Context: engine->lock held. Return: the page, or NULL.
 */
struct vtds_page *vtds_page_load(struct vtds_engine *engine, u64 gfn)
{
	struct vtds_page *page = xa_load(&engine->pages, gfn);

	if (page)
		WRITE_ONCE(*vtds_page_recent(engine, gfn), page);
	return page;
}

/**
 * vtds_page_get() - track a guest page, or take a reference if it is tracked
 * @engine: engine
 * @gfn: guest frame number
 * @links: NULL, or if its entries may refer to tables what vtds_page_links() tells
 *
 * Context: engine->lock write-held; may sleep.
 * Return: the page, or ERR_PTR(): -ENXIO not RAM, -EDQUOT, -ENOMEM, -EFAULT.
 */
struct vtds_page *vtds_page_get(struct vtds_engine *engine, u64 gfn,
				const void *links)
{
	struct vtds_page *page = vtds_page_find(engine, gfn);
	int err;

	vtds_assert_structural(engine);
	if (page) {
		if (page->gone)
			return ERR_PTR(-ENXIO);
		page->refs++;
		if (!page->links)
			WRITE_ONCE(page->links, links);
		return page;
	}

	page = kzalloc(sizeof(*page), GFP_KERNEL_ACCOUNT);
	if (!page)
		return ERR_PTR(-ENOMEM);
	page->gfn = gfn;
	page->refs = 1;
	/* Before the first write is trapped, which looks for it. */
	page->links = links;
	INIT_LIST_HEAD(&page->nodes);

	err = xa_insert(&engine->pages, gfn, page, GFP_KERNEL_ACCOUNT);
	if (err)
		goto err_free;
	page->entries = engine->guest->track(engine, gfn);
	if (IS_ERR(page->entries)) {
		err = PTR_ERR(page->entries);
		goto err_erase;
	}
	atomic64_inc(&engine->counters.tracked_pages);
	trace_vtds_track(gfn, true);
	return page;

err_erase:
	xa_erase(&engine->pages, gfn);
err_free:
	kfree_rcu(page, rcu);
	return ERR_PTR(err);
}

/**
 * vtds_page_put() - give a reference back; the last one ends the tracking
 * @engine: engine
 * @page: from vtds_page_get()
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_page_put(struct vtds_engine *engine, struct vtds_page *page)
{
	vtds_assert_structural(engine);
	if (--page->refs)
		return;

	xa_erase(&engine->pages, page->gfn);
	if (*vtds_page_recent(engine, page->gfn) == page)
		*vtds_page_recent(engine, page->gfn) = NULL;
	engine->guest->untrack(engine, page->gfn, page->gone);
	atomic64_dec(&engine->counters.tracked_pages);
	trace_vtds_track(page->gfn, false);
	kfree_rcu(page, rcu);
}

/**
 * vtds_page_links() - whether entries of a page may refer to tables, and whose
 * @engine: engine
 * @gfn: guest frame number
 *
 * Context: any, no lock needed: for who wants to know before he has one.
 * Return: NULL if they may not; else the struct vtds_host of the domain that had the
 * page tracked first, or @engine for roots. To compare: it may be gone already.
 */
const void *vtds_page_links(struct vtds_engine *engine, u64 gfn)
{
	const struct vtds_page *page;
	const void *links;

	rcu_read_lock();
	page = xa_load(&engine->pages, gfn);
	links = page ? READ_ONCE(page->links) : NULL;
	rcu_read_unlock();
	return links;
}

/**
 * vtds_page_watch() - like vtds_page_get(), and report writes by root_written()
 * @engine: engine
 * @gfn: guest frame number
 *
 * Context: engine->lock write-held; may sleep. Return: as vtds_page_get().
 */
struct vtds_page *vtds_page_watch(struct vtds_engine *engine, u64 gfn)
{
	struct vtds_page *page = vtds_page_get(engine, gfn, engine);

	if (IS_ERR(page))
		return page;
	page->watches++;
	return page;
}

/**
 * vtds_page_unwatch() - undo vtds_page_watch()
 * @engine: engine
 * @page: from vtds_page_watch(), or NULL
 *
 * Context: engine->lock write-held; may sleep.
 */
void vtds_page_unwatch(struct vtds_engine *engine, struct vtds_page *page)
{
	if (!page)
		return;
	page->watches--;
	vtds_page_put(engine, page);
}
