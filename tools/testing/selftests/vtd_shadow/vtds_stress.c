// SPDX-License-Identifier: GPL-2.0
/*
 * Vehement use: two vCPUs write at random into the same few tables, at the same
 * time: links, leaves, garbage, halves of entries. At quiet points the module and
 * the host domain must agree with a walk of guest memory from the root (env_walk(),
 * which shares nothing with the module), and real DMA with both.
 *
 * VTDS_STRESS_SEED repeats a run as far as two vCPUs can, VTDS_STRESS_ROUNDS makes
 * it longer.
 */
#include <time.h>

#include "test.h"

#define NR_TABLES	12
#define NR_DATA		64
#define NR_INDEX	4		/* entries in use of each table */
#define WRITES		150		/* by each vCPU in each round */
#define DISTURBANCES	8

struct stress {
	struct env e;
	u64 table[NR_TABLES];
	u64 seed;
	u64 state;			/* of the random numbers */
	u64 compared;
	u64 mapped;
	u64 dma;
};

FIXTURE(stress) {
	struct stress s;
};

FIXTURE_VARIANT(stress) {
	const struct fmt *fmt;
	u32 levels;
	u32 queue_max;
};

FIXTURE_VARIANT_ADD(stress, vtd_3_lazy) { .fmt = &fmt_vtd, .levels = 3, .queue_max = 0 };
FIXTURE_VARIANT_ADD(stress, vtd_4_lazy) { .fmt = &fmt_vtd, .levels = 4, .queue_max = 32 };
FIXTURE_VARIANT_ADD(stress, vtd_4_strict) { .fmt = &fmt_vtd, .levels = 4, .queue_max = 1 };
FIXTURE_VARIANT_ADD(stress, amd_3_lazy) { .fmt = &fmt_amd, .levels = 3, .queue_max = 0 };
FIXTURE_VARIANT_ADD(stress, amd_4_strict) { .fmt = &fmt_amd, .levels = 4, .queue_max = 1 };

