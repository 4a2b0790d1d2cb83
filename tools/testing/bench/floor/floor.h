/* SPDX-License-Identifier: GPL-2.0 */
/* Interface of vtds_floor, for micro.c and smp.c. */
#ifndef VTDS_BENCH_FLOOR_H
#define VTDS_BENCH_FLOOR_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FLOOR_TRACK	_IOW('F', 1, struct floor_track)
#define FLOOR_PAGES	_IOWR('F', 2, struct floor_pages)

#define FLOOR_PAGES_MAX	512

/**
 * struct floor_track - have KVM trap writes, with a callback that does nothing
 * @vm_fd: VM of the calling process
 * @gfn: guest page to track, until the device file is closed
 */
struct floor_track {
	__s32 vm_fd;
	__u32 pad;
	__u64 gfn;
};

/**
 * struct floor_pages - what pages cost without us, in ticks of the TSC for all
 * @devfn: PCI device on bus 0, without a driver; gets a domain for the time
 * @nr: number of pages, at most FLOOR_PAGES_MAX
 * @addr: user address of the first page
 * @iova: where to map them; nothing else is mapped near
 * @unmap_each: how many pages one unmap takes; a divisor of @nr
 * @pin: out: pin one by one, charging RLIMIT_MEMLOCK
 * @map_fresh: out: map one by one where there is no host table yet
 * @map: out: map one by one into a host table that is there
 * @unmap: out: unmap without IOTLB flush
 * @sync: out: one IOTLB flush for all of them
 * @unpin: out: unpin one by one
 */
struct floor_pages {
	__u32 devfn;
	__u32 nr;
	__u64 addr;
	__u64 iova;
	__u64 unmap_each;
	__u64 pin;
	__u64 map_fresh;
	__u64 map;
	__u64 unmap;
	__u64 sync;
	__u64 unpin;
};

#endif
