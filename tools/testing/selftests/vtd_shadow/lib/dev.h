/* SPDX-License-Identifier: GPL-2.0 */
/* An assigned PCI device behind a type1 container; DMA if it is QEMU's "edu". */
#ifndef VTDS_TEST_DEV_H
#define VTDS_TEST_DEV_H

#include "vm.h"

#define MAX_DEVICES	2

struct container {
	int fd;
	int kvm_device_fd;
	unsigned int nr_devs;	/* open ones; the IOMMU goes with the last */
};

struct dev {
	char bdf[16];
	struct container *container;
	int group_fd;
	bool group_is_others;	/* ... who opened it, and closes it */
	int fd;
	volatile u8 *bar0;	/* of edu, else NULL */
};

/*
 * Devices to test with: those of the environment variable VTDS_DEVICE (one or
 * two PCI addresses), else all "edu" devices; only such as are bound to the PCI
 * driver that VTDS_DRIVER names (default: vtd_shadow). Returns how many.
 */
unsigned int dev_find(char bdf[MAX_DEVICES][16]);

/* Why nothing can be tested here, or NULL. */
const char *dev_missing(void);

void container_open(struct container *c);
void container_close(struct container *c);

/*
 * Joins the group to container and VM, and gets the device. In this order. If @other
 * is open and of the same group, that has been done with it.
 */
void dev_open(struct dev *dev, struct container *c, struct vm *vm, const char *bdf,
	      const struct dev *other);
void dev_close(struct dev *dev);

/* The VMM's own (bypass) mapping of guest memory. */
void container_map(struct container *c, u64 iova, void *host, u64 bytes);
void container_map_write_only(struct container *c, u64 iova, void *host, u64 bytes);
void container_unmap(struct container *c, u64 iova, u64 bytes);

/* Last IOVA that the host IOMMU can translate for this container. */
u64 container_last_iova(struct container *c);

static inline bool dev_can_dma(const struct dev *dev)
{
	return dev->bar0;
}

/*
 * DMA between memory and the buffer of the device, up to 4095 bytes at @offset in
 * the buffer. Takes 100 ms: QEMU's edu works on a timer. The start and wait
 * halves let two devices work at a time.
 */
void edu_read_start(struct dev *dev, u64 iova, u32 offset, u32 bytes);
void edu_write_start(struct dev *dev, u64 iova, u32 offset, u32 bytes);
void edu_wait(struct dev *dev);
void edu_read(struct dev *dev, u64 iova, u32 offset, u32 bytes);
void edu_write(struct dev *dev, u64 iova, u32 offset, u32 bytes);

#endif
