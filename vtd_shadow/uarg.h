/* SPDX-License-Identifier: GPL-2.0 */
/* Extensible ioctl arguments: structures that start with their size. */
#ifndef VTDS_UARG_H
#define VTDS_UARG_H

#include <linux/uaccess.h>

/**
 * vtds_uarg_get() - read an ioctl argument
 * @arg: out
 * @ksize: size that we know
 * @min: size of the first version
 * @uptr: the VMM's structure, which starts with its size
 * @usize: out: that size, for vtds_uarg_put()
 *
 * Return: 0, -EINVAL too short, -E2BIG more than we know and not zero, -EFAULT.
 */
static inline int vtds_uarg_get(void *arg, size_t ksize, size_t min,
				void __user *uptr, u32 *usize)
{
	if (get_user(*usize, (u32 __user *)uptr))
		return -EFAULT;
	if (*usize < min)
		return -EINVAL;
	return copy_struct_from_user(arg, ksize, uptr, *usize);
}

/**
 * vtds_uarg_put() - write the results of an ioctl
 * @arg: what to write
 * @ksize: its size
 * @uptr: the VMM's structure
 * @usize: its size
 *
 * Return: 0 or -EFAULT.
 */
static inline int vtds_uarg_put(const void *arg, size_t ksize, void __user *uptr,
				u32 usize)
{
	return copy_to_user(uptr, arg, min_t(size_t, ksize, usize)) ? -EFAULT : 0;
}

#endif /* VTDS_UARG_H */
