// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "dev.h"

#define SYSFS_DEVICES	"/sys/bus/pci/devices"

/* QEMU's docs/specs/edu: registers of BAR 0 */
#define EDU_ID			0x123411e8u
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_CMD_RUN		1ull
#define EDU_CMD_TO_MEMORY	2ull
#define EDU_BUFFER		0x40000ull
/*
 * One less than it has: QEMU 7.2 takes a transfer that ends with the buffer for
 * one past it, and dies.
 */
#define EDU_BUFFER_BYTES	4095u
#define EDU_BAR_BYTES		0x1000	/* what we use of it */

static const char *driver_wanted(void)
{
	return getenv("VTDS_DRIVER") ?: "vtd_shadow";
}

/* Name that a symlink of the device's sysfs directory points to, or "". */
static void sysfs_link(const char *bdf, const char *what, char name[64])
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *base;
	ssize_t n;

	name[0] = '\0';
	snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/%s", bdf, what);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	base = strrchr(target, '/');
	snprintf(name, 64, "%.63s", base ? base + 1 : target);
}

static u32 sysfs_hex(const char *bdf, const char *what)
{
	char path[PATH_MAX];
	u32 value = 0;
	FILE *f;

	snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/%s", bdf, what);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%x", &value) != 1)
		value = 0;
	fclose(f);
	return value;
}

static bool is_edu(const char *bdf)
{
	return ((sysfs_hex(bdf, "vendor") << 16) | sysfs_hex(bdf, "device")) == EDU_ID;
}

static bool is_bound(const char *bdf)
{
	char driver[64];

	sysfs_link(bdf, "driver", driver);
	return !strcmp(driver, driver_wanted());
}

static unsigned int find_named(const char *list, char bdf[MAX_DEVICES][16])
{
	char copy[128], *save, *word;
	unsigned int n = 0;

	snprintf(copy, sizeof(copy), "%s", list);
	for (word = strtok_r(copy, " ,", &save); word && n < MAX_DEVICES;
	     word = strtok_r(NULL, " ,", &save))
		if (is_bound(word))
			snprintf(bdf[n++], 16, "%s", word);
	return n;
}

static unsigned int find_edu(char bdf[MAX_DEVICES][16])
{
	struct dirent **list;
	unsigned int n = 0;
	int i, total;

	total = scandir(SYSFS_DEVICES, &list, NULL, alphasort);
	for (i = 0; i < total; i++) {
		if (n < MAX_DEVICES && is_edu(list[i]->d_name) && is_bound(list[i]->d_name))
			snprintf(bdf[n++], 16, "%.15s", list[i]->d_name);
		free(list[i]);
	}
	if (total >= 0)
		free(list);
	return n;
}

unsigned int dev_find(char bdf[MAX_DEVICES][16])
{
	const char *named = getenv("VTDS_DEVICE");

	return named ? find_named(named, bdf) : find_edu(bdf);
}

const char *dev_missing(void)
{
	char bdf[MAX_DEVICES][16];

	if (access("/dev/kvm", R_OK | W_OK))
		return "no /dev/kvm";
	if (access("/dev/vfio/vfio", R_OK | W_OK))
		return "no /dev/vfio/vfio";
	if (!strcmp(driver_wanted(), "vtd_shadow") && access("/dev/vtd_shadow", R_OK | W_OK))
		return "no /dev/vtd_shadow; load the module vtd_shadow";
	if (!dev_find(bdf))
		return "no PCI device is bound to vtd_shadow; see bind.sh and VTDS_DEVICE";
	return NULL;
}

