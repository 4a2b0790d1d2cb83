// SPDX-License-Identifier: GPL-2.0
/*
 * The guest: one function per vCPU, in long mode, without interrupts, which
 * carries out memory writes with exactly the instruction that it is told to use.
 * Built freestanding and flat, see guest.lds.
 */
#include "guest.h"

typedef __u64 u64;
typedef __u32 u32;
typedef __u16 u16;
typedef __u8 u8;

/* One instruction: %0 is the operand, %1 where it goes. */
#define INSN(text) ({ asm volatile(text : "+q"(value) : "r"(gpa) : "memory", "cc"); })

static void write_1(u32 op, u64 gpa, u8 value)
{
	switch (op) {
	case GUEST_STORE:
		INSN("movb %0, (%1)");
		break;
	case GUEST_XCHG:
		INSN("xchgb %0, (%1)");
		break;
	case GUEST_AND:
		INSN("andb %0, (%1)");
		break;
	case GUEST_OR:
		INSN("orb %0, (%1)");
		break;
	case GUEST_LOCK_AND:
		INSN("lock andb %0, (%1)");
		break;
	case GUEST_LOCK_OR:
		INSN("lock orb %0, (%1)");
		break;
	}
}

static void write_2(u32 op, u64 gpa, u16 value)
{
	switch (op) {
	case GUEST_STORE:
		INSN("movw %0, (%1)");
		break;
	case GUEST_XCHG:
		INSN("xchgw %0, (%1)");
		break;
	case GUEST_AND:
		INSN("andw %0, (%1)");
		break;
	case GUEST_OR:
		INSN("orw %0, (%1)");
		break;
	case GUEST_LOCK_AND:
		INSN("lock andw %0, (%1)");
		break;
	case GUEST_LOCK_OR:
		INSN("lock orw %0, (%1)");
		break;
	}
}

static void write_4(u32 op, u64 gpa, u32 value)
{
	switch (op) {
	case GUEST_STORE:
		INSN("movl %0, (%1)");
		break;
	case GUEST_XCHG:
		INSN("xchgl %0, (%1)");
		break;
	case GUEST_AND:
		INSN("andl %0, (%1)");
		break;
	case GUEST_OR:
		INSN("orl %0, (%1)");
		break;
	case GUEST_LOCK_AND:
		INSN("lock andl %0, (%1)");
		break;
	case GUEST_LOCK_OR:
		INSN("lock orl %0, (%1)");
		break;
	}
}

static void write_8(u32 op, u64 gpa, u64 value)
{
	switch (op) {
	case GUEST_STORE:
		INSN("movq %0, (%1)");
		break;
	case GUEST_XCHG:
		INSN("xchgq %0, (%1)");
		break;
	case GUEST_AND:
		INSN("andq %0, (%1)");
		break;
	case GUEST_OR:
		INSN("orq %0, (%1)");
		break;
	case GUEST_LOCK_AND:
		INSN("lock andq %0, (%1)");
		break;
	case GUEST_LOCK_OR:
		INSN("lock orq %0, (%1)");
		break;
	case GUEST_LOCK_BTS:
		INSN("lock btsq %0, (%1)");
		break;
	case GUEST_INC:
		INSN("incq (%1)");
		break;
	}
}

static void write_plain(const struct guest_write *w)
{
	switch (w->width) {
	case 1:
		write_1(w->op, w->gpa, w->value);
		break;
	case 2:
		write_2(w->op, w->gpa, w->value);
		break;
	case 4:
		write_4(w->op, w->gpa, w->value);
		break;
	case 8:
		write_8(w->op, w->gpa, w->value);
		break;
	}
}

static void rep_stos(const struct guest_write *w)
{
	u64 dst = w->gpa, n = w->count;

	switch (w->width) {
	case 1:
		asm volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(w->value) : "memory");
		break;
	case 4:
		asm volatile("rep stosl" : "+D"(dst), "+c"(n) : "a"(w->value) : "memory");
		break;
	case 8:
		asm volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(w->value) : "memory");
		break;
	}
}

static void rep_movs(const struct guest_write *w)
{
	u64 dst = w->gpa, src = w->value, n = w->count;

	if (w->width == 1)
		asm volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	else
		asm volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static void cmpxchg(const struct guest_write *w)
{
	u64 old;

	if (w->width == 4) {
		old = *(volatile u32 *)w->gpa;
		asm volatile("lock cmpxchgl %k2, (%1)" : "+a"(old)
			     : "r"(w->gpa), "r"(w->value) : "memory", "cc");
	} else {
		old = *(volatile u64 *)w->gpa;
		asm volatile("lock cmpxchgq %2, (%1)" : "+a"(old)
			     : "r"(w->gpa), "r"(w->value) : "memory", "cc");
	}
}

static void cmpxchg8b(const struct guest_write *w)
{
	u32 lo = ((volatile u32 *)w->gpa)[0];
	u32 hi = ((volatile u32 *)w->gpa)[1];

	asm volatile("lock cmpxchg8b (%2)" : "+a"(lo), "+d"(hi)
		     : "r"(w->gpa), "b"((u32)w->value), "c"((u32)(w->value >> 32))
		     : "memory", "cc");
}

/* The compiler is told to leave SSE alone, so xmm0 is ours. */
static void sse_store(const struct guest_write *w)
{
	u64 v[2] = { w->value, w->count };

	asm volatile("movdqu %1, %%xmm0\n\tmovdqu %%xmm0, (%0)"
		     : : "r"(w->gpa), "m"(v) : "memory");
}

static void carry_out(struct guest_mailbox *mb, const struct guest_write *w)
{
	switch (w->op) {
	case GUEST_REP_STOS:
		rep_stos(w);
		break;
	case GUEST_REP_MOVS:
		rep_movs(w);
		break;
	case GUEST_CMPXCHG:
		cmpxchg(w);
		break;
	case GUEST_CMPXCHG8B:
		cmpxchg8b(w);
		break;
	case GUEST_SSE:
		sse_store(w);
		break;
	case GUEST_READ:
		mb->result = *(volatile u64 *)w->gpa;
		break;
	default:
		write_plain(w);
		break;
	}
}

static void batch(struct guest_mailbox *mb)
{
	const struct guest_write *w = (const struct guest_write *)mb->cmd.value;
	u64 i;

	for (i = 0; i < mb->cmd.count; i++)
		carry_out(mb, &w[i]);
}

__attribute__((section(".text.entry"), noreturn, used))
void guest_main(struct guest_mailbox *mb)
{
	for (;;) {
		asm volatile("outb %%al, %0" : : "i"(GUEST_PORT) : "memory");
		if (mb->cmd.op == GUEST_BATCH)
			batch(mb);
		else
			carry_out(mb, &mb->cmd);
		mb->done++;
	}
}
