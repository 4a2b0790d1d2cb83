/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtd_shadow: the part that is the same for all x86 vIOMMUs: the context of the
 * kernel module, assigned devices, invalidation queue, events.
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include "exec/address-spaces.h"
#include "hw/boards.h"
#include "hw/i386/vtd_shadow.h"
#include "hw/vfio/vfio-common.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "sysemu/kvm.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "trace.h"

#define VTDS_DEVICE_NODE "/dev/vtd_shadow"
#define VTDS_PAGE_BYTES 4096
#define VTDS_MAX_REQUESTER_ID 0xffff
#define VTDS_INV_BATCH 256
#define VTDS_EVENT_BATCH 32
#define VTDS_MIN_TABLES (64 * KiB)
#define VTDS_MIN_MAPPINGS (16 * MiB)

typedef struct VtdsEndpoint {
    VFIODevice *vbasedev;
    PCIDevice *pdev;
    bool attached;
    uint16_t requester_id;          /* as attached */
    uint16_t next_id;               /* as it should be */
    QTAILQ_ENTRY(VtdsEndpoint) next;
} VtdsEndpoint;

struct VtdsContext {
    X86IOMMUState *iommu;
    VtdsFaultFn *fault;
    int fd;
    bool ids_may_have_changed;
    bool memory_changed;
    bool interrupts_changed;
    uint32_t warned;                /* by enum vtds_reason */
    unsigned inv_num;
    struct vtds_inv_entry inv[VTDS_INV_BATCH];
    QTAILQ_HEAD(, VtdsEndpoint) endpoints;
    MemoryListener listener;
    Notifier machine_done;
};

/* What warrants a look by the owner of the host; the rest is the guest's. */
static const char *const vtds_host_problem[VTDS_REASON_NR] = {
    [VTDS_REASON_PIN] = "cannot pin guest memory (is RLIMIT_MEMLOCK enough?)",
    [VTDS_REASON_LIMIT] = "the guest's tables exceed the limit on tables or "
                          "mappings",
    [VTDS_REASON_APERTURE] = "the guest maps addresses that the host IOMMU "
                             "cannot translate (try a smaller aw-bits)",
    [VTDS_REASON_GROUP_CONFLICT] = "devices of one host IOMMU group are "
                                   "translated differently",
    [VTDS_REASON_HOST] = "the host IOMMU refused",
    [VTDS_REASON_UNSUPPORTED] = "the guest uses a feature that is not shadowed",
};

static VtdsContext *vtds_get_default(void)
{
    X86IOMMUState *iommu = x86_iommu_get_default();

    return iommu ? iommu->vtds : NULL;
}

static int vtds_ioctl(int fd, unsigned long request, void *arg)
{
    int ret;

    do {
        ret = ioctl(fd, request, arg);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/*
 * The guest may not run on as if something had been unmapped, blocked or
 * translated that was not. None of these failures is the guest's doing.
 */
static void vtds_stop_machine(const char *what, int ret)
{
    error_report("vtd_shadow: %s failed: %s; stopping the guest", what,
                 strerror(-ret));
    vm_stop(RUN_STATE_INTERNAL_ERROR);
}

/* Assigned devices */

static int vtds_detach(VtdsEndpoint *ep)
{
    struct vtds_device_detach detach = { .size = sizeof(detach) };

    trace_vtds_detach(ep->vbasedev->name, ep->requester_id);
    ep->attached = false;
    return vtds_ioctl(ep->vbasedev->fd, VTDS_IOC_DEVICE_DETACH, &detach);
}

static int vtds_attach(VtdsContext *ctx, VtdsEndpoint *ep)
{
    struct vtds_device_attach attach = {
        .size = sizeof(attach),
        .context_fd = ctx->fd,
        .requester_id = ep->next_id,
    };
    int ret = vtds_ioctl(ep->vbasedev->fd, VTDS_IOC_DEVICE_ATTACH, &attach);

    trace_vtds_attach(ep->vbasedev->name, ep->next_id, ret);
    ep->requester_id = ep->next_id;
    ep->attached = !ret;
    return ret;
}

static bool vtds_id_taken(VtdsContext *ctx, uint16_t id, VtdsEndpoint *before)
{
    VtdsEndpoint *ep;

    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        if (ep == before) {
            break;
        }
        if (ep->next_id == id) {
            return true;
        }
    }
    return false;
}

/*
 * The requester id of a device behind a bridge is what the guest programs the
 * bridge to; until then (and behind a conventional bridge for good) devices
 * share one. All but the first of them are parked under ids that no device has.
 */
static void vtds_plan_ids(VtdsContext *ctx)
{
    VtdsEndpoint *ep;

    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        /* Off its bus: unplugged, fd not closed yet. */
        ep->next_id = qdev_get_parent_bus(DEVICE(ep->pdev)) ?
                      pci_requester_id(ep->pdev) : ep->requester_id;
    }
    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        uint16_t parked = VTDS_MAX_REQUESTER_ID;

        if (!vtds_id_taken(ctx, ep->next_id, ep)) {
            continue;
        }
        while (vtds_id_taken(ctx, parked, NULL)) {
            parked--;
        }
        ep->next_id = parked;
    }
}

