// SPDX-License-Identifier: GPL-2.0
/*
 * The engine as it is, for the tests: without its tracepoints and with a cache
 * of another name, so that it can live beside vtd_shadow.ko.
 */
#define NOTRACE
#include <linux/slab.h>

#undef KMEM_CACHE
#define KMEM_CACHE(type, flags) \
	kmem_cache_create("vtds_test_node", sizeof(struct type), 0, flags, NULL)

#include "../engine.c"
#include "../leaf.c"
#include "../node.c"
#include "../page.c"
