// SPDX-License-Identifier: GPL-2.0-or-later
//
// The places in QEMU 7.2 that call hw/i386/vtd_shadow*.c, as a Coccinelle
// semantic patch. tools/qemu/apply runs it and checks that each "+" line here
// shows up exactly once in the result, so: one rule per place, lines that
// spatch has no reason to break. README.md tells what each hook is for.

// ------------------------------------------- all x86 vIOMMUs: the property

@@
@@
struct X86IOMMUState {
...
+bool shadow;
+struct VtdsContext *vtds;
};

@@
expression state;
@@
Property x86_iommu_properties[] = {
...,
DEFINE_PROP_BOOL("pt", state, pt_supported, true),
+DEFINE_PROP_BOOL("shadow", state, shadow, false),
...
};

// ------------------------------------------------------------- intel-iommu

@@
@@
#include "intel_iommu_internal.h"
+#include "hw/i386/vtd_shadow.h"

@@
@@
vtd_realize(...)
{
...
vtd_init(s);
+if (!vtds_intel_realize(s, errp)) {
+return;
+}
...
}

@@
@@
vtd_machine_done_notify_one(...)
{
+if (vtds_enabled()) {
+return 0;
+}
...
}

// Root pointer and translation enable

@@
@@
vtd_handle_gcmd_srtp(...)
{
...
vtd_address_space_refresh_all(s);
+vtds_intel_set_root(s);
}

@@
@@
vtd_handle_gcmd_te(...)
{
...
vtd_address_space_refresh_all(s);
+vtds_intel_set_root(s);
}

@@
@@
vtd_post_load(...)
{
...
vtd_switch_address_space_all(iommu);
+vtds_intel_set_root(iommu);
...
}

// Invalidations, from the registers and from the queue: collected here ...

@@
@@
vtd_context_global_invalidate(...)
{
+vtds_intel_inv_context(s);
...
}

@@
@@
vtd_context_device_invalidate(...)
{
...
trace_vtd_inv_desc_cc_devices(...);
+vtds_intel_inv_context_device(s, source_id, func_mask);
...
}

@@
@@
vtd_iotlb_global_invalidate(...)
{
+vtds_intel_inv_iotlb(s);
...
}

@@
@@
vtd_iotlb_domain_invalidate(...)
{
...
trace_vtd_inv_desc_iotlb_domain(...);
+vtds_intel_inv_iotlb_domain(s, domain_id);
...
}

@@
@@
vtd_iotlb_page_invalidate(...)
{
...
trace_vtd_inv_desc_iotlb_pages(...);
+vtds_intel_inv_iotlb_pages(s, domain_id, addr, am);
...
}

// ... and carried out before the guest can learn that they are complete

@@
@@
vtd_process_wait_desc(...)
{
+vtds_intel_flush(s);
...
}

@@
@@
vtd_handle_iqt_write(...)
{
<...
vtd_fetch_inv_desc(s);
+vtds_intel_flush(s);
...>
}

@@
@@
vtd_handle_gcmd_qie(...)
{
<...
vtd_fetch_inv_desc(s);
+vtds_intel_flush(s);
...>
}

@@
@@
vtd_handle_ccmd_write(...)
{
<...
ret = vtd_context_cache_invalidate(...);
+vtds_intel_flush(s);
...>
}

@@
@@
vtd_handle_iotlb_write(...)
{
<...
ret = vtd_iotlb_flush(...);
+vtds_intel_flush(s);
...>
}

// Faults

@@
@@
-static void
+void
vtd_report_fault(...) { ... }

// --------------------------------------------------------------- amd-iommu

@@
@@
#include "amd_iommu.h"
+#include "hw/i386/vtd_shadow.h"

@@
@@
amdvi_sysbus_realize(...)
{
...
+if (!vtds_amd_realize(s, errp)) {
+return;
+}
s->iotlb = g_hash_table_new_full(...);
...
}

// What the guest is promised, at each reset

@@
expression range;
@@
amdvi_init(...)
{
...
pci_set_long(s->pci.dev.config + s->capab_offset + AMDVI_CAPAB_RANGE, range);
+vtds_amd_present(s);
...
}

// Device table and enable

@@
@@
amdvi_handle_control_write(...)
{
...
+vtds_amd_set_root(s);
amdvi_cmdbuf_run(s);
}

@@
expression entries;
@@
amdvi_handle_devtab_write(...)
{
...
s->devtab_len = entries;
+vtds_amd_set_root(s);
}

// Commands: collected here ...

@@
@@
amdvi_inval_devtab_entry(...)
{
...
trace_amdvi_devtab_inval(...);
+vtds_amd_inv_device(s, devid);
}

@@
@@
amdvi_inval_pages(...)
{
...
trace_amdvi_pages_inval(domid);
+vtds_amd_inv_pages(s, cmd);
}

@@
@@
amdvi_inval_all(...)
{
...
trace_amdvi_all_inval();
+vtds_amd_inv_all(s);
}

@@
@@
amdvi_inval_inttable(...)
{
...
trace_amdvi_intr_inval();
+vtds_amd_inv_interrupts(s);
}

// ... and carried out before a wait completes, or the queue is empty

@@
@@
amdvi_completion_wait(...)
{
+vtds_amd_flush(s);
...
}

@@
@@
amdvi_cmdbuf_run(...)
{
...
while (...) { ... }
+vtds_amd_flush(s);
}

// Events

@@
@@
-static void
+void
amdvi_generate_msi_interrupt(...) { ... }

@@
@@
amdvi_mmio_write(...)
{
...
amdvi_mmio_trace(...);
+vtds_amd_mmio_write(s, addr, val);
...
}

// ---------------------------------------- pc: device_add of assigned devices

@@
@@
#include "acpi-build.h"
+#include "hw/i386/vtd_shadow.h"

@@
@@
pc_hotplug_allowed(...)
{
+if (vtds_enabled()) {
+return true;
+}
...
}

// ---------------------------------------------------------------- vfio-pci

@@
@@
#include "pci.h"
+#include "hw/i386/vtd_shadow.h"

@@
@@
vfio_realize(...)
{
...
-pci_device_iommu_address_space(pdev)
+vtds_vfio_address_space(pdev)
...
}

@@
@@
vfio_realize(...)
{
... when exists
+if (!vtds_vfio_attach(vbasedev, pdev, errp)) {
+goto error;
+}
vfio_populate_device(...);
...
}

@@
@@
vfio_instance_finalize(...)
{
...
+vtds_vfio_release(&vdev->vbasedev);
vfio_put_device(vdev);
...
}
