// SPDX-License-Identifier: GPL-2.0
/* Guest tables: building them with vCPU stores, and walking them by brute force. */
#include <string.h>

#include "env.h"

#define ENTRY_ADDR	0x000ffffffffff000ull

u32 table_index(u64 iova, u32 level)
{
	return (iova >> (12 + 9 * (level - 1))) & 511;
}

u64 level_bytes(u32 level)
{
	return 1ull << (12 + 9 * (level - 1));
}

struct dom dom_alloc(struct env *e, u32 id)
{
	return (struct dom) { .top_gpa = vm_alloc(&e->vm, 1), .levels = e->levels, .id = id };
}

void dom_set(struct env *e, u32 dev, const struct dom *dom)
{
	e->fmt->set_device(e, dev, DEV_TRANSLATED, dom);
}

/* GPA of the entry for @iova in the table of @level; makes the tables above. */
u64 dom_entry(struct env *e, const struct dom *dom, u64 iova, u32 level)
{
	u64 table = dom->top_gpa, at;
	struct entry entry;
	u32 l;

	for (l = dom->levels; l > level; l--) {
		at = table + 8 * table_index(iova, l);
		entry = e->fmt->decode(e, vm_read64(&e->vm, at), l, iova);
		if (entry.kind == ENTRY_LINK) {
			table = entry.gpa;
			continue;
		}
		table = vm_alloc(&e->vm, 1);
		vm_write64(&e->vm, at, e->fmt->link(table, l, PERM_RW));
	}
	return table + 8 * table_index(iova, level);
}

void dom_map(struct env *e, const struct dom *dom, u64 iova, u64 gpa, u32 level, u32 perm)
{
	vm_write64(&e->vm, dom_entry(e, dom, iova, level), e->fmt->leaf(gpa, level, perm));
}

void dom_unmap(struct env *e, const struct dom *dom, u64 iova, u32 level)
{
	vm_write64(&e->vm, dom_entry(e, dom, iova, level), 0);
}

/* Whether tables of @levels have an entry for @iova. */
static bool covers(u32 levels, u64 iova)
{
	return levels > 5 || !(iova >> (12 + 9 * levels));
}

struct walk env_walk(struct env *e, u32 dev, u64 iova)
{
	struct walk w = { .perm = PERM_RW };
	struct entry entry = { 0 };
	struct dom dom;
	u64 table, inside;
	u32 l;

	w.state = e->fmt->read_device(e, e->rid[dev], &dom);
	if (w.state != VTDS_STATE_SHADOW || iova > e->last_iova || !covers(dom.levels, iova))
		goto nothing;
	for (table = dom.top_gpa, l = dom.levels; vm_is_ram(&e->vm, table);
	     table = entry.gpa, l = entry.next_level) {
		entry = e->fmt->decode(e, vm_read64(&e->vm, table + 8 * table_index(iova, l)),
				       l, iova);
		w.perm &= entry.perm;
		if (entry.kind != ENTRY_LINK)
			break;
		/* levels in between are skipped only for indices of zero */
		if (!covers(entry.next_level, iova & (level_bytes(l) - 1)))
			goto nothing;
	}
	inside = iova & (entry.leaf_bytes - 1);
	if (entry.kind != ENTRY_LEAF || !w.perm || !vm_is_ram(&e->vm, entry.gpa + inside))
		goto nothing;
	w.gpa = entry.gpa + inside;
	w.leaf_bytes = entry.leaf_bytes;
	return w;
nothing:
	return (struct walk) { .state = w.state };
}

/*
 * Intel VT-d, legacy mode. VT-d 4.1 section 9.1 'Root Entry', 9.3 'Context Entry',
 * 9.8 'Second-Stage Paging Entries'.
 */
#define VTD_PRESENT		1ull
#define VTD_CTX_PASS_THROUGH	(2ull << 2)
#define VTD_CTX_TT_MASK		(3ull << 2)
#define VTD_SS_PS		(1ull << 7)

static u64 vtd_link(u64 gpa, u32 level, u32 perm)
{
	return gpa | perm;
}

static u64 vtd_leaf(u64 gpa, u32 level, u32 perm)
{
	return gpa | perm | (level > 1 ? VTD_SS_PS : 0);
}

