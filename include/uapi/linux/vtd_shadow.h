/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * vtd_shadow: shadow a guest's virtual IOMMU tables into the host IOMMU.
 *
 * A *context* is one guest vIOMMU: a file descriptor of /dev/vtd_shadow.
 * An *endpoint* is one VFIO PCI device, bound to the PCI driver "vtd_shadow",
 * that a VMM attached to a context under the requester id which the guest sees.
 *
 * General rules
 *
 * - Every argument is a structure that starts with its own size. A longer one
 *   than the kernel knows is accepted if what the kernel does not know is zero
 *   (otherwise E2BIG); a shorter one than the first version is EINVAL.
 * - Unknown flag bits and non-zero reserved fields are EOPNOTSUPP and EINVAL.
 * - An ioctl that fails has changed nothing, unless its text says otherwise.
 * - Errors that every ioctl can give: EFAULT (bad user pointer), ESRCH (called
 *   from another process than the one that opened the context), ENOTTY (no
 *   such ioctl), ENOMEM, EINTR (the process is being killed).
 * - Addresses and sizes are in bytes. GPA: guest physical address. IOVA: the
 *   address that the device puts on the bus.
 */
#ifndef _UAPI_LINUX_VTD_SHADOW_H
#define _UAPI_LINUX_VTD_SHADOW_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VTDS_UAPI_VERSION	1

#define VTDS_IOC_TYPE		0xBE

/* On the context (/dev/vtd_shadow) */
#define VTDS_IOC_QUERY		_IO(VTDS_IOC_TYPE, 0x00)
#define VTDS_IOC_SETUP		_IO(VTDS_IOC_TYPE, 0x01)
#define VTDS_IOC_SET_ROOT	_IO(VTDS_IOC_TYPE, 0x02)
#define VTDS_IOC_INVALIDATE	_IO(VTDS_IOC_TYPE, 0x03)
#define VTDS_IOC_TRANSLATE	_IO(VTDS_IOC_TYPE, 0x04)
#define VTDS_IOC_STATS		_IO(VTDS_IOC_TYPE, 0x05)

/* On the VFIO device bound to the PCI driver "vtd_shadow" */
#define VTDS_IOC_DEVICE_ATTACH	_IO(VTDS_IOC_TYPE, 0x40)
#define VTDS_IOC_DEVICE_DETACH	_IO(VTDS_IOC_TYPE, 0x41)

/**
 * enum vtds_viommu - kinds of guest vIOMMU
 * @VTDS_VIOMMU_VTD: Intel VT-d. Legacy mode: root table, context tables,
 *	second-stage tables.
 * @VTDS_VIOMMU_AMD: AMD IOMMU. Device table, v1 tables.
 */
enum vtds_viommu {
	VTDS_VIOMMU_VTD = 1,
	VTDS_VIOMMU_AMD = 2,
};

/**
 * struct vtds_query - ioctl(VTDS_IOC_QUERY)
 * @size: sizeof(struct vtds_query)
 * @flags: must be 0
 * @version: out: VTDS_UAPI_VERSION of the module
 * @__reserved: must be 0
 * @viommus: out: bit n is set if enum vtds_viommu value n can be set up
 * @max_tables: out: largest value for vtds_setup.max_tables
 * @max_mappings: out: largest value for vtds_setup.max_mappings
 *
 * Works at any time, on a context that is not set up as well.
 */
struct vtds_query {
	__u32 size;
	__u32 flags;
	__u32 version;
	__u32 __reserved;
	__u64 viommus;
	__u64 max_tables;
	__u64 max_mappings;
};

/* vtds_setup.features: what the guest was promised in its capabilities */
#define VTDS_FEATURE_PASS_THROUGH	(1u << 0) /* VT-d ECAP.PT */
#define VTDS_FEATURE_DEVICE_TLB		(1u << 1) /* VT-d ECAP.DT */

