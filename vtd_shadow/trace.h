/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints, system vtd_shadow. A domain is named by its top table's GPA. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vtd_shadow

#if !defined(VTDS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VTDS_TRACE_H

#include <linux/tracepoint.h>

#include "engine.h"

#define vtds_show_reason(reason)					\
	__print_symbolic(reason,					\
		{ VTDS_REASON_ROOT_ACCESS, "root-access" },		\
		{ VTDS_REASON_ROOT_RESERVED, "root-reserved" },		\
		{ VTDS_REASON_CONTEXT_ACCESS, "context-access" },	\
		{ VTDS_REASON_CONTEXT_RESERVED, "context-reserved" },	\
		{ VTDS_REASON_CONTEXT_INVALID, "context-invalid" },	\
		{ VTDS_REASON_TABLE_ACCESS, "table-access" },		\
		{ VTDS_REASON_RESERVED_BITS, "reserved-bits" },		\
		{ VTDS_REASON_NOT_RAM, "not-ram" },			\
		{ VTDS_REASON_READ_ONLY, "read-only" },			\
		{ VTDS_REASON_PIN, "pin" },				\
		{ VTDS_REASON_LIMIT, "limit" },				\
		{ VTDS_REASON_RESERVED_REGION, "reserved-region" },	\
		{ VTDS_REASON_APERTURE, "aperture" },			\
		{ VTDS_REASON_GROUP_CONFLICT, "group-conflict" },	\
		{ VTDS_REASON_HOST, "host" },				\
		{ VTDS_REASON_UNSUPPORTED, "unsupported" })

#define vtds_show_state(state)						\
	__print_symbolic(state,						\
		{ VTDS_STATE_BYPASS, "bypass" },			\
		{ VTDS_STATE_BLOCKED, "blocked" },			\
		{ VTDS_STATE_SHADOW, "shadow" })

TRACE_EVENT(vtds_track,
	TP_PROTO(u64 gfn, bool on),
	TP_ARGS(gfn, on),
	TP_STRUCT__entry(
		__field(u64, gfn)
		__field(bool, on)
	),
	TP_fast_assign(
		__entry->gfn = gfn;
		__entry->on = on;
	),
	TP_printk("gfn=%#llx %s", __entry->gfn, __entry->on ? "on" : "off")
);

TRACE_EVENT(vtds_write,
	TP_PROTO(u64 gpa, unsigned int bytes),
	TP_ARGS(gpa, bytes),
	TP_STRUCT__entry(
		__field(u64, gpa)
		__field(unsigned int, bytes)
	),
	TP_fast_assign(
		__entry->gpa = gpa;
		__entry->bytes = bytes;
	),
	TP_printk("gpa=%#llx bytes=%u", __entry->gpa, __entry->bytes)
);

TRACE_EVENT(vtds_link,
	TP_PROTO(const struct vtds_domain *domain, u64 iova, u64 gpa,
		 unsigned int level, bool on),
	TP_ARGS(domain, iova, gpa, level, on),
	TP_STRUCT__entry(
		__field(u64, root_gpa)
		__field(u64, iova)
		__field(u64, gpa)
		__field(unsigned int, level)
		__field(bool, on)
	),
	TP_fast_assign(
		__entry->root_gpa = domain->root_gfn << VTDS_TABLE_SHIFT;
		__entry->iova = iova;
		__entry->gpa = gpa;
		__entry->level = level;
		__entry->on = on;
	),
	TP_printk("%s root=%#llx iova=%#llx table=%#llx level=%u",
		  __entry->on ? "link" : "unlink", __entry->root_gpa,
		  __entry->iova, __entry->gpa, __entry->level)
);

TRACE_EVENT(vtds_map,
	TP_PROTO(const struct vtds_domain *domain, u64 iova, u64 gpa,
		 unsigned int level, unsigned int perm),
	TP_ARGS(domain, iova, gpa, level, perm),
	TP_STRUCT__entry(
		__field(u64, root_gpa)
		__field(u64, iova)
		__field(u64, gpa)
		__field(unsigned int, level)
		__field(unsigned int, perm)
	),
	TP_fast_assign(
		__entry->root_gpa = domain->root_gfn << VTDS_TABLE_SHIFT;
		__entry->iova = iova;
		__entry->gpa = gpa;
		__entry->level = level;
		__entry->perm = perm;
	),
	TP_printk("root=%#llx iova=%#llx gpa=%#llx level=%u %s%s",
		  __entry->root_gpa, __entry->iova, __entry->gpa, __entry->level,
		  __entry->perm & VTDS_R ? "r" : "-",
		  __entry->perm & VTDS_W ? "w" : "-")
);

