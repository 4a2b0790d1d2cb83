// SPDX-License-Identifier: GPL-2.0
/*
 * A VFIO PCI driver that is vfio-pci with two ioctls more: attach the device to
 * a context, and detach it. And who touches its BARs comes by the context's gate.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pci.h>
#include <linux/srcu.h>
#include <linux/vfio_pci_core.h>

#include "chdev.h"
#include "compat.h"
#include "context.h"
#include "uarg.h"
#include "vfio.h"

/**
 * struct vtds_vfio_device - a device bound to our driver
 * @core: vfio-pci's part; must be first, drvdata points to it
 * @lock: protects @endpoint and changes of @context
 * @endpoint: NULL while not attached
 * @context: the same, for who cannot take @lock; holds a reference
 * @srcu: who has found @context, and has no reference
 * @core_vm_ops: vfio-pci's for its mappings of BARs, from the first of them on
 */
struct vtds_vfio_device {
	struct vfio_pci_core_device core;
	struct mutex lock;	/* endpoint, context */
	struct vtds_endpoint *endpoint;
	struct vtds_context __rcu *context;
	struct srcu_struct srcu;	/* readers of context */
	const struct vm_operations_struct *core_vm_ops;
};

static struct vtds_vfio_device *vtds_vfio_device(struct vfio_device *vdev)
{
	return container_of(vdev, struct vtds_vfio_device, core.vdev);
}

static int vtds_vfio_init_dev(struct vfio_device *vdev)
{
	struct vtds_vfio_device *vtds = vtds_vfio_device(vdev);
	int err;

	mutex_init(&vtds->lock);
	err = init_srcu_struct(&vtds->srcu);
	if (err)
		return err;
	err = vfio_pci_core_init_dev(vdev);
	if (err)
		cleanup_srcu_struct(&vtds->srcu);
	return err;
}

static void vtds_vfio_release_dev(struct vfio_device *vdev)
{
	cleanup_srcu_struct(&vtds_vfio_device(vdev)->srcu);
	vfio_pci_core_release_dev(vdev);
}

static int vtds_vfio_open_device(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core = &vtds_vfio_device(vdev)->core;
	int err;

	err = vfio_pci_core_enable(core);
	if (err)
		return err;
	vfio_pci_core_finish_enable(core);
	return 0;
}

/* After attach. */
static void publish(struct vtds_vfio_device *vtds, struct vtds_endpoint *endpoint)
{
	vtds->endpoint = endpoint;
	vtds_context_get(endpoint->context);
	rcu_assign_pointer(vtds->context, endpoint->context);
}

/* After detach or close. */
static void retract(struct vtds_vfio_device *vtds)
{
	struct vtds_context *context;

	vtds->endpoint = NULL;
	context = rcu_replace_pointer(vtds->context, NULL, lockdep_is_held(&vtds->lock));
	synchronize_srcu(&vtds->srcu);
	vtds_context_put(context);
}

static void vtds_vfio_close_device(struct vfio_device *vdev)
{
	struct vtds_vfio_device *vtds = vtds_vfio_device(vdev);

	/*
	 * First have the device silent, as it is when it leaves; then give the
	 * group back to VFIO's own domain. VFIO's locks are held, which other VMMs
	 * may need: nothing of this waits for our VMM. Nobody has a file of the
	 * device any more, so nobody is in an ioctl or a page fault of it.
	 */
	vfio_pci_core_close_device(vdev);
	mutex_lock(&vtds->lock);
	if (vtds->endpoint) {
		vtds_endpoint_close(vtds->endpoint);
		retract(vtds);
	}
	mutex_unlock(&vtds->lock);
}

/* Through iommufd the group's domain is iommufd's to change. */
static bool vtds_vfio_uses_iommufd(const struct vfio_device *vdev)
{
#if IS_ENABLED(CONFIG_IOMMUFD)
	return vdev->iommufd_device;
#else
	return false;
#endif
}