void container_open(struct container *c)
{
	memset(c, 0, sizeof(*c));
	c->kvm_device_fd = -1;
	c->fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		fatal("/dev/vfio/vfio");
	if (ioctl(c->fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		fatal("no VFIO type1v2");
}

void container_close(struct container *c)
{
	if (c->kvm_device_fd >= 0)
		close(c->kvm_device_fd);
	close(c->fd);
}

static void kvm_group(struct container *c, int group_fd, u64 what)
{
	s32 fd = group_fd;
	struct kvm_device_attr attr = {
		.group = KVM_DEV_VFIO_GROUP,
		.attr = what,
		.addr = (uintptr_t)&fd,
	};

	if (ioctl(c->kvm_device_fd, KVM_SET_DEVICE_ATTR, &attr))
		fatal("KVM_DEV_VFIO_GROUP_%s", what == KVM_DEV_VFIO_GROUP_ADD ? "ADD" : "DEL");
}

/* The module takes the VM from here: see VTDS_IOC_DEVICE_ATTACH. */
static void join_vm(struct container *c, struct vm *vm, int group_fd)
{
	struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };

	if (c->kvm_device_fd < 0) {
		if (ioctl(vm->fd, KVM_CREATE_DEVICE, &create))
			fatal("KVM_CREATE_DEVICE of type VFIO");
		c->kvm_device_fd = create.fd;
	}
	kvm_group(c, group_fd, KVM_DEV_VFIO_GROUP_ADD);
}

static void set_command(struct dev *dev, u16 bits)
{
	struct vfio_region_info config = { .argsz = sizeof(config),
		.index = VFIO_PCI_CONFIG_REGION_INDEX };
	u16 command;

	if (ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, &config) ||
	    pread(dev->fd, &command, 2, config.offset + PCI_COMMAND) != 2)
		fatal("%s: configuration space", dev->bdf);
	command |= bits;
	if (pwrite(dev->fd, &command, 2, config.offset + PCI_COMMAND) != 2)
		fatal("%s: command register", dev->bdf);
}

static void map_bar0(struct dev *dev)
{
	struct vfio_region_info bar = { .argsz = sizeof(bar),
		.index = VFIO_PCI_BAR0_REGION_INDEX };
	void *p;

	if (ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, &bar))
		fatal("%s: BAR 0", dev->bdf);
	p = mmap(NULL, EDU_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, dev->fd, bar.offset);
	if (p == MAP_FAILED)
		fatal("%s: mmap of BAR 0", dev->bdf);
	dev->bar0 = p;
}

static void group_open(struct dev *dev, struct container *c, struct vm *vm,
		       const char *group)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[128];

	snprintf(path, sizeof(path), "/dev/vfio/%s", group);
	dev->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if (dev->group_fd < 0 || ioctl(dev->group_fd, VFIO_GROUP_GET_STATUS, &status))
		fatal("%s: group %s", dev->bdf, path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		fatal("%s: other devices of group %s belong to host drivers", dev->bdf, group);
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &c->fd))
		fatal("%s: VFIO_GROUP_SET_CONTAINER", dev->bdf);
	if (!c->nr_devs && ioctl(c->fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		fatal("%s: VFIO_SET_IOMMU", dev->bdf);
	if (vm)
		join_vm(c, vm, dev->group_fd);
}

void dev_open(struct dev *dev, struct container *c, struct vm *vm, const char *bdf,
	      const struct dev *other)
{
	char group[64], others[64];

	memset(dev, 0, sizeof(*dev));
	dev->container = c;
	snprintf(dev->bdf, sizeof(dev->bdf), "%.15s", bdf);
	sysfs_link(bdf, "iommu_group", group);
	if (other)
		sysfs_link(other->bdf, "iommu_group", others);
	dev->group_is_others = other && !strcmp(group, others);
	if (dev->group_is_others)
		dev->group_fd = other->group_fd;
	else
		group_open(dev, c, vm, group);
	c->nr_devs++;
	dev->fd = ioctl(dev->group_fd, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (dev->fd < 0)
		fatal("%s: VFIO_GROUP_GET_DEVICE_FD", bdf);
	set_command(dev, PCI_COMMAND_MEMORY);
	if (is_edu(bdf)) {
		map_bar0(dev);
		/* a transfer that a killed user has left behind */
		edu_wait(dev);
	}
	set_command(dev, PCI_COMMAND_MASTER);
}

void dev_close(struct dev *dev)
{
	if (dev->bar0)
		munmap((void *)dev->bar0, EDU_BAR_BYTES);
	close(dev->fd);
	dev->container->nr_devs--;
	if (dev->group_is_others)
		return;
	/* KVM would keep the group open */
	if (dev->container->kvm_device_fd >= 0)
		kvm_group(dev->container, dev->group_fd, KVM_DEV_VFIO_GROUP_DEL);
	close(dev->group_fd);
}

static void map_dma(struct container *c, u64 iova, void *host, u64 bytes, u32 flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)host,
		.iova = iova,
		.size = bytes,
	};

	if (ioctl(c->fd, VFIO_IOMMU_MAP_DMA, &map))
		fatal("VFIO_IOMMU_MAP_DMA");
}