/*
 * Attach each device under the requester id that it has now. All changed ones
 * are detached first: they may have swapped ids. Between the two a device is in
 * bypass, so the time for this is before translation is enabled; a guest that
 * renumbers buses later than that has to stop their devices anyway.
 *
 * Return: 0, or the error of the device in @failed
 */
static int vtds_update_ids(VtdsContext *ctx, VtdsEndpoint **failed)
{
    VtdsEndpoint *ep;
    int ret;

    ctx->ids_may_have_changed = false;
    vtds_plan_ids(ctx);
    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        if (ep->attached && ep->requester_id != ep->next_id) {
            ret = vtds_detach(ep);
            if (ret) {
                *failed = ep;
                return ret;
            }
        }
    }
    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        if (!ep->attached) {
            ret = vtds_attach(ctx, ep);
            if (ret) {
                *failed = ep;
                return ret;
            }
        }
    }
    return 0;
}

static void vtds_update_ids_or_stop(VtdsContext *ctx)
{
    VtdsEndpoint *failed;
    int ret = vtds_update_ids(ctx, &failed);

    if (ret) {
        g_autofree char *what = g_strdup_printf("attaching %s again",
                                                failed->vbasedev->name);

        vtds_stop_machine(what, ret);
    }
}

static void vtds_attach_error(Error **errp, VFIODevice *vbasedev, int ret)
{
    ERRP_GUARD();
    const char *name = vbasedev->name;

    switch (ret) {
    case -ENOTTY:
        error_setg(errp, "bind %s to the PCI driver vtd_shadow: the vIOMMU has "
                   "shadow=on", name);
        error_append_hint(errp,
            "  echo vtd_shadow > /sys/bus/pci/devices/%s/driver_override\n"
            "  echo %s > /sys/bus/pci/devices/%s/driver/unbind\n"
            "  echo %s > /sys/bus/pci/drivers_probe\n",
            name, name, name, name);
        break;
    case -ESRCH:
        error_setg(errp, "vtd_shadow does not know the VM of the device: was "
                   "its VFIO group added to KVM?");
        break;
    default:
        error_setg_errno(errp, -ret, "cannot attach to vtd_shadow");
    }
}

static bool vtds_behind(PCIDevice *pdev)
{
    return vtds_get_default() &&
           pci_device_iommu_address_space(pdev) != &address_space_memory;
}

AddressSpace *vtds_vfio_address_space(PCIDevice *pdev)
{
    return vtds_behind(pdev) ? &address_space_memory :
                               pci_device_iommu_address_space(pdev);
}

bool vtds_vfio_attach(VFIODevice *vbasedev, PCIDevice *pdev, Error **errp)
{
    VtdsContext *ctx = vtds_get_default();
    VtdsEndpoint *ep, *failed;
    int ret;

    if (!vtds_behind(pdev)) {
        return true;
    }
    ep = g_new0(VtdsEndpoint, 1);
    ep->vbasedev = vbasedev;
    ep->pdev = pdev;
    QTAILQ_INSERT_TAIL(&ctx->endpoints, ep, next);

    ret = vtds_update_ids(ctx, &failed);
    if (ret) {
        vtds_attach_error(errp, failed->vbasedev, ret);
        vtds_vfio_release(vbasedev);
    }
    return !ret;
}

static VtdsEndpoint *vtds_find(VtdsContext *ctx, const void *device)
{
    VtdsEndpoint *ep;

    QTAILQ_FOREACH(ep, &ctx->endpoints, next) {
        if (ep->vbasedev == device || ep->pdev == device) {
            return ep;
        }
    }
    return NULL;
}

