/* SPDX-License-Identifier: MIT */
/*
 * The truth log: one JSON line for each call that moved, or should have moved, bytes through TCP.
 * The tests compare what tcprism says with it.
 */
#ifndef TRUTH_H
#define TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* One end of a connection. Its ports are kept here, because a reset socket forgets them. */
struct end {
	int fd;
	uint16_t local, remote;
};

/* A call: what it was, where its bytes were, and what is special about it. */
struct call {
	const char *name;
	const struct end *end;
	bool receives;
	const struct iovec *iov;
	int iovcnt;
	size_t requested;
	const char *path;  /* how the bytes go: user, spliced, io_uring, discarded, cold */
	const char *flags; /* as events.md spells them: "PEEK", "ZEROCOPY" or "" */
};

extern int truth_fd;
extern const char *scenario_name;

__attribute__((noreturn)) static inline void die(const char *what)
{
	fprintf(stderr, "workload: %s: %s: %s\n", scenario_name, what, strerror(errno));
	exit(1);
}

static inline long check(long result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static inline const char *error_name(int error)
{
	switch (error) {
	case EAGAIN: return "EAGAIN";
	case ECONNRESET: return "ECONNRESET";
	case EPIPE: return "EPIPE";
	case ENOTCONN: return "ENOTCONN";
	case EFAULT: return "EFAULT";
	default: return strerror(error);
	}
}

static inline size_t iov_length(const struct iovec *iov, int iovcnt)
{
	size_t total = 0;
	for (int i = 0; i < iovcnt; i++)
		total += iov[i].iov_len;
	return total;
}

static inline char *put_hex(char *out, const struct iovec *iov, int iovcnt, size_t length)
{
	for (int i = 0; i < iovcnt; i++) {
		const unsigned char *byte = iov[i].iov_base;
		for (size_t j = 0; j < iov[i].iov_len && length; j++, length--)
			out += sprintf(out, "%02x", byte[j]);
	}
	return out;
}

/* Log the call and its result (a byte count, or -1 with errno as `error`); give back the result. */
static inline ssize_t truth(const struct call *call, ssize_t result, int error)
{
	size_t length = result > 0 ? (size_t)result : 0;
	char *line = malloc(1024 + 2 * length), *out = line, comm[17] = "";

	prctl(PR_GET_NAME, comm);
	out += sprintf(out,
		       "{\"scenario\": \"%s\", \"call\": \"%s\", \"kind\": \"%s\", \"pid\": %d, \"tid\": %ld, "
		       "\"comm\": \"%s\", \"requested\": %zu, \"bytes\": %zu, \"error\": ",
		       scenario_name, call->name, call->receives ? "recv" : "send", getpid(),
		       (long)syscall(SYS_gettid), comm, call->requested, length);
	out += result < 0 ? sprintf(out, "\"%s\"", error_name(error)) : sprintf(out, "null");
	out += sprintf(out,
		       ", \"path\": \"%s\", \"flags\": \"%s\", \"local_port\": %d, \"remote_port\": %d, \"data\": \"",
		       call->path ? call->path : "user", call->flags ? call->flags : "", call->end->local,
		       call->end->remote);
	if (call->iov)
		out = put_hex(out, call->iov, call->iovcnt, length);
	out += sprintf(out, "\"}\n");
	check(write(truth_fd, line, (size_t)(out - line)), "write the truth");
	free(line);
	return result;
}

#endif
