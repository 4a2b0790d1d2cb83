// SPDX-License-Identifier: GPL-2.0
/*
 * io read|write BYTES DEPTH COUNT: direct I/O of the guest's NVMe, DEPTH requests
 * at a time. Prints "ticks" of the TSC that COUNT requests take.
 *
 * Ticks that nobody wanted, see ticks.h, are not part of the result. At DEPTH 1 a
 * request in which there were some does not count at all, if there are others: it
 * paid for the switch to the thread that counts them.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/aio_abi.h>

#include "ticks.h"

#define DISK		"/dev/nvme0n1"
#define DISK_BYTES	(512ull << 20)
#define DEPTH_MAX	64
#define WARM_UP		16

static aio_context_t ctx;
static struct iocb iocbs[DEPTH_MAX];
static char *buffers;
static unsigned long bytes;
static int fd;
static long long next_offset;

static void submit(unsigned int slot, int opcode)
{
	struct iocb *iocb = &iocbs[slot];

	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_data = slot;
	iocb->aio_lio_opcode = opcode;
	iocb->aio_fildes = fd;
	iocb->aio_buf = (__u64)(buffers + slot * bytes);
	iocb->aio_nbytes = bytes;
	iocb->aio_offset = next_offset;
	next_offset = (next_offset + bytes) % DISK_BYTES;
	if (syscall(SYS_io_submit, ctx, 1, &iocb) != 1)
		err(1, "io_submit");
}

/* Has @count requests done, @depth of them under way at a time. */
static void run_async(int opcode, unsigned int depth, unsigned int count)
{
	unsigned int submitted, done = 0;
	struct io_event events[DEPTH_MAX];
	int i, n;

	for (submitted = 0; submitted < depth && submitted < count; submitted++)
		submit(submitted, opcode);
	while (done < count) {
		n = syscall(SYS_io_getevents, ctx, 1, depth, events, NULL);
		if (n < 1)
			err(1, "io_getevents");
		for (i = 0; i < n; i++, done++) {
			if (events[i].res != (long long)bytes)
				err(1, "request");
			if (submitted < count) {
				submit(events[i].data, opcode);
				submitted++;
			}
		}
	}
}

static void one_sync(int opcode)
{
	ssize_t n = opcode == IOCB_CMD_PREAD ? pread(fd, buffers, bytes, next_offset) :
					       pwrite(fd, buffers, bytes, next_offset);

	if (n != (ssize_t)bytes)
		err(1, "request");
	next_offset = (next_offset + bytes) % DISK_BYTES;
}

/* Returns the ticks of @count requests, by those that did not wait. */
static unsigned long long run_sync(int opcode, unsigned int count)
{
	unsigned long long start, soaked, ticks, quick = 0, all = 0;
	unsigned int i, nr_quick = 0;

	for (i = 0; i < count; i++) {
		soaked = ticks_soaked();
		start = ticks_now();
		one_sync(opcode);
		ticks = ticks_now() - start;
		all += ticks - (ticks_soaked() - soaked);
		if (soaked == ticks_soaked()) {
			quick += ticks;
			nr_quick++;
		}
	}
	return nr_quick >= 16 ? quick * count / nr_quick : all;
}

static unsigned long long run(int opcode, unsigned int depth, unsigned int count)
{
	unsigned long long start = ticks_now() - ticks_soaked();

	if (depth == 1)
		return run_sync(opcode, count);
	run_async(opcode, depth, count);
	return ticks_now() - ticks_soaked() - start;
}

int main(int argc, char **argv)
{
	unsigned int depth, count;
	int opcode;

	if (argc != 5)
		return 2;
	opcode = strcmp(argv[1], "read") ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
	bytes = strtoul(argv[2], NULL, 10);
	depth = strtoul(argv[3], NULL, 10);
	count = strtoul(argv[4], NULL, 10);
	if (!bytes || !depth || depth > DEPTH_MAX)
		return 2;

	fd = open(DISK, O_RDWR | O_DIRECT);
	if (fd < 0)
		err(1, DISK);
	buffers = mmap(NULL, bytes * depth, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buffers == MAP_FAILED)
		err(1, "mmap");
	if (depth > 1 && syscall(SYS_io_setup, depth, &ctx))
		err(1, "io_setup");

	ticks_start();
	run(opcode, depth, WARM_UP > depth ? WARM_UP : depth);
	printf("ticks %llu\n", run(opcode, depth, count));
	return 0;
}