/**
 * struct vtds_setup - ioctl(VTDS_IOC_SETUP)
 * @size: sizeof(struct vtds_setup)
 * @flags: must be 0
 * @viommu: enum vtds_viommu
 * @features: VTDS_FEATURE_* that the guest was promised
 * @gpa_bits: width of guest physical addresses that a table entry may hold
 *	(VT-d: host address width, as in the DMAR table); 32 to 52. A bit above
 *	is a reserved bit.
 * @levels: bit n is set if tables of n levels were promised. VT-d: 3, 4 and 5
 *	(CAP.SAGAW). AMD: 1 to 6; Mode values of a device-table entry.
 * @page_sizes: leaf sizes that were promised, as a bitmap of bytes. 4 KiB must
 *	be among them. VT-d: 2 MiB and 1 GiB as well (CAP.SSLPS). AMD: every
 *	power of two above 4 KiB is always allowed, other bits are ignored.
 * @max_tables: limit on table pages shadowed at a time, 0 for the default
 * @max_mappings: limit on 4 KiB pages mapped at a time, a superpage counting as
 *	all that it spans; 0 for the default
 * @queue_max: removed leaf entries that may wait for an invalidation before
 *	they are flushed anyway, 0 for the default; 1 makes every removal
 *	synchronous
 * @unmap_delay_ms: longest time that a removed leaf entry waits for an
 *	invalidation, in milliseconds, 0 for the default; at most 60000
 * @pin_cache: number of 4 KiB pages that may stay pinned, out of any device's
 *	reach, when their last mapping is gone, so that the next one is cheaper.
 *	0 for none. A VMM that has all guest memory pinned through VFIO anyway
 *	loses nothing. One that replaces pages under the guest (as a balloon
 *	does) must use 0, or VTDS_INV_MEMORY after each time.
 *
 * Tells what the guest's vIOMMU promised. Once per context.
 *
 * Errors: EBUSY (already set up), EINVAL (a value out of its range),
 * EOPNOTSUPP (unknown vIOMMU, feature or flag), EDQUOT (a limit above that of
 * VTDS_IOC_QUERY).
 */
struct vtds_setup {
	__u32 size;
	__u32 flags;
	__u32 viommu;
	__u32 features;
	__u32 gpa_bits;
	__u32 levels;
	__u64 page_sizes;
	__u64 max_tables;
	__u64 max_mappings;
	__u32 queue_max;
	__u32 unmap_delay_ms;
	__u64 pin_cache;
};

/* vtds_set_root.flags */
#define VTDS_ROOT_ENABLE	(1u << 0) /* translation is enabled */
#define VTDS_ROOT_SCALABLE	(1u << 1) /* VT-d: scalable-mode root table */

/**
 * struct vtds_set_root - ioctl(VTDS_IOC_SET_ROOT)
 * @size: sizeof(struct vtds_set_root)
 * @flags: VTDS_ROOT_*
 * @root_gpa: VT-d: GPA of the root table. AMD: GPA of the device table. Must be
 *	a multiple of 4096 and within vtds_setup.gpa_bits. Ignored (but checked)
 *	without VTDS_ROOT_ENABLE.
 * @root_bytes: AMD: size of the device table, a multiple of 4096, 4096 to 2 MiB
 *	(0 is allowed without VTDS_ROOT_ENABLE). VT-d: must be 0.
 *
 * Sets the root pointer as latched by the guest and whether translation is
 * enabled; also to be used at a reset of the guest (with flags = 0). When it
 * returns every endpoint is in the state that the guest's tables ask for:
 * without VTDS_ROOT_ENABLE all are in bypass. What the tables have wrong is not
 * an error here: such endpoints are blocked and an event tells why.
 * Implies an invalidation of everything.
 *
 * Errors: EINVAL (not set up, or a bad address or size), EOPNOTSUPP
 * (VTDS_ROOT_SCALABLE, unknown flag).
 */
struct vtds_set_root {
	__u32 size;
	__u32 flags;
	__u64 root_gpa;
	__u64 root_bytes;
};

/**
 * enum vtds_inv - kinds of invalidation
 * @VTDS_INV_CONTEXT_GLOBAL: VT-d context cache, everything
 * @VTDS_INV_CONTEXT_DOMAIN: VT-d context cache, one domain id
 * @VTDS_INV_CONTEXT_DEVICE: VT-d context cache, one requester id, with mask
 * @VTDS_INV_IOTLB_GLOBAL: IOTLB, everything
 * @VTDS_INV_IOTLB_DOMAIN: IOTLB, one domain id
 * @VTDS_INV_IOTLB_PAGES: IOTLB, a range of pages of one domain id
 * @VTDS_INV_DEVICE_ENTRY: AMD INVALIDATE_DEVTAB_ENTRY: one requester id
 * @VTDS_INV_ALL: AMD INVALIDATE_IOMMU_ALL: everything, device table included
 * @VTDS_INV_MEMORY: not the guest's: the VMM changed memory slots of the VM.
 *	Table pages and mapped pages that were not RAM before are tried again.
 *
 * The granularities are hints: more than was asked for may be invalidated.
 */
