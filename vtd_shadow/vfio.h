/* SPDX-License-Identifier: GPL-2.0 */
/* The VFIO PCI driver. */
#ifndef VTDS_VFIO_H
#define VTDS_VFIO_H

int vtds_vfio_init(void);
void vtds_vfio_fini(void);

#endif /* VTDS_VFIO_H */
