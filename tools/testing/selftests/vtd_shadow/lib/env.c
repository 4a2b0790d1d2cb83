// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "env.h"

#define ROOT_PAGES	3	/* AMD: 384 device table entries */

static void must(int ret, const char *what)
{
	if (ret)
		fatal("%s", what);
}

bool fmt_is_offered(const struct fmt *fmt)
{
	struct vtds_query arg = VTDS_ARG(vtds_query);
	int fd = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fatal("/dev/vtd_shadow");
	must(ioctl(fd, VTDS_IOC_QUERY, &arg), "VTDS_IOC_QUERY");
	close(fd);
	return arg.viommus & (1ull << fmt->viommu);
}

static void set_up_context(struct env *e, const struct env_options *o)
{
	e->setup = (struct vtds_setup) {
		.size = sizeof(e->setup),
		.viommu = e->fmt->viommu,
		.features = VTDS_FEATURE_PASS_THROUGH,
		.gpa_bits = o->gpa_bits ?: 40,
		.levels = 1u << 3 | 1u << 4 | 1u << 5,
		.page_sizes = o->page_sizes ?: SIZE_4K | SIZE_2M | SIZE_1G,
		.max_tables = o->max_tables,
		.max_mappings = o->max_mappings,
		.pin_cache = o->pin_cache,
		.queue_max = o->queue_max,
		.unmap_delay_ms = o->unmap_delay_ms ?: 60000,
	};
	if (e->fmt->viommu == VTDS_VIOMMU_AMD) {
		e->setup.features = 0;
		e->setup.levels = 0x7e;
	}
	e->ctx = open("/dev/vtd_shadow", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (e->ctx < 0)
		fatal("/dev/vtd_shadow");
	must(ioctl(e->ctx, VTDS_IOC_SETUP, &e->setup), "VTDS_IOC_SETUP");
}

static void open_devices(struct env *e, u32 max)
{
	/* On different buses: for VT-d these are different root entries. */
	static const u32 rids[MAX_DEVICES] = { 0x0010, 0x0118 };
	char bdf[MAX_DEVICES][16];
	u32 i;

	container_open(&e->container);
	e->nr_devs = dev_find(bdf);
	if (max && e->nr_devs > max)
		e->nr_devs = max;
	for (i = 0; i < e->nr_devs; i++) {
		e->rid[i] = rids[i];
		dev_open(&e->dev[i], &e->container, &e->vm, bdf[i], i ? &e->dev[0] : NULL);
	}
	container_map(&e->container, 0, vm_host(&e->vm, 0), GPA_RAM_END);
	e->last_iova = container_last_iova(&e->container);
}

void env_open(struct env *e, const struct env_options *o)
{
	u32 i;

	memset(e, 0, sizeof(*e));
	e->fmt = o->fmt;
	e->levels = o->levels ?: 4;
	vm_create(&e->vm, o->nr_vcpus ?: 1);
	open_devices(e, o->nr_devs);
	set_up_context(e, o);
	e->root_gpa = vm_alloc(&e->vm, ROOT_PAGES);
	e->root_bytes = e->fmt->viommu == VTDS_VIOMMU_AMD ? ROOT_PAGES * PAGE_BYTES : 0;
	env_set_root(e, true);
	for (i = 0; i < e->nr_devs && !o->not_attached; i++)
		env_attach(e, i);
}

void env_close(struct env *e)
{
	u32 i;

	for (i = e->nr_devs; i--;)
		dev_close(&e->dev[i]);
	container_close(&e->container);
	close(e->ctx);
	vm_destroy(&e->vm);
}

void env_attach(struct env *e, u32 dev)
{
	struct vtds_device_attach arg = VTDS_ARG(vtds_device_attach, .context_fd = e->ctx,
						 .requester_id = e->rid[dev]);

	must(ioctl(e->dev[dev].fd, VTDS_IOC_DEVICE_ATTACH, &arg), "VTDS_IOC_DEVICE_ATTACH");
}

void env_detach(struct env *e, u32 dev)
{
	struct vtds_device_detach arg = VTDS_ARG(vtds_device_detach);

	must(ioctl(e->dev[dev].fd, VTDS_IOC_DEVICE_DETACH, &arg), "VTDS_IOC_DEVICE_DETACH");
}

void env_set_root(struct env *e, bool enable)
{
	struct vtds_set_root arg = VTDS_ARG(vtds_set_root,
		.flags = enable ? VTDS_ROOT_ENABLE : 0,
		.root_gpa = e->root_gpa, .root_bytes = e->root_bytes);

	must(ioctl(e->ctx, VTDS_IOC_SET_ROOT, &arg), "VTDS_IOC_SET_ROOT");
}

static void invalidate(struct env *e, struct vtds_inv_entry *entry)
{
	struct vtds_invalidate arg = VTDS_ARG(vtds_invalidate,
		.entries_uptr = (uintptr_t)entry, .entry_len = sizeof(*entry), .entry_num = 1);

	must(ioctl(e->ctx, VTDS_IOC_INVALIDATE, &arg), "VTDS_IOC_INVALIDATE");
	if (arg.entry_num != 1)
		fatal("VTDS_IOC_INVALIDATE carried out %u of 1", arg.entry_num);
}

void env_inv(struct env *e, u32 kind)
{
	invalidate(e, &(struct vtds_inv_entry) { .kind = kind });
}

void env_inv_device(struct env *e, u32 dev)
{
	struct vtds_inv_entry entry = { .kind = VTDS_INV_DEVICE_ENTRY,
		.requester_id = e->rid[dev] };

	invalidate(e, &entry);
}

void env_inv_pages(struct env *e, const struct dom *dom, u64 iova, u32 order)
{
	struct vtds_inv_entry entry = { .kind = VTDS_INV_IOTLB_PAGES, .domain_id = dom->id,
		.iova = iova, .order = order };

	invalidate(e, &entry);
}

void env_flush(struct env *e)
{
	env_inv(e, VTDS_INV_IOTLB_GLOBAL);
}

struct vtds_stats env_stats(struct env *e)
{
	struct vtds_stats arg = VTDS_ARG(vtds_stats);

	must(ioctl(e->ctx, VTDS_IOC_STATS, &arg), "VTDS_IOC_STATS");
	return arg;
}

struct vtds_translate env_translate(struct env *e, u32 dev, u64 iova)
{
	struct vtds_translate arg = VTDS_ARG(vtds_translate, .requester_id = e->rid[dev],
					     .iova = iova);

	must(ioctl(e->ctx, VTDS_IOC_TRANSLATE, &arg), "VTDS_IOC_TRANSLATE");
	return arg;
}