void vtds_vfio_release(VFIODevice *vbasedev)
{
    VtdsContext *ctx = vtds_get_default();
    VtdsEndpoint *ep = ctx ? vtds_find(ctx, vbasedev) : NULL;

    if (ep) {
        QTAILQ_REMOVE(&ctx->endpoints, ep, next);
        g_free(ep);
    }
}

bool vtds_enabled(void)
{
    return vtds_get_default();
}

/* What the guest believes to be behind the vIOMMU has to be. */
static int vtds_check_child(Object *child, void *opaque)
{
    VtdsContext *ctx = opaque;

    if (object_dynamic_cast(child, "vfio-pci") &&
        vtds_behind(PCI_DEVICE(child)) && !vtds_find(ctx, PCI_DEVICE(child))) {
        error_report("%s must come after the vIOMMU on the command line, "
                     "because that has shadow=on",
                     object_get_canonical_path(child));
        exit(1);
    }
    return 0;
}

/* Events */

static void vtds_handle_event(VtdsContext *ctx, const struct vtds_event *event)
{
    const char *problem = NULL;

    trace_vtds_event(event->reason, event->requester_id, event->iova,
                     event->gpa, event->level, event->lost);
    if (event->reason < VTDS_REASON_NR) {
        problem = vtds_host_problem[event->reason];
    }
    if (problem && !(ctx->warned & (1u << event->reason))) {
        ctx->warned |= 1u << event->reason;
        warn_report("vtd_shadow: %s; first for device %02x:%02x.%x at I/O "
                    "address 0x%" PRIx64, problem,
                    PCI_BUS_NUM(event->requester_id),
                    PCI_SLOT(event->requester_id & 0xff),
                    PCI_FUNC(event->requester_id), (uint64_t)event->iova);
    }
    ctx->fault(ctx->iommu, event);
}

static void vtds_read_events(void *opaque)
{
    VtdsContext *ctx = opaque;
    struct vtds_event events[VTDS_EVENT_BATCH];
    ssize_t i, bytes = read(ctx->fd, events, sizeof(events));

    if (bytes < 0 && errno != EAGAIN && errno != EINTR) {
        warn_report("vtd_shadow: cannot read events: %s", strerror(errno));
        qemu_set_fd_handler(ctx->fd, NULL, NULL, NULL);
    }
    for (i = 0; i < bytes / (ssize_t)sizeof(events[0]); i++) {
        vtds_handle_event(ctx, &events[i]);
    }
}

/* Root pointer and invalidation */

void vtds_set_root(VtdsContext *ctx, bool enable, uint64_t root_gpa,
                   uint64_t root_bytes)
{
    struct vtds_set_root root = {
        .size = sizeof(root),
        .flags = enable ? VTDS_ROOT_ENABLE : 0,
        .root_gpa = enable ? root_gpa : 0,
        .root_bytes = root_bytes,
    };
    int ret;

    /* In this order: without translation a detach changes nothing for a DMA. */
    if (enable) {
        vtds_update_ids_or_stop(ctx);
    }
    ret = vtds_ioctl(ctx->fd, VTDS_IOC_SET_ROOT, &root);
    trace_vtds_set_root(enable, root_gpa, root_bytes, ret);
    if (ret) {
        vtds_stop_machine("setting the guest's root table", ret);
    }
    /* Faults of the new tables are there when the guest's write is done. */
    vtds_read_events(ctx);
}

static void vtds_invalidate_now(VtdsContext *ctx, struct vtds_inv_entry *entry,
                                unsigned num)
{
    struct vtds_invalidate inv = {
        .size = sizeof(inv),
        .entries_uptr = (uintptr_t)entry,
        .entry_len = sizeof(*entry),
        .entry_num = num,
    };
    int ret = vtds_ioctl(ctx->fd, VTDS_IOC_INVALIDATE, &inv);

    trace_vtds_invalidate(num, entry->kind, ret);
    if (ret) {
        vtds_stop_machine("an invalidation", ret);
    }
}

