// SPDX-License-Identifier: GPL-2.0
/*
 * Tracked guest pages: one object per guest page, however many tables mirror
 * it, so that KVM tracks it once and a write finds all its users in one lookup.
 */
#include <linux/err.h>
#include <linux/slab.h>

#include "engine.h"
#include "trace.h"

/* In engine->pages: a page whose entries may refer to other tables. */
#define PAGE_HAS_LINKS	XA_MARK_0

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
 * @links: its entries may refer to tables: vtds_page_has_links()
 *
 * Context: engine->lock write-held; may sleep.
 * Return: the page, or ERR_PTR(): -ENXIO not RAM, -EDQUOT, -ENOMEM, -EFAULT.
 */
struct vtds_page *vtds_page_get(struct vtds_engine *engine, u64 gfn, bool links)
{
	struct vtds_page *page = vtds_page_find(engine, gfn);
	int err;

	vtds_assert_structural(engine);
	if (page) {
		if (page->gone)
			return ERR_PTR(-ENXIO);
		page->refs++;
		if (links)
			xa_set_mark(&engine->pages, gfn, PAGE_HAS_LINKS);
		return page;
	}

	page = kzalloc(sizeof(*page), GFP_KERNEL_ACCOUNT);
	if (!page)
		return ERR_PTR(-ENOMEM);
	page->gfn = gfn;
	page->refs = 1;
	INIT_LIST_HEAD(&page->nodes);

	err = xa_insert(&engine->pages, gfn, page, GFP_KERNEL_ACCOUNT);
	if (err)
		goto err_free;
	/* Before the first write is trapped, which looks for it. */
	if (links)
		xa_set_mark(&engine->pages, gfn, PAGE_HAS_LINKS);
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
	kfree(page);
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
	kfree(page);
}

/**
 * vtds_page_has_links() - whether entries of a page may refer to tables
 * @engine: engine
 * @gfn: guest frame number
 *
 * Context: any, no lock needed: for who wants to know before he has one.
 */
bool vtds_page_has_links(struct vtds_engine *engine, u64 gfn)
{
	return xa_get_mark(&engine->pages, gfn, PAGE_HAS_LINKS);
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
	struct vtds_page *page = vtds_page_get(engine, gfn, true);

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
