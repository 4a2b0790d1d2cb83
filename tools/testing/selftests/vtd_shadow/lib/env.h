/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The environment of a test: a VM, a container, the devices, one context of the
 * module with the devices attached to it, and guest tables written by the vCPU.
 *
 * Guest table formats differ in entries only. Tests are written against struct
 * fmt and get it, with the number of levels, from their fixture's variant.
 */
#ifndef VTDS_TEST_ENV_H
#define VTDS_TEST_ENV_H

#include <linux/vtd_shadow.h>

#include "dev.h"

#define SIZE_4K		0x1000ull
#define SIZE_2M		0x200000ull
#define SIZE_1G		0x40000000ull

#define PERM_NONE	0u
#define PERM_R		VTDS_PERM_READ
#define PERM_W		VTDS_PERM_WRITE
#define PERM_RW		(VTDS_PERM_READ | VTDS_PERM_WRITE)

struct env;

/* A guest domain: what a device's entry can point to. */
struct dom {
	u64 top_gpa;
	u32 levels;
	u32 id;
};

enum dev_entry { DEV_BLOCKED, DEV_TRANSLATED, DEV_PASS_THROUGH };

/* What the tables say, by the format's rules alone. */
struct walk {
	u32 state;		/* enum vtds_state */
	u64 gpa;
	u64 leaf_bytes;
	u32 perm;
};

enum entry_kind { ENTRY_NONE, ENTRY_LINK, ENTRY_LEAF, ENTRY_REFUSED };

struct entry {
	enum entry_kind kind;
	u64 gpa;
	u64 leaf_bytes;
	u32 perm;
	u32 next_level;		/* of a link */
};

/**
 * struct fmt - a guest table format
 * @link: entry of a table of @level that points to a table of the level below
 * @leaf: entry of a table of @level that maps a page
 * @set_device: has the vCPU write the entries of a device, and tells the
 *	module where the architecture requires that of the guest
 * @read_device: what those entries say now
 * @decode: what a paging entry of a table of @level says, which is the one for
 *	@iova; shares nothing with the module
 */
struct fmt {
	const char *name;
	u32 viommu;
	u64 (*link)(u64 gpa, u32 level, u32 perm);
	u64 (*leaf)(u64 gpa, u32 level, u32 perm);
	void (*set_device)(struct env *e, u32 dev, enum dev_entry kind, const struct dom *dom);
	u32 (*read_device)(struct env *e, u32 rid, struct dom *dom);
	struct entry (*decode)(struct env *e, u64 value, u32 level, u64 iova);
};

extern const struct fmt fmt_vtd, fmt_amd;

/* Zero in a field means the default. */
struct env_options {
	const struct fmt *fmt;
	u32 levels;		/* of the domains that dom_alloc() makes */
	u32 nr_vcpus;
	u32 nr_devs;		/* at most; default: all there are */
	u32 gpa_bits;
	u64 page_sizes;
	u64 max_tables;
	u64 max_mappings;
	u64 pin_cache;
	u32 queue_max;
	u32 unmap_delay_ms;	/* default here: the longest, so that tests decide */
	bool not_attached;
};

struct env {
	struct vm vm;
	struct container container;
	struct dev dev[MAX_DEVICES];
	u32 rid[MAX_DEVICES];
	u32 nr_devs;
	int ctx;		/* of /dev/vtd_shadow, non-blocking */
	const struct fmt *fmt;
	struct vtds_setup setup;
	u32 levels;
	u64 root_gpa;
	u64 root_bytes;
	u64 last_iova;		/* of the host */
};

/* Whether the module can set up this kind of vIOMMU. */
bool fmt_is_offered(const struct fmt *fmt);

/* Zeroed structure for an ioctl, with its size filled in. */
#define VTDS_ARG(type, ...)	((struct type) { .size = sizeof(struct type), ##__VA_ARGS__ })

void env_open(struct env *e, const struct env_options *o);
void env_close(struct env *e);

/* Ioctls that must succeed; they end the program otherwise. */
void env_attach(struct env *e, u32 dev);
void env_detach(struct env *e, u32 dev);
void env_set_root(struct env *e, bool enable);
void env_inv(struct env *e, u32 kind);
void env_inv_device(struct env *e, u32 dev);
void env_inv_pages(struct env *e, const struct dom *dom, u64 iova, u32 order);
struct vtds_stats env_stats(struct env *e);
struct vtds_translate env_translate(struct env *e, u32 dev, u64 iova);

/* Flushes what was removed from domains, as a guest does. */
void env_flush(struct env *e);

/* Guest domains and tables, all written by vCPU 0. */
struct dom dom_alloc(struct env *e, u32 id);
void dom_set(struct env *e, u32 dev, const struct dom *dom);
u64 dom_entry(struct env *e, const struct dom *dom, u64 iova, u32 level);
void dom_map(struct env *e, const struct dom *dom, u64 iova, u64 gpa, u32 level, u32 perm);
void dom_unmap(struct env *e, const struct dom *dom, u64 iova, u32 level);

/* Index of @iova in a table of @level, and the bytes that one entry there covers. */
u32 table_index(u64 iova, u32 level);
u64 level_bytes(u32 level);

/* Brute-force walk of guest memory, from the root; nothing beyond what the host can. */
struct walk env_walk(struct env *e, u32 dev, u64 iova);

#endif