static bool vtds_inv_is_of_device(const struct vtds_inv_entry *entry)
{
    switch (entry->kind) {
    case VTDS_INV_CONTEXT_GLOBAL:
    case VTDS_INV_CONTEXT_DOMAIN:
    case VTDS_INV_CONTEXT_DEVICE:
    case VTDS_INV_DEVICE_ENTRY:
    case VTDS_INV_ALL:
        return true;
    default:
        return false;
    }
}

void vtds_invalidate(VtdsContext *ctx, const struct vtds_inv_entry *entry)
{
    /* A guest that renumbers buses has to tell the IOMMU like this. */
    if (vtds_inv_is_of_device(entry)) {
        ctx->ids_may_have_changed = true;
    }
    ctx->inv[ctx->inv_num++] = *entry;
    if (ctx->inv_num == VTDS_INV_BATCH) {
        vtds_flush(ctx);
    }
}

void vtds_invalidate_interrupts(VtdsContext *ctx)
{
    ctx->interrupts_changed = true;
}

void vtds_flush(VtdsContext *ctx)
{
    if (ctx->interrupts_changed) {
        ctx->interrupts_changed = false;
        x86_iommu_iec_notify_all(ctx->iommu, true, 0, 0);
    }
    if (!ctx->inv_num) {
        return;
    }
    if (ctx->ids_may_have_changed) {
        vtds_update_ids_or_stop(ctx);
    }
    vtds_invalidate_now(ctx, ctx->inv, ctx->inv_num);
    ctx->inv_num = 0;
}

/*
 * Runs after the devices were reset (see vtds_machine_done_hook), so that none
 * uses the guest's old I/O addresses in the bypass domain.
 */
static void vtds_reset(void *opaque)
{
    VtdsContext *ctx = opaque;

    ctx->inv_num = 0;
    ctx->interrupts_changed = false;
    vtds_set_root(ctx, false, 0, 0);
}

/* Reset handlers run in the order of registration; qdev's own exists now. */
static void vtds_machine_done_hook(Notifier *notifier, void *unused)
{
    VtdsContext *ctx = container_of(notifier, VtdsContext, machine_done);

    object_child_foreach_recursive(object_get_root(), vtds_check_child, ctx);
    qemu_register_reset(vtds_reset, ctx);
}

/* Memory slots */

static void vtds_region_changed(MemoryListener *listener,
                                MemoryRegionSection *section)
{
    VtdsContext *ctx = container_of(listener, VtdsContext, listener);

    /* The BARs of assigned devices come and go, but are no RAM to the module. */
    if (memory_region_is_ram(section->mr) &&
        !memory_region_is_ram_device(section->mr)) {
        ctx->memory_changed = true;
    }
}

static void vtds_memory_commit(MemoryListener *listener)
{
    VtdsContext *ctx = container_of(listener, VtdsContext, listener);
    struct vtds_inv_entry entry = { .kind = VTDS_INV_MEMORY };

    if (ctx->memory_changed && !QTAILQ_EMPTY(&ctx->endpoints)) {
        vtds_invalidate_now(ctx, &entry, 1);
    }
    ctx->memory_changed = false;
}

static const MemoryListener vtds_memory_listener = {
    .name = "vtd_shadow",
    /* Later than KVM's (10): the slots are in place by then. */
    .priority = 20,
    .region_add = vtds_region_changed,
    .region_del = vtds_region_changed,
    .commit = vtds_memory_commit,
};

