// SPDX-License-Identifier: GPL-2.0
/*
 * A VFIO PCI driver that is vfio-pci with two ioctls more: attach the device to
 * a context, and detach it.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

#include "chdev.h"
#include "compat.h"
#include "context.h"
#include "uarg.h"
#include "vfio.h"

/**
 * struct vtds_vfio_device - a device bound to our driver
 * @core: vfio-pci's part; must be first, drvdata points to it
 * @lock: protects @endpoint
 * @endpoint: NULL while not attached
 */
struct vtds_vfio_device {
	struct vfio_pci_core_device core;
	struct mutex lock;	/* endpoint */
	struct vtds_endpoint *endpoint;
};

static struct vtds_vfio_device *vtds_vfio_device(struct vfio_device *vdev)
{
	return container_of(vdev, struct vtds_vfio_device, core.vdev);
}

static int vtds_vfio_init_dev(struct vfio_device *vdev)
{
	mutex_init(&vtds_vfio_device(vdev)->lock);
	return vfio_pci_core_init_dev(vdev);
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

static void vtds_vfio_close_device(struct vfio_device *vdev)
{
	struct vtds_vfio_device *vtds = vtds_vfio_device(vdev);

	/*
	 * First have the device silent, as it is when it leaves; then give the
	 * group back to VFIO's own domain.
	 */
	vfio_pci_core_close_device(vdev);
	mutex_lock(&vtds->lock);
	if (vtds->endpoint)
		vtds_endpoint_detach(vtds->endpoint, true);
	vtds->endpoint = NULL;
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
	mutex_lock(&vtds->lock);
	endpoint = vtds->endpoint ? ERR_PTR(-EBUSY) :
		   vtds_endpoint_attach(context, vdev->dev, vdev->kvm, arg.requester_id);
	if (!IS_ERR(endpoint))
		vtds->endpoint = endpoint;
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

	mutex_lock(&vtds->lock);
	if (!vtds->endpoint)
		err = -EINVAL;
	else if (vtds->endpoint->context->mm != current->mm)
		err = -ESRCH;
	else
		err = vtds_endpoint_detach(vtds->endpoint, false);
	if (!err)
		vtds->endpoint = NULL;
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

static const struct vfio_device_ops vtds_vfio_ops = {
	.name = "vtd_shadow",
	.init = vtds_vfio_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = vtds_vfio_open_device,
	.close_device = vtds_vfio_close_device,
	.ioctl = vtds_vfio_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
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
