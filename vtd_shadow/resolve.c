// SPDX-License-Identifier: GPL-2.0
/*
 * From a requester id to where the guest sends it: the walk of VT-d's root and
 * context tables, which stay tracked, so that a write to an entry that matters
 * starts the walk again; or the look into AMD's device table.
 */
#include <linux/err.h>
#include <linux/mm.h>

#include "context.h"

/* Track the table at @gpa as step @n. Return: its contents, or ERR_PTR(). */
static const __le64 *step_to(struct vtds_endpoint *endpoint, unsigned int n,
			     u64 gpa, unsigned int offset, unsigned int bytes)
{
	struct vtds_engine *engine = &endpoint->context->engine;
	struct vtds_step *step = &endpoint->steps[n];
	u64 gfn = gpa >> VTDS_TABLE_SHIFT;
	struct vtds_page *page;

	if (!step->page || step->page->gfn != gfn || step->page->gone) {
		page = vtds_page_watch(engine, gfn);
		vtds_page_unwatch(engine, step->page);
		step->page = IS_ERR(page) ? NULL : page;
		if (IS_ERR(page))
			return ERR_CAST(page);
	}
	step->offset = offset;
	step->bytes = bytes;
	return step->page->entries + offset / sizeof(__le64);
}

static void step_clear(struct vtds_endpoint *endpoint, unsigned int n)
{
	struct vtds_step *step = &endpoint->steps[n];

	vtds_page_unwatch(&endpoint->context->engine, step->page);
	step->page = NULL;
}

/**
 * vtds_resolve_clear() - stop tracking the tables on the way to an endpoint
 * @endpoint: endpoint
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_resolve_clear(struct vtds_endpoint *endpoint)
{
	unsigned int n;

	for (n = 0; n < VTDS_STEPS; n++)
		step_clear(endpoint, n);
}

static void block(struct vtds_target *target, enum vtds_reason reason, u64 gpa)
{
	*target = (struct vtds_target) {
		.state = VTDS_STATE_BLOCKED,
		.reason = reason,
		.gpa = gpa,
	};
}

static enum vtds_reason check_reason(enum vtds_vtd_check check,
				     enum vtds_reason reserved)
{
	switch (check) {
	case VTDS_VTD_RESERVED:
		return reserved;
	case VTDS_VTD_INVALID:
		return VTDS_REASON_CONTEXT_INVALID;
	default:
		return 0;	/* absent: blocked, and nothing wrong with it */
	}
}

static enum vtds_reason access_reason(int err, enum vtds_reason access)
{
	return err == -ENXIO ? access : VTDS_REASON_PIN;
}

/* VT-d 4.1 §3.4.2 "Legacy Mode Address Translation" */
static void resolve_vtd(struct vtds_endpoint *endpoint, struct vtds_target *target)
{
	struct vtds_context *context = endpoint->context;
	const struct vtds_vtd_caps *caps = &context->engine.fmt.vtd;
	unsigned int bus = endpoint->requester_id >> 8;
	unsigned int devfn = endpoint->requester_id & 0xff;
	struct vtds_vtd_context entry;
	enum vtds_vtd_check check;
	const __le64 *raw;
	u64 table_gpa;

	raw = step_to(endpoint, 0, context->root_gpa, bus * 16, 16);
	if (IS_ERR(raw)) {
		step_clear(endpoint, 1);
		return block(target, access_reason(PTR_ERR(raw), VTDS_REASON_ROOT_ACCESS),
			     context->root_gpa);
	}
	check = vtds_vtd_decode_root(caps, le64_to_cpu(READ_ONCE(raw[0])),
				     le64_to_cpu(READ_ONCE(raw[1])), &table_gpa);
	if (check != VTDS_VTD_OK) {
		step_clear(endpoint, 1);
		return block(target, check_reason(check, VTDS_REASON_ROOT_RESERVED),
			     context->root_gpa);
	}

	raw = step_to(endpoint, 1, table_gpa, devfn * 16, 16);
	if (IS_ERR(raw))
		return block(target, access_reason(PTR_ERR(raw), VTDS_REASON_CONTEXT_ACCESS),
			     table_gpa);
	check = vtds_vtd_decode_context(caps, le64_to_cpu(READ_ONCE(raw[0])),
					le64_to_cpu(READ_ONCE(raw[1])), &entry);
	if (check != VTDS_VTD_OK)
		return block(target, check_reason(check, VTDS_REASON_CONTEXT_RESERVED),
			     table_gpa);

	*target = (struct vtds_target) {
		.state = entry.pass_through ? VTDS_STATE_BYPASS : VTDS_STATE_SHADOW,
	};
	if (!entry.pass_through) {
		target->levels = entry.levels;
		target->perm = VTDS_RW;
		target->domain_id = entry.domain_id;
		target->root_gfn = entry.table_gpa >> VTDS_TABLE_SHIFT;
	}
}

