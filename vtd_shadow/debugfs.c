// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/vtd_shadow/<pid>-<n>/, a directory for each context:
 *
 *   stats	the counters of VTDS_IOC_STATS, a line each: name, value
 *   endpoints	the attached devices and where the guest sends them
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#include "context.h"
#include "debugfs.h"

static struct dentry *vtds_debugfs_root;
static atomic_t vtds_debugfs_number;

static const char *const reason_names[VTDS_REASON_NR] = {
	[VTDS_REASON_ROOT_ACCESS] = "root_access",
	[VTDS_REASON_ROOT_RESERVED] = "root_reserved",
	[VTDS_REASON_CONTEXT_ACCESS] = "context_access",
	[VTDS_REASON_CONTEXT_RESERVED] = "context_reserved",
	[VTDS_REASON_CONTEXT_INVALID] = "context_invalid",
	[VTDS_REASON_TABLE_ACCESS] = "table_access",
	[VTDS_REASON_RESERVED_BITS] = "reserved_bits",
	[VTDS_REASON_NOT_RAM] = "not_ram",
	[VTDS_REASON_READ_ONLY] = "read_only",
	[VTDS_REASON_PIN] = "pin",
	[VTDS_REASON_LIMIT] = "limit",
	[VTDS_REASON_RESERVED_REGION] = "reserved_region",
	[VTDS_REASON_APERTURE] = "aperture",
	[VTDS_REASON_GROUP_CONFLICT] = "group_conflict",
	[VTDS_REASON_HOST] = "host",
	[VTDS_REASON_UNSUPPORTED] = "unsupported",
};

static const char *const state_names[] = {
	[VTDS_STATE_BYPASS] = "bypass",
	[VTDS_STATE_BLOCKED] = "blocked",
	[VTDS_STATE_SHADOW] = "shadow",
};

#define STAT(_name)	{ #_name, offsetof(struct vtds_stats, _name) }

static const struct {
	const char *name;
	size_t offset;
} stat_names[] = {
	STAT(writes), STAT(writes_structural), STAT(maps), STAT(unmaps), STAT(remaps),
	STAT(host_flushes), STAT(invalidations), STAT(links), STAT(unlinks),
	STAT(switches), STAT(gatings), STAT(events), STAT(events_lost),
	STAT(endpoints), STAT(domains), STAT(tables), STAT(tracked_pages),
	STAT(mappings), STAT(queued), STAT(pinned_pages),
};

static int stats_show(struct seq_file *seq, void *unused)
{
	struct vtds_stats stats = {};
	unsigned int i;
	int err;

	err = vtds_context_stats(seq->private, &stats);
	if (err)
		return err;
	for (i = 0; i < ARRAY_SIZE(stat_names); i++)
		seq_printf(seq, "%s %llu\n", stat_names[i].name,
			   *(const u64 *)((const char *)&stats + stat_names[i].offset));
	for (i = 1; i < VTDS_REASON_NR; i++)
		seq_printf(seq, "reject_%s %llu\n", reason_names[i], stats.rejects[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int endpoints_show(struct seq_file *seq, void *unused)
{
	struct vtds_context *context = seq->private;
	struct vtds_endpoint *endpoint;

	if (down_read_killable(&context->engine.lock))
		return -EINTR;
	list_for_each_entry(endpoint, &context->endpoints, link) {
		struct vtds_group *group = endpoint->group;

		if (READ_ONCE(endpoint->closed))
			continue;
		seq_printf(seq, "rid=%02x:%02x.%x device=%s group=%d state=%s",
			   endpoint->requester_id >> 8, endpoint->requester_id >> 3 & 0x1f,
			   endpoint->requester_id & 7, dev_name(endpoint->dev),
			   iommu_group_id(group->iommu_group), state_names[group->state]);
		if (group->state == VTDS_STATE_SHADOW)
			seq_printf(seq, " domain=%u root=%#llx levels=%u",
				   endpoint->target.domain_id,
				   endpoint->target.root_gfn << VTDS_TABLE_SHIFT,
				   endpoint->target.levels);
		if (endpoint->target.reason)
			seq_printf(seq, " reason=%s gpa=%#llx",
				   reason_names[endpoint->target.reason],
				   endpoint->target.gpa);
		seq_putc(seq, '\n');
	}
	up_read(&context->engine.lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(endpoints);

/** vtds_debugfs_init() - make our directory; debugfs never fails its users */
void vtds_debugfs_init(void)
{
	vtds_debugfs_root = debugfs_create_dir("vtd_shadow", NULL);
}

/** vtds_debugfs_fini() - remove our directory */
void vtds_debugfs_fini(void)
{
	debugfs_remove(vtds_debugfs_root);
}

/**
 * vtds_debugfs_add() - show a context
 * @context: new context of the current process
 */
void vtds_debugfs_add(struct vtds_context *context)
{
	char name[32];

	snprintf(name, sizeof(name), "%d-%d", task_tgid_nr(current),
		 atomic_inc_return(&vtds_debugfs_number));
	context->debugfs = debugfs_create_dir(name, vtds_debugfs_root);
	debugfs_create_file("stats", 0400, context->debugfs, context, &stats_fops);
	debugfs_create_file("endpoints", 0400, context->debugfs, context, &endpoints_fops);
}

/**
 * vtds_debugfs_remove() - show it no more; waits for readers
 * @context: context, with none of its locks held
 */
void vtds_debugfs_remove(struct vtds_context *context)
{
	debugfs_remove(context->debugfs);
}
