/* SPDX-License-Identifier: GPL-2.0 */
/* /sys/kernel/debug/vtd_shadow: what each context does. */
#ifndef VTDS_DEBUGFS_H
#define VTDS_DEBUGFS_H

struct vtds_context;

void vtds_debugfs_init(void);
void vtds_debugfs_fini(void);
void vtds_debugfs_add(struct vtds_context *context);
void vtds_debugfs_remove(struct vtds_context *context);

#endif /* VTDS_DEBUGFS_H */
