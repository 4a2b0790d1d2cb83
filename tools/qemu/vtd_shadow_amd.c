/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtd_shadow: amd-iommu (AMD-Vi, v1 tables) with shadow=on
 *
 * Sections are those of "AMD I/O Virtualization Technology (IOMMU)
 * Specification", document 48882, revision 3.10.
 */

#include "qemu/osdep.h"
#include "hw/i386/vtd_shadow.h"
#include "amd_iommu.h"
#include "sysemu/dma.h"

/* In amd_iommu.c, where it is static without us */
void amdvi_generate_msi_interrupt(AMDVIState *s);

/* All that fits an entry: QEMU tells 40, and yet may have RAM above that. */
#define VTDS_AMD_GPA_BITS 52
/* Mode of a device-table entry: 1 to 6, as HATS of EXT_FEATURES tells */
#define VTDS_AMD_LEVELS 0x7e

/* §2.4.3 "INVALIDATE_IOMMU_PAGES", second quadword */
#define VTDS_AMD_INV_S 1
/* From 2^52 pages of 4 KiB on it is all */
#define VTDS_AMD_ORDER_ALL 52

/* §2.2.2.1 "Device Table Entry Format": second quadword */
#define VTDS_AMD_DTE1_SA (1ull << 34)

/* §2.5 "Event Log": bits of the first quadword */
#define VTDS_AMD_EVENT_CODE_SHIFT 60
#define VTDS_AMD_EVENT_DOMAIN_SHIFT 32
#define VTDS_AMD_EVENT_PR (1ull << 52)
#define VTDS_AMD_EVENT_RZ (1ull << 55)
#define VTDS_AMD_EVENT_MASTER_ABORT (1ull << 57)

enum {
    VTDS_AMD_ILLEGAL_DEV_TABLE_ENTRY = 1,
    VTDS_AMD_IO_PAGE_FAULT = 2,
    VTDS_AMD_DEV_TAB_HARDWARE_ERROR = 3,
    VTDS_AMD_PAGE_TAB_HARDWARE_ERROR = 4,
};

/* §3.4.16 "IOMMU Status Register": EventLogInt */
#define VTDS_AMD_STATUS_EVENT_INT 2

/* Events */

/*
 * Not by amd_iommu.c's own function: that takes the log for full at all times,
 * writes no tail register and never wraps.
 */
static void vtds_amd_log(AMDVIState *s, const uint64_t event[2])
{
    uint64_t raw[2] = { cpu_to_le64(event[0]), cpu_to_le64(event[1]) };
    uint64_t status = ldq_le_p(&s->mmior[AMDVI_MMIO_STATUS]);
    uint32_t bytes = s->evtlog_len * AMDVI_EVENT_LEN;
    uint32_t next;

    if (!s->evtlog_enabled || !bytes || (status & AMDVI_MMIO_STATUS_EVT_OVF)) {
        return;
    }
    next = (s->evtlog_tail + AMDVI_EVENT_LEN) % bytes;
    if (next == s->evtlog_head) {
        status |= AMDVI_MMIO_STATUS_EVT_OVF;
    } else {
        dma_memory_write(&address_space_memory,
                         s->evtlog + s->evtlog_tail % bytes, raw, sizeof(raw),
                         MEMTXATTRS_UNSPECIFIED);
        s->evtlog_tail = next;
        stq_le_p(&s->mmior[AMDVI_MMIO_EVENT_TAIL], next);
        status |= VTDS_AMD_STATUS_EVENT_INT;
    }
    stq_le_p(&s->mmior[AMDVI_MMIO_STATUS], status);
    if (s->evtlog_intr) {
        amdvi_generate_msi_interrupt(s);
    }
}

