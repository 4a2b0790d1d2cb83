// SPDX-License-Identifier: GPL-2.0
/* A domain of the host IOMMU, as the engine's backend. */
#include <linux/err.h>
#include <linux/error-injection.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "host.h"

static int host_map(struct vtds_host *host, u64 iova, u64 hpa, u64 bytes, u8 perm)
{
	int prot = IOMMU_CACHE;

	if (perm & VTDS_R)
		prot |= IOMMU_READ;
	if (perm & VTDS_W)
		prot |= IOMMU_WRITE;
	return iommu_map(vtds_iommu_host(host)->domain, iova, hpa, bytes, prot,
			 GFP_KERNEL_ACCOUNT);
}
ALLOW_ERROR_INJECTION(host_map, ERRNO);

static void host_unmap(struct vtds_host *host, u64 iova, u64 bytes,
		       struct iommu_iotlb_gather *gather)
{
	size_t unmapped = iommu_unmap_fast(vtds_iommu_host(host)->domain, iova,
					   bytes, gather);

	/* The range was mapped by us, whole: anything else is our own bug. */
	WARN_ON_ONCE(unmapped != bytes);
}

/*
 * Drivers gather what to flush as it is unmapped, and flush at once where ranges
 * do not touch. Intel's then also frees page-table pages that are still to be
 * flushed. So tell them that the flush will come by itself ("queued"), and give
 * the whole range to it: one flush for all, and what was freed is freed after it.
 */
static void host_gather(struct vtds_host *host, u64 iova, u64 last,
			struct iommu_iotlb_gather *gather)
{
	/* The size that AMD's driver makes of it must not wrap to 0. */
	u64 end = min(vtds_iommu_host(host)->last, U64_MAX - 1);

	iommu_iotlb_gather_init(gather);
	gather->queued = true;
	gather->start = iova;
	gather->end = min(last, end);
}

/*
 * Not while a group leaves because its device is closed: Intel's driver first forgets
 * whom to flush, and then stops the devices. It flushes them at the end of that.
 */
static void host_sync(struct vtds_host *host, struct iommu_iotlb_gather *gather)
{
	struct vtds_iommu_host *ih = vtds_iommu_host(host);

	down_read(&ih->leaving);
	iommu_iotlb_sync(ih->domain, gather);
	up_read(&ih->leaving);
}

/**
 * vtds_iommu_host_leave() - detach a group from a host domain
 * @host: domain
 * @group: group that is attached to it; blocked then
 *
 * Context: process; may sleep. Others may map and unmap at the same time.
 */
void vtds_iommu_host_leave(struct vtds_iommu_host *host, struct iommu_group *group)
{
	down_write(&host->leaving);
	iommu_detach_group(host->domain, group);
	up_write(&host->leaving);
}

static bool region_blocks(const struct iommu_resv_region *region)
{
	/* As VFIO has it: relaxable direct regions may be used for other things. */
	return region->type != IOMMU_RESV_DIRECT_RELAXABLE && region->length;
}

static enum vtds_reason host_check(struct vtds_host *host, u64 iova, u64 last)
{
	struct vtds_iommu_host *ih = vtds_iommu_host(host);
	struct iommu_resv_region *region;

	if (iova < ih->first || last > ih->last)
		return VTDS_REASON_APERTURE;
	list_for_each_entry(region, &ih->reserved, list)
		if (iova <= region->start + region->length - 1 && last >= region->start)
			return VTDS_REASON_RESERVED_REGION;
	return 0;
}

static u64 host_lookup(struct vtds_host *host, u64 iova)
{
	struct vtds_iommu_host *ih = vtds_iommu_host(host);

	if (host_check(host, iova, iova))
		return 0;
	return iommu_iova_to_phys(ih->domain, iova);
}

static const struct vtds_host_ops vtds_iommu_host_ops = {
	.map = host_map,
	.unmap = host_unmap,
	.gather = host_gather,
	.sync = host_sync,
	.check = host_check,
	.lookup = host_lookup,
};

