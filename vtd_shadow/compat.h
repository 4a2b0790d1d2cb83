/* SPDX-License-Identifier: GPL-2.0 */
/* Differences between kernel versions, all of them, and the oldest supported. */
#ifndef VTDS_COMPAT_H
#define VTDS_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#error "vtd_shadow needs Linux 6.12 or newer"
#endif

#ifndef CONFIG_KVM_EXTERNAL_WRITE_TRACKING
/* It has no prompt: DRM_I915_GVT_KVMGT selects it. */
#error "vtd_shadow needs a kernel with CONFIG_KVM_EXTERNAL_WRITE_TRACKING"
#endif

/* 6.17: the VF token check became an operation of its own */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
#define VTDS_VFIO_OPS_TOKEN .match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define VTDS_VFIO_OPS_TOKEN
#endif

/* 6.19: so did VFIO_DEVICE_GET_REGION_INFO */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#define VTDS_VFIO_OPS_REGION .get_region_info_caps = vfio_pci_ioctl_get_region_info,
#else
#define VTDS_VFIO_OPS_REGION
#endif

#endif /* VTDS_COMPAT_H */
