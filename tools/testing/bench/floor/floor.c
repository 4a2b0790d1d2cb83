// SPDX-License-Identifier: GPL-2.0
/*
 * vtds_floor: what KVM and the host IOMMU cost when nobody does anything more.
 * Benchmarks are compared with that. Not for use elsewhere: nothing is checked.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/timex.h>
#include <linux/uaccess.h>

#include <asm/kvm_page_track.h>

#include "floor.h"

struct floor_file {
	struct kvm *kvm;
	struct kvm_page_track_notifier_node node;
	u64 gfn;
};

static void floor_write(gpa_t gpa, const u8 *new, int bytes,
			struct kvm_page_track_notifier_node *node)
{
}

static long floor_track(struct floor_file *floor, struct floor_track __user *uarg)
{
	struct floor_track arg;
	struct file *file;
	long err = -EINVAL;

	if (floor->kvm)
		return -EBUSY;
	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	file = fget(arg.vm_fd);
	if (!file || !file_is_kvm(file))
		goto out;
	floor->node.track_write = floor_write;
	err = kvm_page_track_register_notifier(file->private_data, &floor->node);
	if (err)
		goto out;
	floor->kvm = file->private_data;
	floor->gfn = arg.gfn;
	err = kvm_write_track_add_gfn(floor->kvm, floor->gfn);
out:
	if (file)
		fput(file);
	return err;
}

static int pin_all(struct floor_pages *arg, struct page **pages)
{
	u64 start = get_cycles();
	unsigned int i;

	for (i = 0; i < arg->nr; i++) {
		if (account_locked_vm(current->mm, 1, true) ||
		    pin_user_pages_fast(arg->addr + i * PAGE_SIZE, 1,
					FOLL_LONGTERM | FOLL_WRITE, &pages[i]) != 1)
			return -EFAULT;
	}
	arg->pin = get_cycles() - start;
	return 0;
}

static void unpin_all(struct floor_pages *arg, struct page **pages)
{
	u64 start = get_cycles();
	unsigned int i;

	for (i = 0; i < arg->nr && pages[i]; i++) {
		unpin_user_pages_dirty_lock(&pages[i], 1, true);
		account_locked_vm(current->mm, 1, false);
	}
	arg->unpin = get_cycles() - start;
}

static int map_all(struct iommu_domain *domain, struct floor_pages *arg,
		   struct page **pages, u64 *ticks)
{
	u64 start = get_cycles();
	unsigned int i;
	int err;

	for (i = 0; i < arg->nr; i++) {
		err = iommu_map(domain, arg->iova + i * PAGE_SIZE, page_to_phys(pages[i]),
				PAGE_SIZE, IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE,
				GFP_KERNEL_ACCOUNT);
		if (err)
			return err;
	}
	*ticks = get_cycles() - start;
	return 0;
}

static void unmap_all(struct iommu_domain *domain, struct floor_pages *arg)
{
	struct iommu_iotlb_gather gather;
	u64 start = get_cycles();
	unsigned int i;

	iommu_iotlb_gather_init(&gather);
	for (i = 0; i < arg->nr; i += arg->unmap_each)
		iommu_unmap_fast(domain, arg->iova + i * PAGE_SIZE,
				 arg->unmap_each * PAGE_SIZE, &gather);
	arg->unmap = get_cycles() - start;
	start = get_cycles();
	iommu_iotlb_sync(domain, &gather);
	arg->sync = get_cycles() - start;
}

static int measure_in(struct iommu_domain *domain, struct floor_pages *arg,
		      struct page **pages)
{
	u64 each = arg->unmap_each;
	int err;

	err = map_all(domain, arg, pages, &arg->map_fresh);
	if (err)
		return err;
	arg->unmap_each = 1;	/* keeps the table */
	unmap_all(domain, arg);
	arg->unmap_each = each;
	err = map_all(domain, arg, pages, &arg->map);
	unmap_all(domain, arg);
	return err;
}

static int measure(struct pci_dev *pdev, struct floor_pages *arg, struct page **pages)
{
	struct iommu_domain *domain = iommu_paging_domain_alloc(&pdev->dev);
	struct iommu_group *group = iommu_group_get(&pdev->dev);
	int err = -ENODEV;

	if (IS_ERR(domain) || !group)
		goto out;
	err = iommu_attach_group(domain, group);
	if (err)
		goto out;
	err = measure_in(domain, arg, pages);
	iommu_detach_group(domain, group);
out:
	iommu_group_put(group);
	if (!IS_ERR(domain))
		iommu_domain_free(domain);
	return err;
}

static long floor_pages(struct floor_pages __user *uarg)
{
	struct pci_dev *pdev = NULL;
	struct floor_pages arg;
	struct page **pages;
	long err = -EINVAL;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	pages = kcalloc(FLOOR_PAGES_MAX, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	if (arg.nr > FLOOR_PAGES_MAX || !arg.unmap_each)
		goto out;
	pdev = pci_get_domain_bus_and_slot(0, 0, arg.devfn);
	err = -ENODEV;
	if (!pdev)
		goto out;
	err = pin_all(&arg, pages);
	if (!err)
		err = measure(pdev, &arg, pages);
	unpin_all(&arg, pages);
	if (!err && copy_to_user(uarg, &arg, sizeof(arg)))
		err = -EFAULT;
out:
	pci_dev_put(pdev);
	kfree(pages);
	return err;
}

static long floor_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case FLOOR_TRACK:
		return floor_track(file->private_data, (void __user *)arg);
	case FLOOR_PAGES:
		return floor_pages((void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int floor_open(struct inode *inode, struct file *file)
{
	struct floor_file *floor = kzalloc(sizeof(*floor), GFP_KERNEL);

	file->private_data = floor;
	return floor ? 0 : -ENOMEM;
}

static int floor_release(struct inode *inode, struct file *file)
{
	struct floor_file *floor = file->private_data;

	if (floor->kvm) {
		kvm_write_track_remove_gfn(floor->kvm, floor->gfn);
		kvm_page_track_unregister_notifier(floor->kvm, &floor->node);
	}
	kfree(floor);
	return 0;
}

static const struct file_operations floor_fops = {
	.owner = THIS_MODULE,
	.open = floor_open,
	.release = floor_release,
	.unlocked_ioctl = floor_ioctl,
};

static struct miscdevice floor_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vtds_floor",
	.fops = &floor_fops,
};
module_misc_device(floor_misc);

MODULE_DESCRIPTION("What KVM and the host IOMMU cost by themselves");
MODULE_LICENSE("GPL");
