/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the bare-metal guest and the test program agree on: the guest's physical
 * memory map and the mailbox through which a vCPU is told what to write.
 */
#ifndef VTDS_TEST_GUEST_H
#define VTDS_TEST_GUEST_H

#include <linux/types.h>

#define GUEST_MAX_VCPUS		4
#define GUEST_PORT		0x10	/* "out" here ends a command */

/* Slot 0: RAM. Identity mapped for the vCPUs, as is all below 4 GiB. */
#define GPA_CODE		0x00008000ull
#define GPA_MAILBOX		0x00010000ull	/* one page per vCPU */
#define GPA_STACK_TOP		0x00020000ull	/* one page per vCPU, going down */
#define GPA_CPU_TABLES		0x00020000ull	/* the vCPUs' own page tables */
#define GPA_BATCH		0x00100000ull	/* one batch buffer per vCPU */
#define GUEST_BATCH_BYTES	0x00080000ull
#define GPA_POOL		0x00400000ull	/* tables and data pages */
#define GPA_DATA_2M		0x01000000ull	/* 2 MiB aligned data, two of them */
#define GPA_RAM_END		0x01400000ull

#define GPA_READONLY		0x10000000ull	/* read-only memory slot */
#define READONLY_BYTES		0x00010000ull
#define GPA_EXTRA		0x20000000ull	/* slot that tests add and delete */
#define EXTRA_BYTES		0x00200000ull
#define GPA_NOTHING		0x40000000ull	/* never backed by memory */
#define GPA_1G			0x100000000ull	/* slot for 1 GiB leaves */
#define BYTES_1G		0x40000000ull

/**
 * enum guest_op - how the vCPU changes guest memory
 *
 * The operand is guest_write.value, the width guest_write.width bytes.
 */
enum guest_op {
	GUEST_STORE,		/* mov; any alignment */
	GUEST_REP_STOS,		/* rep stos of @count units */
	GUEST_REP_MOVS,		/* rep movs of @count units from gpa @value */
	GUEST_XCHG,		/* xchg, implies lock */
	GUEST_CMPXCHG,		/* lock cmpxchg: 0 or current -> value */
	GUEST_CMPXCHG8B,	/* lock cmpxchg8b */
	GUEST_AND,		/* and with memory destination */
	GUEST_OR,
	GUEST_LOCK_AND,
	GUEST_LOCK_OR,
	GUEST_LOCK_BTS,		/* lock bts: sets bit number @value; 8 bytes */
	GUEST_INC,		/* 8 bytes */
	GUEST_SSE,		/* movdqu: @value and @count as low and high half */
	GUEST_BATCH,		/* @count struct guest_write at gpa @value */
	GUEST_READ,		/* load; the result goes to mailbox.result */
};

struct guest_write {
	__u64 gpa;
	__u64 value;
	__u32 op;
	__u32 width;
	__u64 count;
};

#define GUEST_BATCH_MAX	(GUEST_BATCH_BYTES / sizeof(struct guest_write))

struct guest_mailbox {
	struct guest_write cmd;
	__u64 result;
	__u64 done;		/* commands carried out; proves that the guest ran */
};

#endif
