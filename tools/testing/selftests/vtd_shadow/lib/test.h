/* SPDX-License-Identifier: GPL-2.0 */
/* What every test program includes: harness, library, and the check whether to run. */
#ifndef VTDS_TEST_H
#define VTDS_TEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "check.h"

/* Seconds for one test: the kernel with all checks, under emulation, is slow. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 180

/* Before main() of the harness: without module or device there is nothing to do. */
static void __attribute__((constructor)) skip_if_missing(void)
{
	const char *missing = dev_missing();

	if (!missing) {
		vm_hold_kvm();
		return;
	}
	ksft_print_header();
	ksft_exit_skip("%s\n", missing);
}

/* For the set-up of a fixture that has formats as variants. */
#define NOT_OFFERED "the module cannot set up this kind of vIOMMU"

#endif