/* Makes the context table on first use. */
static u64 vtd_context_entry(struct env *e, u32 rid)
{
	u64 at = e->root_gpa + 16 * (rid >> 8);
	u64 root = vm_read64(&e->vm, at);

	if (!(root & VTD_PRESENT)) {
		root = vm_alloc(&e->vm, 1) | VTD_PRESENT;
		vm_write64(&e->vm, at, root);
	}
	return (root & ENTRY_ADDR) + 16 * (rid & 0xff);
}

/*
 * The low half alone if that is enough: one store then switches from one domain
 * to the other. Else not-present first, as the architecture wants it.
 */
static void vtd_set_device(struct env *e, u32 dev, enum dev_entry kind, const struct dom *dom)
{
	u64 at = vtd_context_entry(e, e->rid[dev]), lo = 0, hi = 0;

	if (kind == DEV_TRANSLATED) {
		lo = dom->top_gpa | VTD_PRESENT;
		hi = (dom->levels - 2) | (u64)dom->id << 8;
	} else if (kind == DEV_PASS_THROUGH) {
		lo = VTD_CTX_PASS_THROUGH | VTD_PRESENT;
		hi = 2 | 1 << 8;
	}
	if (lo && hi != vm_read64(&e->vm, at + 8)) {
		if (vm_read64(&e->vm, at))
			vm_write64(&e->vm, at, 0);
		vm_write64(&e->vm, at + 8, hi);
	}
	vm_write64(&e->vm, at, lo);
}

static u32 vtd_read_device(struct env *e, u32 rid, struct dom *dom)
{
	u64 root = vm_read64(&e->vm, e->root_gpa + 16 * (rid >> 8));
	u64 at = (root & ENTRY_ADDR) + 16 * (rid & 0xff), lo, hi;

	if (!(root & VTD_PRESENT))
		return VTDS_STATE_BLOCKED;
	lo = vm_read64(&e->vm, at);
	hi = vm_read64(&e->vm, at + 8);
	*dom = (struct dom) { .top_gpa = lo & ENTRY_ADDR, .levels = (hi & 7) + 2,
		.id = (hi >> 8) & 0xffff };
	if (!(lo & VTD_PRESENT))
		return VTDS_STATE_BLOCKED;
	return (lo & VTD_CTX_TT_MASK) == VTD_CTX_PASS_THROUGH ?
		VTDS_STATE_BYPASS : VTDS_STATE_SHADOW;
}

static struct entry vtd_decode(struct env *e, u64 v, u32 level, u64 iova)
{
	struct entry entry = { .perm = v & PERM_RW, .gpa = v & ENTRY_ADDR,
		.next_level = level - 1 };

	if (!entry.perm)
		return entry;
	entry.kind = ENTRY_LINK;
	if (level == 1 || (v & VTD_SS_PS)) {
		entry.kind = ENTRY_LEAF;
		entry.leaf_bytes = level_bytes(level);
		if (!(e->setup.page_sizes & entry.leaf_bytes) ||
		    (entry.gpa & (entry.leaf_bytes - 1)))
			entry.kind = ENTRY_REFUSED;
	}
	if (entry.gpa >> e->setup.gpa_bits)
		entry.kind = ENTRY_REFUSED;
	return entry;
}

const struct fmt fmt_vtd = {
	.name = "vtd",
	.viommu = VTDS_VIOMMU_VTD,
	.link = vtd_link,
	.leaf = vtd_leaf,
	.set_device = vtd_set_device,
	.read_device = vtd_read_device,
	.decode = vtd_decode,
};

/*
 * AMD IOMMU: AMD I/O Virtualization Technology Specification 3.08, 2.2.2.1 'Device
 * Table Entry Format' and 2.2.3 'I/O Page Tables for Host Translations'.
 */
#define AMD_V			1ull
#define AMD_TV			2ull
#define AMD_PR			1ull
#define AMD_LEVEL(n)		((u64)(n) << 9)
#define AMD_LEAF_RESERVED	(0x7full << 52)	/* 58:52; U and FC are not */
#define AMD_LINK_RESERVED	(0x1ffull << 52)	/* 60:52 */
#define AMD_IR			(1ull << 61)
#define AMD_IW			(1ull << 62)