/* The second quadword of a device-table entry; 0 if there is none. */
static uint64_t vtds_amd_dte1(AMDVIState *s, uint16_t device_id)
{
    hwaddr gpa = s->devtab + device_id * AMDVI_DEVTAB_ENTRY_SIZE + 8;
    uint64_t dte1;

    if (device_id >= s->devtab_len ||
        dma_memory_read(&address_space_memory, gpa, &dte1, sizeof(dte1),
                        MEMTXATTRS_UNSPECIFIED)) {
        return 0;
    }
    return le64_to_cpu(dte1);
}

static uint64_t vtds_amd_event(AMDVIState *s, uint64_t code,
                               uint16_t device_id, bool with_domain)
{
    uint64_t domain_id = vtds_amd_dte1(s, device_id) & AMDVI_DEV_DOMID_ID_MASK;

    return code << VTDS_AMD_EVENT_CODE_SHIFT | device_id |
           (with_domain ? domain_id << VTDS_AMD_EVENT_DOMAIN_SHIFT : 0);
}

/*
 * AMD has events for what a table has wrong; none for what is wrong with the
 * host, or for a leaf that maps what is not RAM. The module sees the bad entry,
 * not the access: it is reported as a read (RW clear).
 */
static void vtds_amd_fault(X86IOMMUState *iommu, const struct vtds_event *event)
{
    AMDVIState *s = AMD_IOMMU_DEVICE(iommu);
    uint16_t id = event->requester_id;
    uint64_t log[2] = { 0, event->iova };

    switch (event->reason) {
    case VTDS_REASON_ROOT_ACCESS:
        log[0] = vtds_amd_event(s, VTDS_AMD_DEV_TAB_HARDWARE_ERROR, id, false) |
                 VTDS_AMD_EVENT_MASTER_ABORT;
        log[1] = event->gpa;
        break;
    case VTDS_REASON_CONTEXT_RESERVED:
        log[0] = vtds_amd_event(s, VTDS_AMD_ILLEGAL_DEV_TABLE_ENTRY, id,
                                false) | VTDS_AMD_EVENT_RZ;
        break;
    case VTDS_REASON_CONTEXT_INVALID:
        log[0] = vtds_amd_event(s, VTDS_AMD_ILLEGAL_DEV_TABLE_ENTRY, id, false);
        break;
    case VTDS_REASON_TABLE_ACCESS:
        log[0] = vtds_amd_event(s, VTDS_AMD_PAGE_TAB_HARDWARE_ERROR, id, true) |
                 VTDS_AMD_EVENT_MASTER_ABORT;
        log[1] = event->gpa;
        break;
    case VTDS_REASON_RESERVED_BITS:
        if (vtds_amd_dte1(s, id) & VTDS_AMD_DTE1_SA) {
            return;
        }
        log[0] = vtds_amd_event(s, VTDS_AMD_IO_PAGE_FAULT, id, true) |
                 VTDS_AMD_EVENT_PR | VTDS_AMD_EVENT_RZ;
        break;
    default:
        return;
    }
    vtds_amd_log(s, log);
}

/* Realize, reset */

bool vtds_amd_realize(AMDVIState *s, Error **errp)
{
    struct vtds_setup setup = {
        .viommu = VTDS_VIOMMU_AMD,
        .gpa_bits = VTDS_AMD_GPA_BITS,
        .levels = VTDS_AMD_LEVELS,
        .page_sizes = AMDVI_PAGE_SIZE,
    };

    return !s->iommu.shadow ||
           vtds_realize(&s->iommu, &setup, vtds_amd_fault, errp);
}

/*
 * Take back what amd_iommu.c promises but need not (NpCache), or does not do:
 * guest translation (v2 tables), peripheral page requests, and device TLBs
 * without device-iotlb=on.
 */