void container_map(struct container *c, u64 iova, void *host, u64 bytes)
{
	map_dma(c, iova, host, bytes, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
}

void container_map_write_only(struct container *c, u64 iova, void *host, u64 bytes)
{
	map_dma(c, iova, host, bytes, VFIO_DMA_MAP_FLAG_WRITE);
}

void container_unmap(struct container *c, u64 iova, u64 bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = bytes,
	};

	if (ioctl(c->fd, VFIO_IOMMU_UNMAP_DMA, &unmap))
		fatal("VFIO_IOMMU_UNMAP_DMA");
}

static u64 last_iova_of_ranges(const void *info, u32 offset)
{
	const struct vfio_iommu_type1_info_cap_iova_range *ranges;
	const struct vfio_info_cap_header *cap;

	for (; offset; offset = cap->next) {
		cap = (const void *)((const char *)info + offset);
		if (cap->id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			continue;
		ranges = (const void *)cap;
		return ranges->iova_ranges[ranges->nr_iovas - 1].end;
	}
	fatal("VFIO does not tell the IOVA ranges");
}

u64 container_last_iova(struct container *c)
{
	u64 buffer[512] = { 0 };
	struct vfio_iommu_type1_info *info = (void *)buffer;

	info->argsz = sizeof(buffer);
	if (ioctl(c->fd, VFIO_IOMMU_GET_INFO, info))
		fatal("VFIO_IOMMU_GET_INFO");
	return last_iova_of_ranges(buffer, info->flags & VFIO_IOMMU_INFO_CAPS ?
				   info->cap_offset : 0);
}

static void edu_set(struct dev *dev, u32 reg, u64 value)
{
	*(volatile u64 *)(dev->bar0 + reg) = value;
}

static void edu_start(struct dev *dev, u64 src, u64 dst, u32 offset, u32 bytes, u64 direction)
{
	if (offset + bytes > EDU_BUFFER_BYTES)
		fatal("edu: %u bytes at %u", bytes, offset);
	edu_set(dev, EDU_DMA_SRC, src);
	edu_set(dev, EDU_DMA_DST, dst);
	edu_set(dev, EDU_DMA_COUNT, bytes);
	edu_set(dev, EDU_DMA_CMD, EDU_CMD_RUN | direction);
}

void edu_read_start(struct dev *dev, u64 iova, u32 offset, u32 bytes)
{
	edu_start(dev, iova, EDU_BUFFER + offset, offset, bytes, 0);
}

void edu_write_start(struct dev *dev, u64 iova, u32 offset, u32 bytes)
{
	edu_start(dev, EDU_BUFFER + offset, iova, offset, bytes, EDU_CMD_TO_MEMORY);
}

void edu_wait(struct dev *dev)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	int i;

	for (i = 0; i < 20000; i++) {
		if (!(*(volatile u64 *)(dev->bar0 + EDU_DMA_CMD) & EDU_CMD_RUN))
			return;
		nanosleep(&ms, NULL);
	}
	fatal("%s: DMA does not end", dev->bdf);
}

void edu_read(struct dev *dev, u64 iova, u32 offset, u32 bytes)
{
	edu_read_start(dev, iova, offset, bytes);
	edu_wait(dev);
}

void edu_write(struct dev *dev, u64 iova, u32 offset, u32 bytes)
{
	edu_write_start(dev, iova, offset, bytes);
	edu_wait(dev);
}