static u64 amd_perm(u32 perm)
{
	return (perm & PERM_R ? AMD_IR : 0) | (perm & PERM_W ? AMD_IW : 0);
}

static u64 amd_link(u64 gpa, u32 level, u32 perm)
{
	return gpa | amd_perm(perm) | AMD_LEVEL(level - 1) | AMD_PR;
}

static u64 amd_leaf(u64 gpa, u32 level, u32 perm)
{
	return gpa | amd_perm(perm) | AMD_PR;
}

static void amd_set_device(struct env *e, u32 dev, enum dev_entry kind, const struct dom *dom)
{
	u64 at = e->root_gpa + 32 * e->rid[dev], q0 = AMD_V | AMD_TV;

	if (kind == DEV_TRANSLATED) {
		q0 |= dom->top_gpa | AMD_LEVEL(dom->levels) | AMD_IR | AMD_IW;
		vm_write64(&e->vm, at + 8, dom->id);
	} else if (kind == DEV_PASS_THROUGH) {
		q0 |= AMD_IR | AMD_IW;
	}
	vm_write64(&e->vm, at, q0);
	env_inv_device(e, dev);
}

static u32 amd_read_device(struct env *e, u32 rid, struct dom *dom)
{
	u64 at = e->root_gpa + 32 * rid, q0 = vm_read64(&e->vm, at);

	*dom = (struct dom) { .top_gpa = q0 & ENTRY_ADDR, .levels = (q0 >> 9) & 7,
		.id = vm_read64(&e->vm, at + 8) & 0xffff };
	if (!(q0 & AMD_V))
		return VTDS_STATE_BYPASS;
	if (!(q0 & AMD_TV) || !(q0 & (AMD_IR | AMD_IW)))
		return VTDS_STATE_BLOCKED;
	return dom->levels ? VTDS_STATE_SHADOW : VTDS_STATE_BYPASS;
}

/* The lowest clear bit of the address is the upper half bit of the page's size. */
static u64 amd_sized_bytes(u64 v)
{
	u64 bytes = SIZE_4K;

	while (v & bytes)
		bytes <<= 1;
	return bytes << 1;
}

/*
 * A page of a size between two levels fills several entries; each is a leaf of
 * its own here, that of its part of the page.
 */
static struct entry amd_decode_leaf(u64 v, u32 level, u64 iova)
{
	struct entry entry = { .kind = ENTRY_LEAF, .gpa = v & ENTRY_ADDR,
		.leaf_bytes = level_bytes(level) };
	u64 bytes = ((v >> 9) & 7) == 7 ? amd_sized_bytes(v) : entry.leaf_bytes;

	if (v & AMD_LEAF_RESERVED || entry.leaf_bytes > SIZE_1G ||
	    bytes > entry.leaf_bytes * 256 || bytes < entry.leaf_bytes ||
	    (((v >> 9) & 7) == 7 && bytes == entry.leaf_bytes))
		entry.kind = ENTRY_REFUSED;
	entry.gpa &= ~(bytes - 1);
	entry.gpa |= iova & (bytes - 1) & ~(entry.leaf_bytes - 1);
	return entry;
}

static struct entry amd_decode(struct env *e, u64 v, u32 level, u64 iova)
{
	struct entry entry = { .gpa = v & ENTRY_ADDR, .next_level = (v >> 9) & 7 };

	if (!(v & AMD_PR))
		return entry;
	if (!entry.next_level || entry.next_level == 7) {
		entry = amd_decode_leaf(v, level, iova);
	} else {
		entry.kind = ENTRY_LINK;
		if (entry.next_level >= level || v & AMD_LINK_RESERVED)
			entry.kind = ENTRY_REFUSED;
	}
	if ((v & ENTRY_ADDR) >> e->setup.gpa_bits)
		entry.kind = ENTRY_REFUSED;
	entry.perm = (v & AMD_IR ? PERM_R : 0) | (v & AMD_IW ? PERM_W : 0);
	return entry;
}

const struct fmt fmt_amd = {
	.name = "amd",
	.viommu = VTDS_VIOMMU_AMD,
	.link = amd_link,
	.leaf = amd_leaf,
	.set_device = amd_set_device,
	.read_device = amd_read_device,
	.decode = amd_decode,
};