static int ioc_attach(struct vtds_vfio_device *vtds, void __user *uptr)
{
	struct vfio_device *vdev = &vtds->core.vdev;
	struct vtds_device_attach arg = {};
	struct vtds_endpoint *endpoint;
	struct vtds_context *context;
	u32 usize;
	int err;

	err = vtds_uarg_get(&arg, sizeof(arg), offsetofend(typeof(arg), requester_id),
			    uptr, &usize);
	if (err)
		return err;
	if (arg.flags)
		return -EOPNOTSUPP;
	if (arg.requester_id > U16_MAX)
		return -EINVAL;
	if (vtds_vfio_uses_iommufd(vdev))
		return -EOPNOTSUPP;

	context = vtds_context_get_fd(arg.context_fd);
	if (IS_ERR(context))
		return PTR_ERR(context);
	if (mutex_lock_killable(&vtds->lock)) {
		vtds_context_put(context);
		return -EINTR;
	}
	endpoint = vtds->endpoint ? ERR_PTR(-EBUSY) :
		   vtds_endpoint_attach(context, vdev->dev, vdev->inode->i_mapping,
					vdev->kvm, arg.requester_id);
	if (!IS_ERR(endpoint))
		publish(vtds, endpoint);
	mutex_unlock(&vtds->lock);
	vtds_context_put(context);
	return PTR_ERR_OR_ZERO(endpoint);
}

static int ioc_detach(struct vtds_vfio_device *vtds, void __user *uptr)
{
	struct vtds_device_detach arg = {};
	u32 usize;
	int err;

	err = vtds_uarg_get(&arg, sizeof(arg), offsetofend(typeof(arg), flags), uptr,
			    &usize);
	if (err)
		return err;
	if (arg.flags)
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&vtds->lock))
		return -EINTR;
	if (!vtds->endpoint)
		err = -EINVAL;
	else if (vtds->endpoint->context->mm != current->mm)
		err = -ESRCH;
	else
		err = vtds_endpoint_detach(vtds->endpoint);
	if (!err)
		retract(vtds);
	mutex_unlock(&vtds->lock);
	return err;
}

static long vtds_vfio_ioctl(struct vfio_device *vdev, unsigned int cmd,
			    unsigned long arg)
{
	struct vtds_vfio_device *vtds = vtds_vfio_device(vdev);

	switch (cmd) {
	case VTDS_IOC_DEVICE_ATTACH:
		return ioc_attach(vtds, (void __user *)arg);
	case VTDS_IOC_DEVICE_DETACH:
		return ioc_detach(vtds, (void __user *)arg);
	default:
		return vfio_pci_core_ioctl(vdev, cmd, arg);
	}
}

/* ---- BARs ---- */

/*
 * A fault at a BAR while the gate is closed: wait, where that is allowed, without
 * mmap_lock, which whoever closed it may want to have. The mapping may go meanwhile,
 * but not the device: its close would wait for us.
 */
static vm_fault_t fault_later(struct vm_fault *vmf, struct vtds_context *context)
{
	struct file *file;

	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
		return VM_FAULT_NOPAGE;
	if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT)) {
		file = get_file(vmf->vma->vm_file);
		mmap_read_unlock(vmf->vma->vm_mm);
		vtds_gate_wait(context);
		fput(file);	/* the last one acts when we are out of here */
	}
	return VM_FAULT_RETRY;
}

static vm_fault_t core_fault(struct vtds_vfio_device *vtds, struct vm_fault *vmf, int order)
{
	const struct vm_operations_struct *ops = READ_ONCE(vtds->core_vm_ops);

	return order < 0 ? ops->fault(vmf) : ops->huge_fault(vmf, order);
}

/*
 * @order: as of huge_fault(), or -1 for fault(). What the latter never sees, a fault
 * with no more than a lock of the VMA, the former does: it comes again as the latter.
 */