TRACE_EVENT(vtds_unmap,
	TP_PROTO(const struct vtds_domain *domain, u64 iova, u64 gpa,
		 unsigned int level),
	TP_ARGS(domain, iova, gpa, level),
	TP_STRUCT__entry(
		__field(u64, root_gpa)
		__field(u64, iova)
		__field(u64, gpa)
		__field(unsigned int, level)
	),
	TP_fast_assign(
		__entry->root_gpa = domain->root_gfn << VTDS_TABLE_SHIFT;
		__entry->iova = iova;
		__entry->gpa = gpa;
		__entry->level = level;
	),
	TP_printk("root=%#llx iova=%#llx gpa=%#llx level=%u", __entry->root_gpa,
		  __entry->iova, __entry->gpa, __entry->level)
);

TRACE_EVENT(vtds_flush,
	TP_PROTO(const struct vtds_domain *domain, u64 iova, u64 last,
		 unsigned int entries),
	TP_ARGS(domain, iova, last, entries),
	TP_STRUCT__entry(
		__field(u64, root_gpa)
		__field(u64, iova)
		__field(u64, last)
		__field(unsigned int, entries)
	),
	TP_fast_assign(
		__entry->root_gpa = domain->root_gfn << VTDS_TABLE_SHIFT;
		__entry->iova = iova;
		__entry->last = last;
		__entry->entries = entries;
	),
	TP_printk("root=%#llx iova=%#llx last=%#llx entries=%u", __entry->root_gpa,
		  __entry->iova, __entry->last, __entry->entries)
);

TRACE_EVENT(vtds_reject,
	TP_PROTO(const struct vtds_reject *reject),
	TP_ARGS(reject),
	TP_STRUCT__entry(
		__field(unsigned int, reason)
		__field(u16, requester_id)
		__field(u8, level)
		__field(u64, iova)
		__field(u64, gpa)
	),
	TP_fast_assign(
		__entry->reason = reject->reason;
		__entry->requester_id = reject->requester_id;
		__entry->level = reject->level;
		__entry->iova = reject->iova;
		__entry->gpa = reject->gpa;
	),
	TP_printk("%s rid=%#x iova=%#llx gpa=%#llx level=%u",
		  vtds_show_reason(__entry->reason), __entry->requester_id,
		  __entry->iova, __entry->gpa, __entry->level)
);

TRACE_EVENT(vtds_attach,
	TP_PROTO(u16 requester_id, int group, bool on),
	TP_ARGS(requester_id, group, on),
	TP_STRUCT__entry(
		__field(u16, requester_id)
		__field(int, group)
		__field(bool, on)
	),
	TP_fast_assign(
		__entry->requester_id = requester_id;
		__entry->group = group;
		__entry->on = on;
	),
	TP_printk("%s rid=%#x group=%d", __entry->on ? "attach" : "detach",
		  __entry->requester_id, __entry->group)
);

TRACE_EVENT(vtds_switch,
	TP_PROTO(int group, unsigned int state, u64 root_gpa),
	TP_ARGS(group, state, root_gpa),
	TP_STRUCT__entry(
		__field(int, group)
		__field(unsigned int, state)
		__field(u64, root_gpa)
	),
	TP_fast_assign(
		__entry->group = group;
		__entry->state = state;
		__entry->root_gpa = root_gpa;
	),
	TP_printk("group=%d %s root=%#llx", __entry->group,
		  vtds_show_state(__entry->state), __entry->root_gpa)
);

/* About to take an endpoint's BARs away from the guest. */
TRACE_EVENT(vtds_gate,
	TP_PROTO(u16 requester_id),
	TP_ARGS(requester_id),
	TP_STRUCT__entry(
		__field(u16, requester_id)
	),
	TP_fast_assign(
		__entry->requester_id = requester_id;
	),
	TP_printk("rid=%#x", __entry->requester_id)
);

#endif /* VTDS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