enum vtds_inv {
	VTDS_INV_CONTEXT_GLOBAL = 1,
	VTDS_INV_CONTEXT_DOMAIN = 2,
	VTDS_INV_CONTEXT_DEVICE = 3,
	VTDS_INV_IOTLB_GLOBAL = 4,
	VTDS_INV_IOTLB_DOMAIN = 5,
	VTDS_INV_IOTLB_PAGES = 6,
	VTDS_INV_DEVICE_ENTRY = 7,
	VTDS_INV_ALL = 8,
	VTDS_INV_MEMORY = 9,
};

/**
 * struct vtds_inv_entry - one invalidation request
 * @kind: enum vtds_inv
 * @domain_id: for the kinds of one domain id, else 0
 * @requester_id: for VTDS_INV_CONTEXT_DEVICE and VTDS_INV_DEVICE_ENTRY, else 0
 * @function_mask: VTDS_INV_CONTEXT_DEVICE: VT-d FM field, 0 to 3, else 0
 * @iova: VTDS_INV_IOTLB_PAGES: first address; low bits below the range's size
 *	are ignored. Else 0.
 * @order: VTDS_INV_IOTLB_PAGES: 2^order pages of 4 KiB, 0 to 52. Else 0.
 * @__reserved: must be 0
 */
struct vtds_inv_entry {
	__u32 kind;
	__u32 domain_id;
	__u32 requester_id;
	__u32 function_mask;
	__u64 iova;
	__u32 order;
	__u32 __reserved;
};

/**
 * struct vtds_invalidate - ioctl(VTDS_IOC_INVALIDATE)
 * @size: sizeof(struct vtds_invalidate)
 * @flags: must be 0
 * @entries_uptr: user pointer to an array of struct vtds_inv_entry
 * @entry_len: length of one array element in bytes; same rules as for @size, and
 *	at most 4096
 * @entry_num: in: number of elements, 1 to 4096. out: number of elements
 *	carried out, also when the call fails
 *
 * When it returns, no DMA reaches through an entry that the guest removed or
 * changed before the call, and the pages behind it are unpinned (or idle, see
 * vtds_setup.pin_cache). Device table
 * entries (AMD) are read again.
 *
 * Errors: EINVAL (not set up, bad kind or field, entry_num out of range),
 * EOPNOTSUPP (kind is not one of this vIOMMU), E2BIG. The elements before the
 * one at fault have been carried out.
 */
struct vtds_invalidate {
	__u32 size;
	__u32 flags;
	__u64 entries_uptr;
	__u32 entry_len;
	__u32 entry_num;
};

/**
 * enum vtds_state - state of an endpoint
 * @VTDS_STATE_BYPASS: in the domain that the VMM itself set up through VFIO
 * @VTDS_STATE_BLOCKED: all DMA is blocked
 * @VTDS_STATE_SHADOW: translated by the shadow of the guest's tables
 */
enum vtds_state {
	VTDS_STATE_BYPASS = 1,
	VTDS_STATE_BLOCKED = 2,
	VTDS_STATE_SHADOW = 3,
};

/* vtds_translate.perm */
#define VTDS_PERM_READ		(1u << 0)
#define VTDS_PERM_WRITE		(1u << 1)

/* vtds_translate.result */
#define VTDS_TRANSLATE_QUEUED	(1u << 0) /* removed by the guest, not yet flushed */
#define VTDS_TRANSLATE_HOST_OK	(1u << 1) /* the host domain agrees */

/**
 * struct vtds_translate - ioctl(VTDS_IOC_TRANSLATE)
 * @size: sizeof(struct vtds_translate)
 * @flags: must be 0
 * @requester_id: guest requester id of an endpoint
 * @state: out: enum vtds_state
 * @iova: address to look up
 * @gpa: out: GPA that @iova reaches, 0 if none
 * @leaf_bytes: out: size of the leaf that maps @iova, 0 if none
 * @perm: out: VTDS_PERM_*, 0 if @iova is not mapped
 * @result: out: VTDS_TRANSLATE_*. VTDS_TRANSLATE_HOST_OK: the host IOMMU domain
 *	was asked as well, and maps @iova to the very page pinned for @gpa; or
 *	maps nothing, if @perm is 0.
 * @domain_id: out: guest domain id of the endpoint, in VTDS_STATE_SHADOW
 * @levels: out: levels of the guest's tables, in VTDS_STATE_SHADOW
 *
 * Tells what the device reaches now, from the shadow, not by a walk of the
 * guest's tables. In VTDS_STATE_BYPASS the VMM knows better: @gpa is @iova and
 * @perm both; @leaf_bytes 4096.
 *
 * Errors: EINVAL (not set up), ENOENT (no endpoint has @requester_id).
 */
