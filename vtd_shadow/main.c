// SPDX-License-Identifier: GPL-2.0
/* Module start and end. */
#include <linux/module.h>

#include "chdev.h"
#include "compat.h"
#include "context.h"
#include "engine.h"
#include "vfio.h"

static int __init vtds_init(void)
{
	int err;

	err = vtds_node_cache_init();
	if (err)
		return err;
	err = vtds_context_init();
	if (err)
		goto err_cache;
	err = vtds_vfio_init();
	if (err)
		goto err_context;
	/* Last: what has been opened cannot be taken back. */
	err = vtds_chdev_init();
	if (err)
		goto err_vfio;
	return 0;

err_vfio:
	vtds_vfio_fini();
err_context:
	vtds_context_fini();
err_cache:
	vtds_node_cache_fini();
	return err;
}

static void __exit vtds_exit(void)
{
	vtds_chdev_fini();
	vtds_vfio_fini();
	vtds_context_fini();
	vtds_node_cache_fini();
}

module_init(vtds_init);
module_exit(vtds_exit);

MODULE_DESCRIPTION("Shadow a guest's virtual IOMMU tables into the host IOMMU");
MODULE_AUTHOR("The vtd_shadow authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(VTDS_VERSION);
