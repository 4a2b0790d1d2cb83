// SPDX-License-Identifier: GPL-2.0
/*
 * net serve: be the other end of the wire.
 * net ping|send|receive BYTES WINDOW COUNT: have COUNT packets of BYTES go over the
 * guest's NIC; ping: each there and back (WINDOW is 1); send and receive: WINDOW of
 * them one way, then a small one the other way. Prints "ticks" of the TSC that it took,
 * without those that nobody wanted, see ticks.h.
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "ticks.h"

#define SERVER		"192.0.2.1"	/* for documentation: RFC 5737 */
#define PORT		7		/* that of the echo service */
#define BYTES_MAX	1472
#define WARM_UP		16	/* windows */

/* Begins each packet: what the other end is to answer. */
struct request {
	uint16_t packets;
	uint16_t bytes;
};

static char buffer[BYTES_MAX];
static int fd;

static struct sockaddr_in server_address(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };

	inet_aton(SERVER, &address.sin_addr);
	return address;
}

static void transmit(unsigned int packets, unsigned int bytes, const struct sockaddr_in *to)
{
	while (packets--)
		if (sendto(fd, buffer, bytes, 0, (const struct sockaddr *)to,
			   to ? sizeof(*to) : 0) != (ssize_t)bytes)
			err(1, "send");
}

static void receive(unsigned int packets, unsigned int bytes)
{
	while (packets--)
		if (recv(fd, buffer, sizeof(buffer), 0) != (ssize_t)bytes)
			err(1, "receive");
}

static void serve(void)
{
	const struct sockaddr_in address = server_address();
	struct sockaddr_in client;
	struct request request;
	socklen_t len;

	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		err(1, "bind");
	for (;;) {
		len = sizeof(client);
		if (recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&client, &len) <
		    (ssize_t)sizeof(request))
			err(1, "receive");
		memcpy(&request, buffer, sizeof(request));
		if (request.bytes > sizeof(buffer))
			err(1, "request");
		transmit(request.packets, request.bytes, &client);
	}
}

/* Sends packets of which the last one asks for an answer, and awaits that. */
static void exchange(unsigned int packets, unsigned int bytes, struct request answer)
{
	memset(buffer, 0, sizeof(answer));
	transmit(packets - 1, bytes, NULL);
	memcpy(buffer, &answer, sizeof(answer));
	transmit(1, bytes, NULL);
	receive(answer.packets, answer.bytes);
}

static void run(const char *op, unsigned int bytes, unsigned int window, unsigned int count)
{
	const struct request small = { 1, sizeof(small) }, same = { 1, bytes };
	const struct request many = { window, bytes };

	for (; count; count -= window) {
		if (!strcmp(op, "ping"))
			exchange(1, bytes, same);
		else if (!strcmp(op, "send"))
			exchange(window, bytes, small);
		else if (!strcmp(op, "receive"))
			exchange(1, sizeof(small), many);
		else
			exit(2);
	}
}

static void use(char **args)
{
	const struct sockaddr_in address = server_address();
	const struct timeval patience = { .tv_sec = 5 };
	unsigned int bytes = atoi(args[1]), window = atoi(args[2]), count = atoi(args[3]);
	unsigned long long start;

	if (bytes < sizeof(struct request) || bytes > BYTES_MAX || !window || count % window)
		exit(2);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		err(1, "connect");
	ticks_start();
	run(args[0], bytes, window, window * WARM_UP);
	start = ticks_now() - ticks_soaked();
	run(args[0], bytes, window, count);
	printf("ticks %llu\n", ticks_now() - ticks_soaked() - start);
}

int main(int argc, char **argv)
{
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc == 5)
		use(argv + 1);
	else
		return 2;
	return 0;
}
