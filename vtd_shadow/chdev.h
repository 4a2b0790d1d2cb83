/* SPDX-License-Identifier: GPL-2.0 */
/* /dev/vtd_shadow. */
#ifndef VTDS_CHDEV_H
#define VTDS_CHDEV_H

struct vtds_context;

int vtds_chdev_init(void);
void vtds_chdev_fini(void);
struct vtds_context *vtds_context_get_fd(int fd);

#endif /* VTDS_CHDEV_H */
