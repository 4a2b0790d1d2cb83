// SPDX-License-Identifier: GPL-2.0
/*
 * Tracked guest pages: one object per guest page, however many tables mirror
 * it, so that KVM tracks it once and a write finds all its users in one lookup.
 */
#include <linux/err.h>
#include <linux/slab.h>

#include "engine.h"
#include "trace.h"

/**
 * vtds_page_get() - track a guest page, or take a reference if it is tracked
 * @engine: engine
 * @gfn: guest frame number
 *
 * Context: engine->lock write-held; may sleep.
 * Return: the page, or ERR_PTR(): -ENXIO not RAM, -EDQUOT, -ENOMEM, -EFAULT.
 */
struct vtds_page *vtds_page_get(struct vtds_engine *engine, u64 gfn)
{
	struct vtds_page *page = xa_load(&engine->pages, gfn);
	int err;

	vtds_assert_structural(engine);
	if (page) {
		if (page->gone)
			return ERR_PTR(-ENXIO);
		page->refs++;
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
	engine->guest->untrack(engine, page->gfn, page->gone);
	atomic64_dec(&engine->counters.tracked_pages);
	trace_vtds_track(page->gfn, false);
	kfree(page);
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
	struct vtds_page *page = vtds_page_get(engine, gfn);

	if (!IS_ERR(page))
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
