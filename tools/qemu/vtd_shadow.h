/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtd_shadow: x86 vIOMMUs whose tables a kernel module mirrors into the host
 *
 * With shadow=on of intel-iommu or amd-iommu the module vtd_shadow watches the
 * guest's translation tables and keeps the host IOMMU domains of assigned
 * devices equal to them. QEMU passes on what the module cannot see: the root
 * pointer, enable, invalidations. It never walks a paging table for an assigned
 * device.
 *
 * All functions are called with the BQL held.
 */
#ifndef HW_I386_VTD_SHADOW_H
#define HW_I386_VTD_SHADOW_H

#include <linux/vtd_shadow.h>
#include "exec/memory.h"
#include "hw/i386/x86-iommu.h"
#include "hw/pci/pci.h"

struct AMDVIState;
struct IntelIOMMUState;
struct VFIODevice;

/*
 * One context of the module, one vIOMMU: X86IOMMUState.vtds; NULL with
 * shadow=off.
 */
typedef struct VtdsContext VtdsContext;

/* Record @event, if the vIOMMU has a fault for it, where the guest looks. */
typedef void VtdsFaultFn(X86IOMMUState *iommu, const struct vtds_event *event);

/*
 * vtds_realize: open a context for @iommu
 * @setup: what the vIOMMU promises to the guest; limits are filled in here
 *
 * Sets @iommu->vtds. Registers what lives as long as the machine: reset, memory
 * listener, event handler.
 */
bool vtds_realize(X86IOMMUState *iommu, struct vtds_setup *setup,
                  VtdsFaultFn *fault, Error **errp);

/* The guest set its root pointer or enable bit (VTDS_IOC_SET_ROOT). */
void vtds_set_root(VtdsContext *ctx, bool enable, uint64_t root_gpa,
                   uint64_t root_bytes);

/*
 * vtds_invalidate collects requests, vtds_flush carries them out. The guest
 * must not learn that an invalidation is complete before vtds_flush returned.
 * vtds_invalidate_interrupts: all remapped interrupts, likewise.
 */
void vtds_invalidate(VtdsContext *ctx, const struct vtds_inv_entry *entry);
void vtds_invalidate_interrupts(VtdsContext *ctx);
void vtds_flush(VtdsContext *ctx);

/* Does the machine have a vIOMMU with shadow=on? */
bool vtds_enabled(void);

/* For hw/vfio/pci.c; all do nothing special without a shadow=on vIOMMU. */

/*
 * The address space that VFIO maps for @pdev. Behind a shadow=on vIOMMU it is
 * system memory, as without any vIOMMU: what the guest reaches in pass-through.
 */
AddressSpace *vtds_vfio_address_space(PCIDevice *pdev);
/* Attach the device, whose fd was just opened, to the context. */
bool vtds_vfio_attach(struct VFIODevice *vbasedev, PCIDevice *pdev,
                      Error **errp);
/* Forget the device, whose fd is about to be closed; that detaches it. */
void vtds_vfio_release(struct VFIODevice *vbasedev);

/* For hw/i386/intel_iommu.c; all do nothing with shadow=off. */
bool vtds_intel_realize(struct IntelIOMMUState *s, Error **errp);
void vtds_intel_set_root(struct IntelIOMMUState *s);
void vtds_intel_inv_context(struct IntelIOMMUState *s);
void vtds_intel_inv_context_device(struct IntelIOMMUState *s, uint16_t sid,
                                   uint16_t function_mask);
void vtds_intel_inv_iotlb(struct IntelIOMMUState *s);
void vtds_intel_inv_iotlb_domain(struct IntelIOMMUState *s, uint16_t domain_id);
void vtds_intel_inv_iotlb_pages(struct IntelIOMMUState *s, uint16_t domain_id,
                                uint64_t iova, uint8_t order);
void vtds_intel_flush(struct IntelIOMMUState *s);

/* For hw/i386/amd_iommu.c; all do nothing with shadow=off. */
bool vtds_amd_realize(struct AMDVIState *s, Error **errp);
/* Correct what the guest is promised, after a reset. */
void vtds_amd_present(struct AMDVIState *s);
void vtds_amd_set_root(struct AMDVIState *s);
void vtds_amd_inv_device(struct AMDVIState *s, uint16_t device_id);
void vtds_amd_inv_pages(struct AMDVIState *s, const uint64_t command[2]);
void vtds_amd_inv_all(struct AMDVIState *s);
void vtds_amd_inv_interrupts(struct AMDVIState *s);
void vtds_amd_flush(struct AMDVIState *s);
void vtds_amd_mmio_write(struct AMDVIState *s, hwaddr addr, uint64_t value);

#endif
