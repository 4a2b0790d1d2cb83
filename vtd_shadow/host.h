/* SPDX-License-Identifier: GPL-2.0 */
/* A domain of the host IOMMU, as the engine's backend. */
#ifndef VTDS_HOST_H
#define VTDS_HOST_H

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/rwsem.h>

#include "engine.h"

/**
 * struct vtds_iommu_host - a host IOMMU domain that shadows one guest domain
 * @base: what the engine sees
 * @domain: the host's domain
 * @first: first IOVA that can be translated
 * @last: last one
 * @reserved: the reserved regions (struct iommu_resv_region) of its first group
 * @leaving: held for writing while a group leaves, see host_sync()
 * @tree: the guest's tables that it shadows
 * @users: IOMMU groups that are attached
 */
struct vtds_iommu_host {
	struct vtds_host base;
	struct iommu_domain *domain;
	u64 first;
	u64 last;
	struct list_head reserved;
	struct rw_semaphore leaving;	/* groups that leave */
	struct vtds_domain *tree;
	unsigned int users;
};

static inline struct vtds_iommu_host *vtds_iommu_host(struct vtds_host *host)
{
	return container_of(host, struct vtds_iommu_host, base);
}

struct vtds_iommu_host *vtds_iommu_host_alloc(struct iommu_group *group);
int vtds_iommu_host_init(struct vtds_iommu_host *host, struct device *dev,
			 const struct iommu_domain_geometry *limits);
void vtds_iommu_host_free(struct vtds_iommu_host *host);
void vtds_iommu_host_leave(struct vtds_iommu_host *host, struct iommu_group *group);
bool vtds_iommu_host_covers(struct vtds_iommu_host *host, struct iommu_group *group,
			    const struct iommu_domain_geometry *limits);

#endif /* VTDS_HOST_H */
