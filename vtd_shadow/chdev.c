// SPDX-License-Identifier: GPL-2.0
/* /dev/vtd_shadow: the ioctls and events of a context. */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>

#include "chdev.h"
#include "context.h"
#include "uarg.h"

#define VTDS_MAX_INVALIDATIONS	4096

static int vtds_chdev_open(struct inode *inode, struct file *file)
{
	struct vtds_context *context = vtds_context_alloc();

	if (IS_ERR(context))
		return PTR_ERR(context);
	file->private_data = context;
	return nonseekable_open(inode, file);
}

static int vtds_chdev_release(struct inode *inode, struct file *file)
{
	vtds_context_close(file->private_data);
	return 0;
}

union vtds_arg {
	struct vtds_query query;
	struct vtds_setup setup;
	struct vtds_set_root set_root;
	struct vtds_invalidate invalidate;
	struct vtds_translate translate;
	struct vtds_stats stats;
};

static int ioc_query(struct vtds_context *context, union vtds_arg *arg)
{
	if (arg->query.__reserved)
		return -EINVAL;
	arg->query.version = VTDS_UAPI_VERSION;
	arg->query.viommus = BIT(VTDS_VIOMMU_VTD) | BIT(VTDS_VIOMMU_AMD);
	arg->query.max_tables = VTDS_MAX_TABLES;
	arg->query.max_mappings = VTDS_MAX_MAPPINGS;
	return 0;
}

static int ioc_setup(struct vtds_context *context, union vtds_arg *arg)
{
	return vtds_context_setup(context, &arg->setup);
}

static int ioc_set_root(struct vtds_context *context, union vtds_arg *arg)
{
	return vtds_context_set_root(context, &arg->set_root);
}