static u64 number_of(const char *name, u64 otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

FIXTURE_SETUP(stress)
{
	struct env *e = &self->s.e;
	u32 i;

	if (!fmt_is_offered(variant->fmt))
		SKIP(return, NOT_OFFERED);
	env_open(e, &(struct env_options) { .fmt = variant->fmt, .levels = variant->levels,
		 .nr_vcpus = 2, .queue_max = variant->queue_max });
	for (i = 0; i < NR_TABLES; i++)
		self->s.table[i] = vm_alloc(&e->vm, 1);
	self->s.seed = number_of("VTDS_STRESS_SEED", time(NULL));
	self->s.state = self->s.seed * 0x9e3779b97f4a7c15ull | 1;
	TH_LOG("seed %llu", self->s.seed);
}

FIXTURE_TEARDOWN(stress)
{
	u32 i;

	for (i = 0; i < self->s.e.nr_devs; i++)
		env_detach(&self->s.e, i);
	EXPECT_TRUE(is_released(&self->s.e));
	env_close(&self->s.e);
}

/* xorshift64 (Marsaglia) */
static u64 roll(struct stress *s, u64 bound)
{
	u64 x = s->state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	s->state = x;
	return (x >> 11) % bound;
}

/* Anything goes. */
static u64 wild_value(struct stress *s)
{
	const struct fmt *fmt = s->e.fmt;
	u64 data = GPA_DATA_2M + roll(s, NR_DATA) * SIZE_4K;
	u32 perm = 1 + roll(s, 3);

	switch (roll(s, 8)) {
	case 0:
		return fmt->leaf(data, 1, perm);
	case 1:
		return fmt->leaf(GPA_EXTRA + roll(s, NR_DATA) * SIZE_4K, 1, perm);
	case 2 ... 3:
		return fmt->link(s->table[roll(s, NR_TABLES)],
				 1 + roll(s, s->e.levels), perm);
	case 4:
		return 0;
	case 5:
		return fmt->leaf(GPA_DATA_2M, 2, perm);
	case 6:
		return fmt->leaf(GPA_NOTHING + data, 1, perm);
	default:
		return roll(s, ~0ull);
	}
}

/*
 * Each table has a level where it is mostly used, so that enough is mapped; but
 * any may be linked at any level.
 */
static u64 random_value(struct stress *s, u32 table)
{
	u32 level = 1 + table % s->e.levels;
	u32 perm = roll(s, 8) ? PERM_RW : 1 + roll(s, 2);
	u32 below;

	if (!roll(s, 4))
		return wild_value(s);
	if (!roll(s, 8))
		return 0;
	if (level == 1)
		return s->e.fmt->leaf(GPA_DATA_2M + roll(s, NR_DATA) * SIZE_4K, 1, perm);
	below = level - 2 + s->e.levels * roll(s, NR_TABLES / s->e.levels);
	return s->e.fmt->link(s->table[below], level, perm);
}

static struct guest_write random_write(struct stress *s)
{
	struct guest_write w = { .op = GUEST_STORE, .width = 8, .count = 1 };

	u32 table = roll(s, NR_TABLES);

	w.gpa = s->table[table] + 8 * roll(s, NR_INDEX);
	w.value = random_value(s, table);
	switch (roll(s, 16)) {
	case 0:		/* one half */
		w.width = 4;
		w.gpa += 4 * roll(s, 2);
		break;
	case 1:
		/*
		 * A byte or two, but for those that would make up addresses of
		 * the vCPUs' own page tables. AMD's nested paging walks these with
		 * write access (APM vol. 2, 15.25.5 "Nested Table Walk"): if they
		 * are tracked, a vCPU is stuck with its own page faults.
		 */
		w.width = 1 + roll(s, 2);
		w.gpa += roll(s, 2) ? 0 : 4 + roll(s, 3);
		break;
	case 2:		/* halves of two entries */
		w.gpa += 4;
		break;
	case 3:
		w.op = GUEST_XCHG;
		break;
	case 4:
		w.op = GUEST_CMPXCHG;
		break;
	case 5:
		w.op = GUEST_CMPXCHG8B;
		break;
	case 6:
		w.op = GUEST_REP_STOS;
		w.count = 1 + roll(s, 3);
		break;
	case 7:
		w.op = GUEST_LOCK_AND;
		w.value = ~(u64)PERM_RW | roll(s, 4);
		break;
	}
	return w;
}

/* All combinations of the indices in use. */
static u64 window_iova(u32 levels, u32 n)
{
	u64 iova = 0;
	u32 level;

	for (level = 1; level <= levels; level++, n /= NR_INDEX)
		iova += n % NR_INDEX * level_bytes(level);
	return iova;
}

static u32 window_size(u32 levels)
{
	return levels ? NR_INDEX * window_size(levels - 1) : 1;
}

/* Before any invalidation: what is mapped must be there, with what else may be. */
static bool is_visible(struct env *e, u32 dev, u64 iova)
{
	struct walk w = env_walk(e, dev, iova);
	struct vtds_translate t;

	if (!w.perm)
		return true;
	t = env_translate(e, dev, iova);
	if (t.gpa == w.gpa && (t.perm & w.perm) == w.perm && !(t.result & VTDS_TRANSLATE_QUEUED))
		return true;
	fprintf(stderr, "# iova %#llx: gpa %#llx perm %u result %#x, want gpa %#llx perm %u\n",
		iova, t.gpa, t.perm, t.result,
		w.gpa, w.perm);
	return false;
}

static bool compare(struct stress *s, bool flushed)
{
	struct env *e = &s->e;
	u32 dev, n;
	u64 iova;

	for (dev = 0; dev < e->nr_devs; dev++) {
		for (n = 0; n < window_size(e->levels); n++) {
			iova = window_iova(e->levels, n);
			if (!(flushed ? is_as_walked(e, dev, iova) : is_visible(e, dev, iova)))
				return false;
			s->compared++;
			s->mapped += !!env_walk(e, dev, iova).perm;
		}
	}
	return true;
}

/* One page that is mapped for both directions, if there is one. */
static bool try_dma(struct stress *s, u32 dev)
{
	u32 size = window_size(s->e.levels), n = roll(s, size), i;
	struct walk w;
	u64 iova;

	for (i = 0; i < size; i++) {
		iova = window_iova(s->e.levels, (n + i) % size);
		w = env_walk(&s->e, dev, iova);
		if (w.perm != PERM_RW || w.gpa - GPA_DATA_2M >= 2 * SIZE_2M)
			continue;
		s->dma++;
		return dma_reaches(&s->e, dev, iova, w.gpa, 64);
	}
	return true;
}

/* Now and then a device goes to other tables, by a store of vCPU 0. */
static void move_devices(struct stress *s, u32 round)
{
	struct dom dom = { .levels = s->e.levels };
	u32 dev;

	for (dev = 0; dev < s->e.nr_devs; dev++) {
		if (round && roll(s, 4))
			continue;
		dom.id = 1 + roll(s, 2);
		dom.top_gpa = s->table[dom.id * dom.levels - 1];
		if (roll(s, 8))
			dom_set(&s->e, dev, &dom);
		else
			s->e.fmt->set_device(&s->e, dev, DEV_BLOCKED, NULL);
	}
}

/* What a VMM does meanwhile, in any order. */
static void disturb(struct stress *s)
{
	struct env *e = &s->e;
	struct dom dom = { .id = 1 + roll(s, 2) };
	u32 dev = roll(s, e->nr_devs);

	switch (roll(s, 16)) {
	case 0 ... 3:
		env_flush(e);
		break;
	case 4 ... 6:
		env_inv_pages(e, &dom, window_iova(e->levels, roll(s, 256)), roll(s, 20));
		break;
	case 7 ... 10:
		env_translate(e, dev, window_iova(e->levels, roll(s, 256)));
		break;
	case 11:
		drain_events(e);
		break;
	case 12:
		env_set_root(e, roll(s, 2));
		break;
	case 13:
		env_detach(e, dev);
		env_attach(e, dev);
		break;
	case 14:
		if (e->vm.mem[SLOT_EXTRA])
			vm_slot_delete(&e->vm, SLOT_EXTRA);
		else
			vm_slot_add(&e->vm, SLOT_EXTRA);
		break;
	case 15:
		env_inv(e, VTDS_INV_MEMORY);
		break;
	}
}

/* Both vCPUs write, the VMM disturbs; then all stand still. */
static void run_round(struct stress *s)
{
	static struct guest_write w[2][WRITES];
	struct env *e = &s->e;
	u32 cpu, i;

	for (cpu = 0; cpu < 2; cpu++)
		for (i = 0; i < WRITES; i++)
			w[cpu][i] = random_write(s);
	for (cpu = 0; cpu < 2; cpu++)
		vm_batch_start(&e->vm, cpu, w[cpu], WRITES);
	for (i = 0; i < DISTURBANCES; i++)
		disturb(s);
	for (cpu = 0; cpu < 2; cpu++)
		vm_batch_wait(&e->vm, cpu);
	env_set_root(e, true);
	env_inv(e, VTDS_INV_MEMORY);
}

/* A few writes after the last disturbance. */
static void write_more(struct stress *s)
{
	static struct guest_write w[WRITES];
	u32 i;

	for (i = 0; i < WRITES; i++)
		w[i] = random_write(s);
	vm_batch(&s->e.vm, 0, w, WRITES);
}

TEST_F_TIMEOUT(stress, random_writes_by_two_vcpus, 250)
{
	u64 rounds = number_of("VTDS_STRESS_ROUNDS", 15), round;
	struct stress *s = &self->s;
	struct env *e = &s->e;

	for (round = 0; round < rounds; round++) {
		move_devices(s, round);
		run_round(s);
		/* half of the rounds with writes that nothing has synced since */
		if (round & 1)
			write_more(s);
		ASSERT_TRUE(compare(s, false))
			TH_LOG("seed %llu, round %llu, before the flush", s->seed, round);
		env_flush(e);
		ASSERT_TRUE(compare(s, true))
			TH_LOG("seed %llu, round %llu", s->seed, round);
		if (round % 4 == 3)
			ASSERT_TRUE(try_dma(s, round / 4 % e->nr_devs));
		drain_events(e);
	}
	/* that the oracle had something to say */
	EXPECT_LT(0, s->mapped);
	TH_LOG("%llu compared, %llu of them mapped, %llu pages by DMA", s->compared, s->mapped,
	       s->dma);
	TH_LOG("%llu writes trapped, %llu maps", env_stats(e).writes, env_stats(e).maps);
}

TEST_HARNESS_MAIN