struct vtds_translate {
	__u32 size;
	__u32 flags;
	__u32 requester_id;
	__u32 state;
	__u64 iova;
	__u64 gpa;
	__u64 leaf_bytes;
	__u32 perm;
	__u32 result;
	__u32 domain_id;
	__u32 levels;
};

/**
 * enum vtds_reason - why something was not mapped; reason of an event
 * @VTDS_REASON_ROOT_ACCESS: root table (AMD: device table) is not RAM
 * @VTDS_REASON_ROOT_RESERVED: reserved bit or value in a root entry
 * @VTDS_REASON_CONTEXT_ACCESS: context table is not RAM
 * @VTDS_REASON_CONTEXT_RESERVED: reserved bit in a context entry (AMD: device
 *	table entry)
 * @VTDS_REASON_CONTEXT_INVALID: a context entry asks for what was not promised:
 *	translation type, address width
 * @VTDS_REASON_TABLE_ACCESS: a paging table is not RAM
 * @VTDS_REASON_RESERVED_BITS: reserved bit in a paging entry, or a leaf size
 *	that was not promised
 * @VTDS_REASON_NOT_RAM: a leaf maps guest memory that is not RAM, or that is a
 *	device's. Of a superpage only that part is not mapped.
 * @VTDS_REASON_READ_ONLY: a writable leaf maps read-only guest memory
 * @VTDS_REASON_PIN: the host could not pin the guest's page; RLIMIT_MEMLOCK
 *	included
 * @VTDS_REASON_LIMIT: a limit of VTDS_IOC_SETUP is reached, or one write would
 *	lead to too much work
 * @VTDS_REASON_RESERVED_REGION: a leaf lies in a reserved range of the host
 *	IOMMU (MSI window, RMRR)
 * @VTDS_REASON_APERTURE: a leaf lies outside what the host IOMMU can translate
 * @VTDS_REASON_GROUP_CONFLICT: devices of one host IOMMU group got different
 *	translations; the group is blocked
 * @VTDS_REASON_HOST: the host IOMMU refused (no memory, or the domain cannot
 *	hold the device)
 * @VTDS_REASON_UNSUPPORTED: a feature that the module does not shadow, or a leaf
 *	above 1 GiB
 * @VTDS_REASON_NR: number of reasons + 1; array size, not a reason
 */
enum vtds_reason {
	VTDS_REASON_ROOT_ACCESS = 1,
	VTDS_REASON_ROOT_RESERVED = 2,
	VTDS_REASON_CONTEXT_ACCESS = 3,
	VTDS_REASON_CONTEXT_RESERVED = 4,
	VTDS_REASON_CONTEXT_INVALID = 5,
	VTDS_REASON_TABLE_ACCESS = 6,
	VTDS_REASON_RESERVED_BITS = 7,
	VTDS_REASON_NOT_RAM = 8,
	VTDS_REASON_READ_ONLY = 9,
	VTDS_REASON_PIN = 10,
	VTDS_REASON_LIMIT = 11,
	VTDS_REASON_RESERVED_REGION = 12,
	VTDS_REASON_APERTURE = 13,
	VTDS_REASON_GROUP_CONFLICT = 14,
	VTDS_REASON_HOST = 15,
	VTDS_REASON_UNSUPPORTED = 16,
	VTDS_REASON_NR = 17,
};

/**
 * struct vtds_event - what read() on a context gives
 * @reason: enum vtds_reason
 * @requester_id: guest requester id; of several endpoints in a guest domain, one
 * @iova: first IOVA concerned, 0 where none is
 * @gpa: what the entry pointed to, or where the table is; 0 where none is
 * @level: level of the table that holds the entry (1: leaf table), 0 for root
 *	and context tables
 * @lost: number of events dropped just before this one because nobody read
 *
 * read() gives as many whole events as fit the buffer, at least one; EINVAL if
 * none fits. Without an event it waits, or gives EAGAIN under O_NONBLOCK.
 * poll() tells POLLIN. An event is given when an entry is refused, once per
 * change of the entry.
 */