/*
 * The device table is not tracked: guests write its entries with CMPXCHG16B,
 * which KVM does not emulate. The guest has to tell of each change, and then the
 * entry is read again: 48882 §2.4.2 "INVALIDATE_DEVTAB_ENTRY".
 */
static int read_device_entry(struct vtds_context *context, u64 gpa, u64 dte[4])
{
	u64 gfn = gpa >> VTDS_TABLE_SHIFT;
	const __le64 *raw;
	unsigned int i;
	u64 pfn;
	int err;

	err = vtds_pin(&context->pins, context->vm, gfn, false, &pfn);
	if (err)
		return err;
	raw = page_address(pfn_to_page(pfn)) + offset_in_page(gpa);
	for (i = 0; i < 4; i++)
		dte[i] = le64_to_cpu(READ_ONCE(raw[i]));
	vtds_unpin(&context->pins, gfn, 1, false);
	return 0;
}

/* 48882 §2.2.2 "Device Table" */
static void resolve_amd(struct vtds_endpoint *endpoint, struct vtds_target *target)
{
	struct vtds_context *context = endpoint->context;
	u64 offset = (u64)endpoint->requester_id * VTDS_AMD_DTE_BYTES;
	u64 gpa = context->root_gpa + offset;
	struct vtds_amd_device device;
	u64 dte[4];
	int err;

	if (offset >= context->root_bytes)
		return block(target, 0, 0);
	err = read_device_entry(context, gpa, dte);
	if (err)
		return block(target, access_reason(err, VTDS_REASON_ROOT_ACCESS), gpa);

	switch (vtds_amd_decode_device(&context->engine.fmt.amd, dte, &device)) {
	case VTDS_AMD_PASS:
		*target = (struct vtds_target) { .state = VTDS_STATE_BYPASS };
		break;
	case VTDS_AMD_BLOCK:
		block(target, 0, 0);
		break;
	case VTDS_AMD_RESERVED:
		block(target, VTDS_REASON_CONTEXT_RESERVED, gpa);
		break;
	case VTDS_AMD_INVALID:
		block(target, VTDS_REASON_CONTEXT_INVALID, gpa);
		break;
	case VTDS_AMD_UNSUPPORTED:
		block(target, VTDS_REASON_UNSUPPORTED, gpa);
		break;
	case VTDS_AMD_TRANSLATE:
		*target = (struct vtds_target) {
			.state = VTDS_STATE_SHADOW,
			.levels = device.levels,
			.perm = device.perm,
			.domain_id = device.domain_id,
			.root_gfn = device.table_gpa >> VTDS_TABLE_SHIFT,
		};
		break;
	}
}

/**
 * vtds_resolve() - find where the guest sends an endpoint
 * @endpoint: endpoint
 * @target: out
 *
 * Context: engine.lock write-held; may sleep.
 */
void vtds_resolve(struct vtds_endpoint *endpoint, struct vtds_target *target)
{
	struct vtds_context *context = endpoint->context;

	vtds_assert_structural(&context->engine);
	if (context->enabled && !context->closed)
		return context->engine.fmt.kind == VTDS_FMT_AMD_V1 ?
		       resolve_amd(endpoint, target) : resolve_vtd(endpoint, target);

	vtds_resolve_clear(endpoint);
	*target = (struct vtds_target) {
		.state = context->closed ? VTDS_STATE_BLOCKED : VTDS_STATE_BYPASS,
	};
}
