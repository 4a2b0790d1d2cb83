// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static bool no(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static bool no(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "# ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	return false;
}

static void print_translation(const char *what, const struct vtds_translate *t)
{
	fprintf(stderr, "# %s: state %u gpa %#llx leaf %#llx perm %u result %#x\n", what,
		t->state, t->gpa, t->leaf_bytes, t->perm, t->result);
}

static bool matches(const struct vtds_translate *t, struct walk w, u32 result)
{
	struct vtds_translate want = { .state = w.state, .gpa = w.gpa, .perm = w.perm,
		.leaf_bytes = w.leaf_bytes, .result = result };

	if (t->state == want.state && t->gpa == want.gpa && t->leaf_bytes == want.leaf_bytes &&
	    t->perm == want.perm && t->result == want.result)
		return true;
	print_translation("got ", t);
	print_translation("want", &want);
	return no("at iova %#llx", t->iova);
}

bool is_state(struct env *e, u32 dev, u32 state)
{
	struct vtds_translate t = env_translate(e, dev, 0);

	return t.state == state || no("device %u: state %u, want %u", dev, t.state, state);
}

bool is_mapped(struct env *e, u32 dev, u64 iova, u64 gpa, u64 leaf_bytes, u32 perm)
{
	struct vtds_translate t = env_translate(e, dev, iova);

	return matches(&t, (struct walk) { .state = VTDS_STATE_SHADOW, .gpa = gpa,
		       .leaf_bytes = leaf_bytes, .perm = perm }, VTDS_TRANSLATE_HOST_OK);
}

bool is_unmapped(struct env *e, u32 dev, u64 iova)
{
	struct vtds_translate t = env_translate(e, dev, iova);

	return matches(&t, (struct walk) { .state = t.state }, VTDS_TRANSLATE_HOST_OK);
}

bool is_queued(struct env *e, u32 dev, u64 iova)
{
	struct vtds_translate t = env_translate(e, dev, iova);
	u32 want = VTDS_TRANSLATE_QUEUED | VTDS_TRANSLATE_HOST_OK;

	return t.result == want || no("iova %#llx: result %#x, want %#x (queued)",
				      iova, t.result, want);
}

bool is_as_walked(struct env *e, u32 dev, u64 iova)
{
	struct vtds_translate t = env_translate(e, dev, iova);
	struct walk w = env_walk(e, dev, iova);

	if (w.state == VTDS_STATE_BYPASS)
		return is_state(e, dev, w.state);
	return matches(&t, w, VTDS_TRANSLATE_HOST_OK);
}

static bool same_bytes(const char *what, u64 iova, const u8 *got, const u8 *want, u32 bytes)
{
	u32 i;

	for (i = 0; i < bytes; i++)
		if (got[i] != want[i])
			return no("%s at iova %#llx: byte %u is %#x, want %#x", what,
				  iova, i, got[i], want[i]);
	return true;
}

#define GUARD_BYTES	16u

bool dma_reaches(struct env *e, u32 dev, u64 iova, u64 gpa, u32 bytes)
{
	static u32 seed = 1;
	u8 want[PAGE_BYTES], guard[GUARD_BYTES], *mem = vm_host(&e->vm, gpa);
	u32 i;

	if (!dev_can_dma(&e->dev[dev]))
		return true;
	memset(guard, 0x5a, sizeof(guard));
	for (i = 0; i < bytes; i++) {
		seed = seed * 1103515245 + 12345;
		want[i] = seed >> 16;
	}
	memcpy(mem, want, bytes);
	edu_read(&e->dev[dev], iova, 0, bytes);
	memset(mem, 0, bytes);
	memset(mem + bytes, 0x5a, GUARD_BYTES);
	edu_write(&e->dev[dev], iova, 0, bytes);
	return same_bytes("DMA", iova, mem, want, bytes) &&
		same_bytes("behind DMA", iova, mem + bytes, guard, GUARD_BYTES);
}

static void print_event(const struct vtds_event *ev)
{
	fprintf(stderr, "# event: reason %u rid %#x iova %#llx gpa %#llx level %u lost %u\n",
		ev->reason, ev->requester_id, ev->iova, ev->gpa, ev->level, ev->lost);
}

bool next_event_is(struct env *e, u32 reason, u64 iova, u64 gpa, u64 level)
{
	struct vtds_event ev;
	ssize_t n = read(e->ctx, &ev, sizeof(ev));

	if (n != sizeof(ev))
		return no("no event (read gives %zd, errno %d), want reason %u", n, errno, reason);
	if (ev.reason == reason && (iova == IGNORE || ev.iova == iova) &&
	    (gpa == IGNORE || ev.gpa == gpa) && (level == IGNORE || ev.level == level))
		return true;
	print_event(&ev);
	return no("want reason %u iova %#llx gpa %#llx level %lld", reason, iova, gpa, level);
}

bool has_no_event(struct env *e)
{
	struct vtds_event ev;

	if (read(e->ctx, &ev, sizeof(ev)) < 0)
		return errno == EAGAIN || no("read of events: errno %d", errno);
	print_event(&ev);
	return no("want none");
}

u64 drain_events(struct env *e)
{
	struct vtds_event ev[64];
	u64 total = 0;
	ssize_t n, i;

	while ((n = read(e->ctx, ev, sizeof(ev))) > 0)
		for (i = 0; i < n / (ssize_t)sizeof(ev[0]); i++)
			total += 1 + ev[i].lost;
	return total;
}

static bool is_empty(const struct vtds_stats *s)
{
	return !s->endpoints && !s->domains && !s->tables && !s->tracked_pages &&
	       !s->mappings && !s->queued && !s->pinned_pages;
}

bool is_released(struct env *e)
{
	struct vtds_stats s = env_stats(e);

	if (is_empty(&s))
		return true;
	no("left: %llu endpoints %llu domains %llu tables %llu tracked pages", s.endpoints,
	   s.domains, s.tables, s.tracked_pages);
	return no("left: %llu mappings %llu queued %llu pinned", s.mappings, s.queued,
		  s.pinned_pages);
}

bool is_released_soon(struct env *e)
{
	struct vtds_stats s;
	int i;

	for (i = 0; i < 200; i++) {
		s = env_stats(e);
		if (is_empty(&s))
			break;
		sleep_ms(100);
	}
	return is_released(e);
}

void *bad_pointer(void)
{
	static void *page;

	if (!page)
		page = mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return page;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}