struct vtds_event {
	__u32 reason;
	__u32 requester_id;
	__u64 iova;
	__u64 gpa;
	__u32 level;
	__u32 lost;
};

/**
 * struct vtds_stats - ioctl(VTDS_IOC_STATS)
 * @size: sizeof(struct vtds_stats)
 * @flags: must be 0
 * @writes: guest writes to tracked tables that were trapped
 * @writes_structural: of these, ones that changed which tables are linked, or
 *	where an endpoint points
 * @maps: leaf entries mapped
 * @unmaps: leaf entries unmapped
 * @remaps: removed leaf entries that the guest put back before they were flushed
 * @host_flushes: host IOTLB flushes for removed entries
 * @invalidations: requests of VTDS_IOC_INVALIDATE carried out
 * @links: paging tables linked
 * @unlinks: paging tables unlinked
 * @switches: changes of an IOMMU group's host domain
 * @gatings: times that the devices' BARs were taken out of a guest of several
 *	vCPUs, to come back when a table that it linked was shadowed
 * @events: events reported, lost ones included
 * @events_lost: events dropped
 * @endpoints: now: attached endpoints
 * @domains: now: shadow domains
 * @tables: now: shadowed paging tables
 * @tracked_pages: now: guest pages whose writes are trapped
 * @mappings: now: leaf entries mapped, queued ones included
 * @queued: now: removed leaf entries not yet flushed
 * @pinned_pages: now: 4 KiB pages pinned, idle ones of vtds_setup.pin_cache
 *	included
 * @rejects: by enum vtds_reason: entries refused; [0] is 0
 *
 * Counters never go back; those marked "now" are gauges. They are read without
 * stopping anything. Works at any time.
 */
struct vtds_stats {
	__u32 size;
	__u32 flags;
	__u64 writes;
	__u64 writes_structural;
	__u64 maps;
	__u64 unmaps;
	__u64 remaps;
	__u64 host_flushes;
	__u64 invalidations;
	__u64 links;
	__u64 unlinks;
	__u64 switches;
	__u64 gatings;
	__u64 events;
	__u64 events_lost;
	__u64 endpoints;
	__u64 domains;
	__u64 tables;
	__u64 tracked_pages;
	__u64 mappings;
	__u64 queued;
	__u64 pinned_pages;
	__u64 rejects[VTDS_REASON_NR];
};

/**
 * struct vtds_device_attach - ioctl(VTDS_IOC_DEVICE_ATTACH) on a VFIO device
 * @size: sizeof(struct vtds_device_attach)
 * @flags: must be 0
 * @context_fd: file descriptor of a context that was set up
 * @requester_id: requester id (bus << 8 | devfn) that the guest sees, 0 to 0xffff
 *
 * Attaches the device to the context. The VM is the one that the VFIO group was
 * joined with (KVM_DEV_VFIO_GROUP_ADD) before VFIO_GROUP_GET_DEVICE_FD; all
 * devices of a context belong to one VM. The domain that the device's group is
 * in at this moment is its bypass domain. When the call returns the device is in
 * the state that the guest's tables ask for.
 *
 * The device stays attached until VTDS_IOC_DEVICE_DETACH or the last close of
 * the device. Closing the context first is allowed: the device is then blocked.
 *
 * Errors: EINVAL (context not set up, requester id out of range), EBADF
 * (@context_fd is not a context), EBUSY (device already attached, requester id
 * taken in this context, group already attached to another context), ESRCH (no
 * VM, or not the VM of the context or process), EOPNOTSUPP (device is used
 * through iommufd; unknown flag), ENODEV (no IOMMU group).
 */
struct vtds_device_attach {
	__u32 size;
	__u32 flags;
	__s32 context_fd;
	__u32 requester_id;
};

/**
 * struct vtds_device_detach - ioctl(VTDS_IOC_DEVICE_DETACH) on a VFIO device
 * @size: sizeof(struct vtds_device_detach)
 * @flags: must be 0
 *
 * Puts the device's group back into its bypass domain (with the last device of
 * the group) and forgets the device.
 *
 * Errors: EINVAL (not attached), ESRCH, or what the host's IOMMU driver gives when
 * it cannot attach the bypass domain (ENOMEM): the device is still attached then.
 */
struct vtds_device_detach {
	__u32 size;
	__u32 flags;
};

#endif /* _UAPI_LINUX_VTD_SHADOW_H */