static vm_fault_t fault_by_gate(struct vm_fault *vmf, int order)
{
	/* As vfio-pci's own handler finds its device */
	struct vtds_vfio_device *vtds = container_of(vmf->vma->vm_private_data,
						     struct vtds_vfio_device, core);
	struct vtds_context *context;
	vm_fault_t ret;
	int idx;

	if (vmf->flags & FAULT_FLAG_VMA_LOCK)
		return VM_FAULT_FALLBACK;
	idx = srcu_read_lock(&vtds->srcu);
	context = srcu_dereference(vtds->context, &vtds->srcu);
	if (context && !vtds_gate_pass(context)) {
		ret = fault_later(vmf, context);
	} else {
		ret = core_fault(vtds, vmf, order);
		if (context)
			vtds_gate_passed(context);
	}
	srcu_read_unlock(&vtds->srcu, idx);
	return ret;
}

static vm_fault_t vtds_vfio_fault(struct vm_fault *vmf)
{
	return fault_by_gate(vmf, -1);
}

#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
static vm_fault_t vtds_vfio_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	return fault_by_gate(vmf, order);
}
#endif

static const struct vm_operations_struct vtds_vfio_vm_ops = {
	.fault = vtds_vfio_fault,
#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
	.huge_fault = vtds_vfio_huge_fault,
#endif
};

static bool is_bar(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff >> (VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT) <=
	       VFIO_PCI_BAR5_REGION_INDEX;
}

static int vtds_vfio_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	int err = vfio_pci_core_mmap(vdev, vma);

	if (err || !is_bar(vma))
		return err;
	/* The same each time */
	WRITE_ONCE(vtds_vfio_device(vdev)->core_vm_ops, vma->vm_ops);
	vma->vm_ops = &vtds_vfio_vm_ops;
	return 0;
}

/* BARs as the VMM writes to them for the guest, with its own instructions. */
static ssize_t vtds_vfio_write(struct vfio_device *vdev, const char __user *buf,
			       size_t count, loff_t *ppos)
{
	struct vtds_vfio_device *vtds = vtds_vfio_device(vdev);
	struct vtds_context *context;
	int idx, err = 0;

	idx = srcu_read_lock(&vtds->srcu);
	context = srcu_dereference(vtds->context, &vtds->srcu);
	if (context)
		err = vtds_gate_wait(context);
	srcu_read_unlock(&vtds->srcu, idx);
	return err ?: vfio_pci_core_write(vdev, buf, count, ppos);
}

static const struct vfio_device_ops vtds_vfio_ops = {
	.name = "vtd_shadow",
	.init = vtds_vfio_init_dev,
	.release = vtds_vfio_release_dev,
	.open_device = vtds_vfio_open_device,
	.close_device = vtds_vfio_close_device,
	.ioctl = vtds_vfio_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vtds_vfio_write,
	.mmap = vtds_vfio_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
	VTDS_VFIO_OPS_TOKEN
	VTDS_VFIO_OPS_REGION
};

static int vtds_vfio_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vtds_vfio_device *vtds;
	int err;

	vtds = vfio_alloc_device(vtds_vfio_device, core.vdev, &pdev->dev, &vtds_vfio_ops);
	if (IS_ERR(vtds))
		return PTR_ERR(vtds);
	dev_set_drvdata(&pdev->dev, &vtds->core);
	err = vfio_pci_core_register_device(&vtds->core);
	if (err)
		vfio_put_device(&vtds->core.vdev);
	return err;
}

static void vtds_vfio_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/*
 * Any device, by driver_override only. Not exported with MODULE_DEVICE_TABLE():
 * tools that look for the best VFIO driver by its alias must not choose us over
 * vfio-pci unasked.
 */
static const struct pci_device_id vtds_vfio_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{}
};

static struct pci_driver vtds_vfio_driver = {
	.name = "vtd_shadow",
	.id_table = vtds_vfio_ids,
	.probe = vtds_vfio_probe,
	.remove = vtds_vfio_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};

int vtds_vfio_init(void)
{
	return pci_register_driver(&vtds_vfio_driver);
}

void vtds_vfio_fini(void)
{
	pci_unregister_driver(&vtds_vfio_driver);
}