static void regions_free(struct list_head *regions)
{
	struct iommu_resv_region *region, *next;

	list_for_each_entry_safe(region, next, regions, list) {
		list_del(&region->list);
		kfree(region);
	}
}

static int regions_get(struct iommu_group *group, struct list_head *regions)
{
	struct iommu_resv_region *region, *next;
	int err;

	INIT_LIST_HEAD(regions);
	err = iommu_get_group_resv_regions(group, regions);
	list_for_each_entry_safe(region, next, regions, list) {
		if (!region_blocks(region)) {
			list_del(&region->list);
			kfree(region);
		}
	}
	if (err)
		regions_free(regions);
	return err;
}

/**
 * vtds_iommu_host_alloc() - begin to make a host domain
 * @group: its reserved regions are the domain's
 *
 * Context: may sleep. Return: for vtds_iommu_host_init(), or ERR_PTR().
 */
struct vtds_iommu_host *vtds_iommu_host_alloc(struct iommu_group *group)
{
	struct vtds_iommu_host *host = kzalloc(sizeof(*host), GFP_KERNEL_ACCOUNT);
	int err;

	if (!host)
		return ERR_PTR(-ENOMEM);
	host->base.ops = &vtds_iommu_host_ops;
	init_rwsem(&host->leaving);
	err = regions_get(group, &host->reserved);
	if (err) {
		kfree(host);
		return ERR_PTR(err);
	}
	return host;
}

/**
 * vtds_iommu_host_init() - complete a host domain: it is empty then
 * @host: from vtds_iommu_host_alloc(), to be freed if this fails
 * @dev: device that it must suit
 * @limits: what its IOMMU can translate
 *
 * All DMA is forced to snoop caches, if the IOMMU of @dev can do that.
 *
 * Context: may sleep. Return: 0 or an error.
 */
int vtds_iommu_host_init(struct vtds_iommu_host *host, struct device *dev,
			 const struct iommu_domain_geometry *limits)
{
	struct iommu_domain *domain = iommu_paging_domain_alloc(dev);

	if (IS_ERR(domain))
		return PTR_ERR(domain);
	host->domain = domain;
	host->first = max(domain->geometry.aperture_start, limits->aperture_start);
	host->last = min(domain->geometry.aperture_end, limits->aperture_end);
	/*
	 * Drivers use the largest page that fits a call, and AMD's has pages of
	 * any power of two. Runs of guest leaves must not become one page, and it
	 * is for these three that the engine sees to it.
	 */
	domain->pgsize_bitmap &= SZ_4K | SZ_2M | SZ_1G;
	/* Before anything is mapped; a group that cannot do it is not attached. */
	if (device_iommu_capable(dev, IOMMU_CAP_ENFORCE_CACHE_COHERENCY) &&
	    domain->ops->enforce_cache_coherency)
		domain->ops->enforce_cache_coherency(domain);
	return 0;
}

/**
 * vtds_iommu_host_free() - free a host domain
 * @host: domain with nothing mapped and nothing attached, complete or not
 */
void vtds_iommu_host_free(struct vtds_iommu_host *host)
{
	if (host->domain)
		iommu_domain_free(host->domain);
	regions_free(&host->reserved);
	kfree(host);
}

/**
 * vtds_iommu_host_covers() - whether a domain suits another group as it is
 * @host: domain
 * @group: group that may be attached to it
 * @limits: what its IOMMU can translate
 *
 * A domain which maps what is reserved for the group, or what its IOMMU cannot
 * translate, must not be shared.
 */
bool vtds_iommu_host_covers(struct vtds_iommu_host *host, struct iommu_group *group,
			    const struct iommu_domain_geometry *limits)
{
	struct iommu_resv_region *have, *want;
	struct list_head regions;
	bool covered = true;

	if (host->first < limits->aperture_start || host->last > limits->aperture_end)
		return false;
	if (regions_get(group, &regions))
		return false;
	list_for_each_entry(want, &regions, list) {
		bool found = false;

		list_for_each_entry(have, &host->reserved, list)
			found |= have->start <= want->start &&
				 have->start + have->length >= want->start + want->length;
		covered &= found;
	}
	regions_free(&regions);
	return covered;
}
