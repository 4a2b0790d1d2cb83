// SPDX-License-Identifier: GPL-2.0
/*
 * The gate before the devices' doorbells.
 *
 * We hear of a write when it is in memory already. For a leaf that is early
 * enough: only the vCPU that wrote it knows of the mapping, and it does not get
 * on before we are done. A link to a table is different. Another vCPU may see it,
 * put a leaf into the table, which is not tracked yet, and start DMA, all before
 * we have followed the link.
 *
 * So the gate is closed first: the devices' BARs are taken out of the guest, and
 * whoever touches one waits in the page fault until the table is shadowed. What
 * is left is the moment between the store and the closing, in which the other
 * vCPU would have to do all of that. It is kept short: by the order in which BARs are
 * taken, and by not letting the other vCPU run in place of the one that closes.
 */
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/sched.h>
#include <linux/sched/rt.h>
#include <linux/workqueue.h>

#include "context.h"
#include "kvm.h"
#include "trace.h"

/**
 * struct zap - taking BARs out of the guest
 * @work: for zap_work()
 * @context: whose
 * @host: those of devices in this domain first
 * @err: 0 or -EINTR
 */
struct zap {
	struct work_struct work;
	struct vtds_context *context;
	const void *host;
	int err;
};

static void zap_bars(struct vtds_context *context, bool first)
{
	struct vtds_endpoint *endpoint;

	list_for_each_entry(endpoint, &context->endpoints, link) {
		if (endpoint->first != first || !endpoint->mapping)
			continue;
		trace_vtds_gate(endpoint->requester_id);
		unmap_mapping_range(endpoint->mapping, 0, 0, true);
	}
}

/*
 * Each device's take as long as it takes to get every vCPU out of the guest, and those
 * that are out already get on meanwhile. The table is of use to the devices of its
 * domain only; if it has several, of the one that linked it first.
 */
static void zap_all(const struct zap *zap)
{
	struct vtds_endpoint *endpoint;

	/* The group may move meanwhile: to be asked once. */
	list_for_each_entry(endpoint, &zap->context->endpoints, link) {
		struct vtds_iommu_host *host = READ_ONCE(endpoint->group->host);

		endpoint->first = host && &host->base == zap->host;
	}
	zap_bars(zap->context, true);
	zap_bars(zap->context, false);
}

/*
 * A vCPU that finds a BAR gone has it mapped in a page fault and then looks where,
 * all under mmap_lock, and takes it for an error if it is gone again. The lock
 * keeps us out of there.
 */
static void zap_work(struct work_struct *work)
{
	struct zap *zap = container_of(work, struct zap, work);
	struct vtds_context *context = zap->context;

	zap->err = mmap_write_lock_killable(context->mm);
	if (zap->err)
		return;
	mutex_lock(&context->bars_lock);
	zap_all(zap);
	mutex_unlock(&context->bars_lock);
	mmap_write_unlock(context->mm);
	atomic64_inc(&context->gatings);
}

/*
 * If it is another task's turn on this processor, that may be a vCPU of the same guest,
 * and what we call lets it go on wherever it might sleep. A worker goes before it, but
 * not before a real-time task. It is not killed while it waits for mmap_lock, so it is
 * not asked when there is something to wait for.
 */
static bool is_for_worker(const struct vtds_context *context)
{
	return need_resched() && !rt_or_dl_task(current) &&
	       !rwsem_is_locked(&context->mm->mmap_lock);
}

/* Take the BARs out of the guest, so that everybody comes by the gate. */
static int gate_zap(struct vtds_context *context, const void *host)
{
	struct zap zap = { .context = context, .host = host };

	lockdep_assert_held_write(&context->gate);
	INIT_WORK_ONSTACK(&zap.work, zap_work);
	if (is_for_worker(context)) {
		queue_work(system_highpri_wq, &zap.work);
		flush_work(&zap.work);
	} else {
		zap_work(&zap.work);
	}
	destroy_work_on_stack(&zap.work);
	return zap.err;
}

/**
 * vtds_gate_close() - have everybody wait who touches a BAR
 * @context: context
 * @host: the struct vtds_host whose devices come first, or another value
 *
 * A guest of one vCPU has nobody to wait for.
 *
 * Context: in a vCPU of the context's VM; no lock of the context held; may sleep.
 * Return: 1 if vtds_gate_open() is due, 0 if not, -EINTR.
 */
int vtds_gate_close(struct vtds_context *context, const void *host)
{
	int err;

	if (!vtds_vm_is_smp(context->vm))
		return 0;
	/* What might sleep would let others go on, see is_for_worker(). */
	if (!down_write_trylock(&context->gate) && down_write_killable(&context->gate))
		return -EINTR;
	err = gate_zap(context, host);
	if (err)
		up_write(&context->gate);
	return err ?: 1;
}

/**
 * vtds_gate_open() - undo vtds_gate_close()
 * @context: context
 */
void vtds_gate_open(struct vtds_context *context)
{
	up_write(&context->gate);
}

/**
 * vtds_gate_pass() - go through the gate, if it is open
 * @context: context
 *
 * Context: any lock may be held, mmap_lock for one: does not wait.
 * Return: whether it is open. It stays so until vtds_gate_passed().
 */
bool vtds_gate_pass(struct vtds_context *context)
{
	return down_read_trylock(&context->gate);
}

/**
 * vtds_gate_passed() - end of what vtds_gate_pass() began
 * @context: context
 */
void vtds_gate_passed(struct vtds_context *context)
{
	up_read(&context->gate);
}

/**
 * vtds_gate_wait() - wait until the gate is open
 * @context: context
 *
 * Context: process; neither mmap_lock nor a lock of the context held; may sleep.
 * Return: 0 or -EINTR.
 */
int vtds_gate_wait(struct vtds_context *context)
{
	int err = down_read_killable(&context->gate);

	if (!err)
		up_read(&context->gate);
	return err;
}
