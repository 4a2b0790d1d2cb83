/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtd_shadow: intel-iommu (VT-d, legacy mode) with shadow=on
 */

#include "qemu/osdep.h"
#include "hw/i386/vtd_shadow.h"
#include "hw/i386/intel_iommu.h"
#include "intel_iommu_internal.h"
#include "qapi/error.h"
#include "sysemu/dma.h"

/* In intel_iommu.c, where it is static without us */
void vtd_report_fault(IntelIOMMUState *s, int err, bool is_fpd_set,
                      uint16_t source_id, hwaddr addr, bool is_write,
                      bool is_pasid, uint32_t pasid);

/*
 * VT-d has fault reasons for what a table has wrong; it has none for what is
 * wrong with the host, or for a leaf that maps what is not RAM.
 */
static VTDFaultReason vtds_intel_fault_reason(const struct vtds_event *event)
{
    switch (event->reason) {
    case VTDS_REASON_ROOT_ACCESS:
        return VTD_FR_ROOT_TABLE_INV;
    case VTDS_REASON_ROOT_RESERVED:
        return VTD_FR_ROOT_ENTRY_RSVD;
    case VTDS_REASON_CONTEXT_ACCESS:
        return VTD_FR_CONTEXT_TABLE_INV;
    case VTDS_REASON_CONTEXT_RESERVED:
        return VTD_FR_CONTEXT_ENTRY_RSVD;
    case VTDS_REASON_CONTEXT_INVALID:
        return VTD_FR_CONTEXT_ENTRY_INV;
    case VTDS_REASON_TABLE_ACCESS:
        /* Level 0: the pointer was that of a context entry. */
        return event->level ? VTD_FR_PAGING_ENTRY_INV :
                              VTD_FR_CONTEXT_ENTRY_INV;
    case VTDS_REASON_RESERVED_BITS:
        return VTD_FR_PAGING_ENTRY_RSVD;
    default:
        return VTD_FR_RESERVED;
    }
}

static bool vtds_intel_read_entry(hwaddr gpa, uint64_t *lo)
{
    if (dma_memory_read(&address_space_memory, gpa, lo, sizeof(*lo),
                        MEMTXATTRS_UNSPECIFIED)) {
        return false;
    }
    *lo = le64_to_cpu(*lo);
    return true;
}

/* Does the context entry of @sid ask for silence (FPD)? */
static bool vtds_intel_fault_disabled(IntelIOMMUState *s, uint16_t sid)
{
    uint64_t re, ce;
    hwaddr gpa = s->root + VTD_SID_TO_BUS(sid) * sizeof(VTDRootEntry);

    if (!vtds_intel_read_entry(gpa, &re) || !(re & VTD_ROOT_ENTRY_P)) {
        return false;
    }
    gpa = (re & VTD_ROOT_ENTRY_CTP) +
          VTD_SID_TO_DEVFN(sid) * VTD_CTX_ENTRY_LEGACY_SIZE;
    return vtds_intel_read_entry(gpa, &ce) && (ce & VTD_CONTEXT_ENTRY_FPD);
}

/* The module sees the bad entry, not the access: it is reported as a read. */
static void vtds_intel_fault(X86IOMMUState *iommu,
                             const struct vtds_event *event)
{
    IntelIOMMUState *s = INTEL_IOMMU_DEVICE(iommu);
    VTDFaultReason reason = vtds_intel_fault_reason(event);
    bool fpd;

    if (reason == VTD_FR_RESERVED || !s->dmar_enabled) {
        return;
    }
    fpd = vtds_intel_fault_disabled(s, event->requester_id);
    qemu_mutex_lock(&s->iommu_lock);
    vtd_report_fault(s, reason, fpd, event->requester_id, event->iova, false,
                     false, 0);
    qemu_mutex_unlock(&s->iommu_lock);
}

static bool vtds_intel_check(IntelIOMMUState *s, Error **errp)
{
    if (s->scalable_mode) {
        error_setg(errp, "shadow=on does not work with x-scalable-mode=on");
        return false;
    }
    if (s->snoop_control) {
        error_setg(errp, "shadow=on does not work with snoop-control=on");
        return false;
    }
    if (!s->dma_translation) {
        error_setg(errp, "shadow=on does not work with dma-translation=off");
        return false;
    }
    return true;
}

bool vtds_intel_realize(IntelIOMMUState *s, Error **errp)
{
    X86IOMMUState *iommu = X86_IOMMU_DEVICE(s);
    struct vtds_setup setup = {
        .viommu = VTDS_VIOMMU_VTD,
        .features = (s->ecap & VTD_ECAP_PT ? VTDS_FEATURE_PASS_THROUGH : 0) |
                    (s->ecap & VTD_ECAP_DT ? VTDS_FEATURE_DEVICE_TLB : 0),
        .gpa_bits = s->aw_bits,
        /* SAGAW bit n: tables of n + 2 levels */
        .levels = ((s->cap & VTD_CAP_SAGAW_MASK) >> VTD_CAP_SAGAW_SHIFT) << 2,
        .page_sizes = VTD_PAGE_SIZE,
    };

    if (!iommu->shadow) {
        return true;
    }
    if (s->cap & VTD_CAP_SLLPS) {
        /* QEMU promises both sizes or none. */
        setup.page_sizes |= 1ull << VTD_PAGE_SHIFT_2M |
                            1ull << VTD_PAGE_SHIFT_1G;
    }
    return vtds_intel_check(s, errp) &&
           vtds_realize(iommu, &setup, vtds_intel_fault, errp);
}

void vtds_intel_set_root(IntelIOMMUState *s)
{
    if (s->x86_iommu.vtds) {
        vtds_set_root(s->x86_iommu.vtds, s->dmar_enabled, s->root, 0);
    }
}

static void vtds_intel_invalidate(IntelIOMMUState *s,
                                  const struct vtds_inv_entry *entry)
{
    if (s->x86_iommu.vtds) {
        vtds_invalidate(s->x86_iommu.vtds, entry);
    }
}

/* Also for one domain: intel_iommu.c does, and reports, a global one then. */
void vtds_intel_inv_context(IntelIOMMUState *s)
{
    vtds_intel_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_CONTEXT_GLOBAL,
    });
}

void vtds_intel_inv_context_device(IntelIOMMUState *s, uint16_t sid,
                                   uint16_t function_mask)
{
    vtds_intel_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_CONTEXT_DEVICE,
        .requester_id = sid,
        .function_mask = function_mask & 3,
    });
}

void vtds_intel_inv_iotlb(IntelIOMMUState *s)
{
    vtds_intel_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_IOTLB_GLOBAL,
    });
}

void vtds_intel_inv_iotlb_domain(IntelIOMMUState *s, uint16_t domain_id)
{
    vtds_intel_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_IOTLB_DOMAIN,
        .domain_id = domain_id,
    });
}

void vtds_intel_inv_iotlb_pages(IntelIOMMUState *s, uint16_t domain_id,
                                uint64_t iova, uint8_t order)
{
    vtds_intel_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_IOTLB_PAGES,
        .domain_id = domain_id,
        .iova = iova,
        .order = order,
    });
}

void vtds_intel_flush(IntelIOMMUState *s)
{
    if (s->x86_iommu.vtds) {
        vtds_flush(s->x86_iommu.vtds);
    }
}