static int ioc_invalidate(struct vtds_context *context, union vtds_arg *arg)
{
	struct vtds_invalidate *inv = &arg->invalidate;
	void __user *entries = u64_to_user_ptr(inv->entries_uptr);
	u32 n = inv->entry_num;
	struct vtds_inv_entry entry;
	int err = 0;
	u32 i;

	inv->entry_num = 0;
	if (!n || n > VTDS_MAX_INVALIDATIONS || inv->entry_len < sizeof(entry) ||
	    inv->entry_len > PAGE_SIZE)
		return -EINVAL;
	for (i = 0; i < n && !err; i++) {
		err = copy_struct_from_user(&entry, sizeof(entry),
					    entries + (size_t)i * inv->entry_len,
					    inv->entry_len);
		if (!err)
			err = vtds_context_invalidate(context, &entry);
		if (!err)
			inv->entry_num++;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return err;
}

static int ioc_translate(struct vtds_context *context, union vtds_arg *arg)
{
	return vtds_context_translate(context, &arg->translate);
}

static int ioc_stats(struct vtds_context *context, union vtds_arg *arg)
{
	return vtds_context_stats(context, &arg->stats);
}

/**
 * struct vtds_ioc - one ioctl of a context
 * @handler: carries it out
 * @size: size of its argument
 * @min: size of the first version of it
 * @flags: flag bits that are known
 * @out: the argument is written back, also when @handler fails
 */
struct vtds_ioc {
	int (*handler)(struct vtds_context *context, union vtds_arg *arg);
	u32 size;
	u32 min;
	u32 flags;
	bool out;
};

#define VTDS_IOC(_cmd, _handler, _type, _last, _flags, _out)			\
	[_IOC_NR(_cmd)] = {							\
		.handler = _handler,						\
		.size = sizeof(_type) + BUILD_BUG_ON_ZERO(sizeof(_type) % 8) +	\
			BUILD_BUG_ON_ZERO(offsetof(_type, flags) != 4),		\
		.min = offsetofend(_type, _last),				\
		.flags = _flags,						\
		.out = _out,							\
	}

static const struct vtds_ioc vtds_iocs[] = {
	VTDS_IOC(VTDS_IOC_QUERY, ioc_query, struct vtds_query, max_mappings, 0, true),
	VTDS_IOC(VTDS_IOC_SETUP, ioc_setup, struct vtds_setup, pin_cache, 0, false),
	VTDS_IOC(VTDS_IOC_SET_ROOT, ioc_set_root, struct vtds_set_root, root_bytes,
		 VTDS_ROOT_ENABLE | VTDS_ROOT_SCALABLE, false),
	VTDS_IOC(VTDS_IOC_INVALIDATE, ioc_invalidate, struct vtds_invalidate,
		 entry_num, 0, true),
	VTDS_IOC(VTDS_IOC_TRANSLATE, ioc_translate, struct vtds_translate, levels, 0,
		 true),
	VTDS_IOC(VTDS_IOC_STATS, ioc_stats, struct vtds_stats, rejects, 0, true),
};

static long vtds_chdev_ioctl(struct file *file, unsigned int cmd, unsigned long data)
{
	struct vtds_context *context = file->private_data;
	void __user *uptr = (void __user *)data;
	const struct vtds_ioc *ioc;
	union vtds_arg arg;
	u32 usize;
	int err;

	if (_IOC_TYPE(cmd) != VTDS_IOC_TYPE || _IOC_NR(cmd) >= ARRAY_SIZE(vtds_iocs) ||
	    cmd != _IO(VTDS_IOC_TYPE, _IOC_NR(cmd)))
		return -ENOTTY;
	if (current->mm != context->mm)
		return -ESRCH;

	ioc = &vtds_iocs[_IOC_NR(cmd)];
	memset(&arg, 0, sizeof(arg));
	err = vtds_uarg_get(&arg, ioc->size, ioc->min, uptr, &usize);
	if (err)
		return err;
	/* Every argument has its flags next to its size. */
	if (arg.query.flags & ~ioc->flags)
		return -EOPNOTSUPP;

	err = ioc->handler(context, &arg);
	if (ioc->out && vtds_uarg_put(&arg, ioc->size, uptr, usize))
		return -EFAULT;
	return err;
}

/*
 * Give one event. Return: its size, 0 if there is none, -EFAULT and keep it, or
 * -ERESTARTSYS: the buffer of another reader may take for ever to be written to.
 */
static ssize_t read_event(struct vtds_events *events, char __user *buf)
{
	struct vtds_event event;
	ssize_t ret = 0;

	if (mutex_lock_interruptible(&events->reader))
		return -ERESTARTSYS;
	if (vtds_events_peek(events, &event)) {
		ret = copy_to_user(buf, &event, sizeof(event)) ? -EFAULT : sizeof(event);
		if (ret > 0)
			vtds_events_take(events);
	}
	mutex_unlock(&events->reader);
	return ret;
}

static ssize_t vtds_chdev_read(struct file *file, char __user *buf, size_t count,
			       loff_t *ppos)
{
	struct vtds_context *context = file->private_data;
	struct vtds_events *events = &context->events;
	size_t done = 0;
	ssize_t ret;

	if (count < sizeof(struct vtds_event))
		return -EINVAL;
	while (count - done >= sizeof(struct vtds_event)) {
		ret = read_event(events, buf + done);
		if (ret < 0)
			return done ?: ret;
		done += ret;
		if (ret)
			continue;
		if (done)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		ret = wait_event_interruptible(events->wait, vtds_events_pending(events));
		if (ret)
			return ret;
	}
	return done;
}

static __poll_t vtds_chdev_poll(struct file *file, poll_table *wait)
{
	struct vtds_context *context = file->private_data;

	poll_wait(file, &context->events.wait, wait);
	return vtds_events_pending(&context->events) ? EPOLLIN | EPOLLRDNORM : 0;
}

static const struct file_operations vtds_chdev_fops = {
	.owner = THIS_MODULE,
	.open = vtds_chdev_open,
	.release = vtds_chdev_release,
	.unlocked_ioctl = vtds_chdev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.read = vtds_chdev_read,
	.poll = vtds_chdev_poll,
};

/**
 * vtds_context_get_fd() - the context behind a file descriptor
 * @fd: file descriptor of the current process
 *
 * Return: the context with a reference, or ERR_PTR(-EBADF).
 */
struct vtds_context *vtds_context_get_fd(int fd)
{
	struct file *file = fget(fd);
	struct vtds_context *context;

	if (!file)
		return ERR_PTR(-EBADF);
	if (file->f_op == &vtds_chdev_fops) {
		context = file->private_data;
		kref_get(&context->ref);
	} else {
		context = ERR_PTR(-EBADF);
	}
	fput(file);
	return context;
}

static struct miscdevice vtds_miscdevice = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vtd_shadow",
	.fops = &vtds_chdev_fops,
	/* For VMMs; which devices they get is VFIO's to decide. */
	.mode = 0660,
};

int vtds_chdev_init(void)
{
	return misc_register(&vtds_miscdevice);
}

void vtds_chdev_fini(void)
{
	misc_deregister(&vtds_miscdevice);
}