void vtds_amd_present(AMDVIState *s)
{
    uint32_t header = AMDVI_CAPAB_FLAG_NPCACHE;
    uint64_t features = ldq_le_p(&s->mmior[AMDVI_MMIO_EXT_FEATURES]);

    if (!s->iommu.shadow) {
        return;
    }
    if (!s->iommu.dt_supported) {
        header |= AMDVI_CAPAB_FLAG_IOTLBSUP;
    }
    pci_long_test_and_clear_mask(s->pci.dev.config + s->capab_offset, header);
    features &= ~(AMDVI_FEATURE_GT | AMDVI_FEATURE_PPR);
    stq_le_p(&s->mmior[AMDVI_MMIO_EXT_FEATURES], features);

    /* amd_iommu.c forgets to reset these. */
    s->evtlog_enabled = s->evtlog_intr = s->ga_enabled = false;
}

/* Device table and commands */

void vtds_amd_set_root(AMDVIState *s)
{
    if (s->iommu.vtds) {
        vtds_set_root(s->iommu.vtds, s->enabled, s->devtab,
                      s->enabled ? s->devtab_len * AMDVI_DEVTAB_ENTRY_SIZE : 0);
    }
}

static void vtds_amd_invalidate(AMDVIState *s,
                                const struct vtds_inv_entry *entry)
{
    if (s->iommu.vtds) {
        vtds_invalidate(s->iommu.vtds, entry);
    }
}

/* §2.4.2 "INVALIDATE_DEVTAB_ENTRY" */
void vtds_amd_inv_device(AMDVIState *s, uint16_t device_id)
{
    vtds_amd_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_DEVICE_ENTRY,
        .requester_id = device_id,
    });
    /* The entry points to the interrupt remapping table as well. */
    vtds_amd_inv_interrupts(s);
}

/*
 * §2.4.3: with S the lowest clear bit at or above bit 12 of the address is the
 * upper half bit of the size. PDE needs no care: whether directories are
 * included or not, the module has followed each change.
 */
void vtds_amd_inv_pages(AMDVIState *s, const uint64_t command[2])
{
    uint16_t domain_id = extract64(command[0], 32, 16);
    uint64_t page = extract64(command[1], 12, 52);
    unsigned order = command[1] & VTDS_AMD_INV_S ? cto64(page) + 1 : 0;

    if (order >= VTDS_AMD_ORDER_ALL) {
        vtds_amd_invalidate(s, &(struct vtds_inv_entry) {
            .kind = VTDS_INV_IOTLB_DOMAIN,
            .domain_id = domain_id,
        });
        return;
    }
    vtds_amd_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_IOTLB_PAGES,
        .domain_id = domain_id,
        .iova = page << AMDVI_PAGE_SHIFT,
        .order = order,
    });
}

/* §2.4.8 "INVALIDATE_IOMMU_ALL" */
void vtds_amd_inv_all(AMDVIState *s)
{
    vtds_amd_invalidate(s, &(struct vtds_inv_entry) {
        .kind = VTDS_INV_ALL,
    });
    vtds_amd_inv_interrupts(s);
}

/*
 * §2.4.5 "INVALIDATE_INTERRUPT_TABLE": KVM has routes for the interrupts of
 * assigned devices, made from remapping entries of the guest.
 */
void vtds_amd_inv_interrupts(AMDVIState *s)
{
    if (s->iommu.vtds) {
        vtds_invalidate_interrupts(s->iommu.vtds);
    }
}

/*
 * amd_iommu.c drops writes to the status register: events would never be
 * acknowledged. Bits that are set by hardware are cleared by writing 1.
 */
void vtds_amd_mmio_write(AMDVIState *s, hwaddr addr, uint64_t value)
{
    uint8_t *status = &s->mmior[AMDVI_MMIO_STATUS];
    uint64_t ones = value << 8 * (addr & 7);

    if (s->iommu.vtds && (addr & ~7ull) == AMDVI_MMIO_STATUS) {
        ones &= ldq_le_p(&s->w1cmask[AMDVI_MMIO_STATUS]);
        stq_le_p(status, ldq_le_p(status) & ~ones);
    }
}

void vtds_amd_flush(AMDVIState *s)
{
    if (s->iommu.vtds) {
        vtds_flush(s->iommu.vtds);
    }
}