/* qom-get PATH shadow-stats */
static char *vtds_get_stats(Object *obj, Error **errp)
{
    struct vtds_stats st = { .size = sizeof(st) };
    GString *text;
    int i, ret;

    ret = vtds_ioctl(X86_IOMMU_DEVICE(obj)->vtds->fd, VTDS_IOC_STATS, &st);
    if (ret) {
        error_setg_errno(errp, -ret, "VTDS_IOC_STATS");
        return NULL;
    }
    text = g_string_new(NULL);
#define VTDS_STAT(field) \
    g_string_append_printf(text, #field "=%" PRIu64 " ", (uint64_t)st.field)
    VTDS_STAT(writes);
    VTDS_STAT(writes_structural);
    VTDS_STAT(maps);
    VTDS_STAT(unmaps);
    VTDS_STAT(remaps);
    VTDS_STAT(host_flushes);
    VTDS_STAT(invalidations);
    VTDS_STAT(links);
    VTDS_STAT(unlinks);
    VTDS_STAT(switches);
    VTDS_STAT(events);
    VTDS_STAT(events_lost);
    VTDS_STAT(endpoints);
    VTDS_STAT(domains);
    VTDS_STAT(tables);
    VTDS_STAT(tracked_pages);
    VTDS_STAT(mappings);
    VTDS_STAT(queued);
    VTDS_STAT(pinned_pages);
#undef VTDS_STAT
    g_string_append(text, "rejects=");
    for (i = 0; i < VTDS_REASON_NR; i++) {
        g_string_append_printf(text, i ? ",%" PRIu64 : "%" PRIu64,
                               (uint64_t)st.rejects[i]);
    }
    return g_string_free(text, false);
}

/* Realize */

static int vtds_open(Error **errp)
{
    ERRP_GUARD();
    int fd = qemu_open(VTDS_DEVICE_NODE, O_RDWR | O_NONBLOCK, errp);

    if (fd < 0) {
        error_prepend(errp, "shadow=on: ");
        error_append_hint(errp, "Load the kernel module (modprobe vtd_shadow) "
                          "and let QEMU's user open its device.\n");
    }
    return fd;
}

static bool vtds_query(int fd, uint32_t viommu, struct vtds_query *query,
                       Error **errp)
{
    int ret;

    *query = (struct vtds_query) { .size = sizeof(*query) };
    ret = vtds_ioctl(fd, VTDS_IOC_QUERY, query);
    if (ret) {
        error_setg_errno(errp, -ret, "shadow=on: cannot query "
                         VTDS_DEVICE_NODE);
        return false;
    }
    if (query->version != VTDS_UAPI_VERSION) {
        error_setg(errp, "shadow=on: the kernel module vtd_shadow speaks "
                   "version %u, this QEMU speaks %u", query->version,
                   VTDS_UAPI_VERSION);
        return false;
    }
    if (!(query->viommus & (1ull << viommu))) {
        error_setg(errp, "shadow=on: the kernel module vtd_shadow does not "
                   "support this kind of vIOMMU");
        return false;
    }
    return true;
}

/*
 * Room for all RAM to be mapped by 16 guest domains; tables are much fewer
 * unless mappings are scattered. All RAM is pinned by VFIO for the bypass
 * domain, so the pages may as well stay pinned by the module.
 */
static void vtds_set_limits(struct vtds_setup *setup,
                            const struct vtds_query *query)
{
    uint64_t pages = MACHINE(qdev_get_machine())->maxram_size / VTDS_PAGE_BYTES;

    setup->max_mappings = MIN(MAX(16 * pages, VTDS_MIN_MAPPINGS),
                              query->max_mappings);
    setup->max_tables = MIN(MAX(pages / 8, VTDS_MIN_TABLES),
                            query->max_tables);
    setup->pin_cache = MIN(pages, query->max_mappings);
}

bool vtds_realize(X86IOMMUState *iommu, struct vtds_setup *setup,
                  VtdsFaultFn *fault, Error **errp)
{
    struct vtds_query query;
    VtdsContext *ctx;
    int fd, ret;

    if (!kvm_enabled()) {
        error_setg(errp, "shadow=on needs accel=kvm");
        return false;
    }
    fd = vtds_open(errp);
    if (fd < 0) {
        return false;
    }
    if (!vtds_query(fd, setup->viommu, &query, errp)) {
        goto close;
    }
    setup->size = sizeof(*setup);
    vtds_set_limits(setup, &query);
    ret = vtds_ioctl(fd, VTDS_IOC_SETUP, setup);
    if (ret) {
        error_setg_errno(errp, -ret, "shadow=on: cannot set up "
                         VTDS_DEVICE_NODE);
        goto close;
    }

    ctx = g_new0(VtdsContext, 1);
    ctx->iommu = iommu;
    ctx->fault = fault;
    ctx->fd = fd;
    QTAILQ_INIT(&ctx->endpoints);
    ctx->listener = vtds_memory_listener;
    memory_listener_register(&ctx->listener, &address_space_memory);
    ctx->machine_done.notify = vtds_machine_done_hook;
    qemu_add_machine_init_done_notifier(&ctx->machine_done);
    qemu_set_fd_handler(fd, vtds_read_events, NULL, ctx);
    object_property_add_str(OBJECT(iommu), "shadow-stats", vtds_get_stats,
                            NULL);
    iommu->vtds = ctx;
    return true;

close:
    close(fd);
    return false;
}
