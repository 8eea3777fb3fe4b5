/* SPDX-License-Identifier: MIT */
/* Every call that sends or receives, wrapped so that it tells the truth log what it did. */
#ifndef CALLS_H
#define CALLS_H

#include "truth.h"

#include <time.h> /* errqueue.h does not include what it uses */

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>

#define SEGMENTS_MAX 128

/* Bytes that tell which call they belong to: a numbered mark, then all values, NUL and ESC included. */
static inline void *pattern(void *buffer, size_t length)
{
	static unsigned number;
	unsigned char *byte = buffer;
	char mark[16];
	size_t marked = (size_t)snprintf(mark, sizeof(mark), "<%05u>", ++number);

	for (size_t i = 0; i < length; i++)
		byte[i] = i < marked ? (unsigned char)mark[i] : (unsigned char)(i * 167 + number * 59 + (i >> 8));
	return buffer;
}

static inline struct call call_of(const char *name, const struct end *end, bool receives, const struct iovec *iov,
				  int iovcnt)
{
	return (struct call){ .name = name, .end = end, .receives = receives, .iov = iov, .iovcnt = iovcnt,
			      .requested = iov_length(iov, iovcnt) };
}

static inline const char *flag_name(int flags)
{
	return flags & MSG_PEEK ? "PEEK" : flags & MSG_ZEROCOPY ? "ZEROCOPY" : "";
}

/* The wrapped call is evaluated first, so that nothing comes between it and its errno. */
#define LOGGED(NAME, END, RECEIVES, BUFFER, LENGTH, FLAGS, CALL)                                    \
	({                                                                                          \
		struct iovec iov_ = { (void *)(BUFFER), (LENGTH) };                                 \
		ssize_t result_ = (CALL);                                                           \
		int error_ = errno;                                                                 \
		struct call call_ = call_of(NAME, END, RECEIVES, &iov_, 1);                         \
		call_.flags = flag_name(FLAGS);                                                     \
		truth(&call_, result_, error_);                                                     \
	})

static inline ssize_t do_write(const struct end *end, const void *buffer, size_t length)
{
	return LOGGED("write", end, false, buffer, length, 0, write(end->fd, buffer, length));
}

static inline ssize_t do_read(const struct end *end, void *buffer, size_t length)
{
	return LOGGED("read", end, true, buffer, length, 0, read(end->fd, buffer, length));
}

static inline ssize_t do_send(const struct end *end, const void *buffer, size_t length, int flags)
{
	return LOGGED("send", end, false, buffer, length, flags, send(end->fd, buffer, length, flags | MSG_NOSIGNAL));
}

static inline ssize_t do_recv(const struct end *end, void *buffer, size_t length, int flags)
{
	return LOGGED("recv", end, true, buffer, length, flags, recv(end->fd, buffer, length, flags));
}

static inline ssize_t do_sendto(const struct end *end, const void *buffer, size_t length)
{
	return LOGGED("sendto", end, false, buffer, length, 0, sendto(end->fd, buffer, length, 0, NULL, 0));
}

static inline ssize_t do_recvfrom(const struct end *end, void *buffer, size_t length)
{
	struct sockaddr_storage from;
	socklen_t from_length = sizeof(from);

	return LOGGED("recvfrom", end, true, buffer, length, 0,
		      recvfrom(end->fd, buffer, length, 0, (struct sockaddr *)&from, &from_length));
}

#define LOGGED_IOV(NAME, END, RECEIVES, IOV, IOVCNT, FLAGS, CALL)                                   \
	({                                                                                          \
		ssize_t result_ = (CALL);                                                           \
		int error_ = errno;                                                                 \
		struct call call_ = call_of(NAME, END, RECEIVES, IOV, IOVCNT);                      \
		call_.flags = flag_name(FLAGS);                                                     \
		truth(&call_, result_, error_);                                                     \
	})

static inline ssize_t do_writev(const struct end *end, const struct iovec *iov, int iovcnt)
{
	return LOGGED_IOV("writev", end, false, iov, iovcnt, 0, writev(end->fd, iov, iovcnt));
}

static inline ssize_t do_readv(const struct end *end, const struct iovec *iov, int iovcnt)
{
	return LOGGED_IOV("readv", end, true, iov, iovcnt, 0, readv(end->fd, iov, iovcnt));
}

/* Offset -1 is the only one that a socket takes. */
static inline ssize_t do_pwritev2(const struct end *end, const struct iovec *iov, int iovcnt)
{
	return LOGGED_IOV("pwritev2", end, false, iov, iovcnt, 0,
			  syscall(SYS_pwritev2, end->fd, iov, iovcnt, -1L, -1L, 0));
}

static inline ssize_t do_preadv2(const struct end *end, const struct iovec *iov, int iovcnt)
{
	return LOGGED_IOV("preadv2", end, true, iov, iovcnt, 0,
			  syscall(SYS_preadv2, end->fd, iov, iovcnt, -1L, -1L, 0));
}

static inline struct msghdr message_of(const struct iovec *iov, int iovcnt)
{
	struct msghdr message;

	memset(&message, 0, sizeof(message)); /* musl's padding is part of the kernel's msg_iovlen */
	message.msg_iov = (struct iovec *)iov;
	message.msg_iovlen = iovcnt;
	return message;
}

static inline ssize_t do_sendmsg(const struct end *end, const struct iovec *iov, int iovcnt, int flags)
{
	struct msghdr message = message_of(iov, iovcnt);
	return LOGGED_IOV("sendmsg", end, false, iov, iovcnt, flags, sendmsg(end->fd, &message, flags | MSG_NOSIGNAL));
}

static inline ssize_t do_recvmsg(const struct end *end, const struct iovec *iov, int iovcnt, int flags)
{
	struct msghdr message = message_of(iov, iovcnt);
	return LOGGED_IOV("recvmsg", end, true, iov, iovcnt, flags, recvmsg(end->fd, &message, flags));
}

static inline void log_messages(const char *name, const struct end *end, bool receives, const struct mmsghdr *messages,
				int count)
{
	for (int i = 0; i < count; i++) {
		const struct msghdr *header = &messages[i].msg_hdr;
		struct call call = call_of(name, end, receives, header->msg_iov, (int)header->msg_iovlen);
		truth(&call, messages[i].msg_len, 0);
	}
}

/* Raw: musl makes several sendmsg() of one sendmmsg(). */
static inline int do_sendmmsg(const struct end *end, struct mmsghdr *messages, unsigned count)
{
	int sent = (int)check(syscall(SYS_sendmmsg, end->fd, messages, count, 0), "sendmmsg");
	log_messages("sendmmsg", end, false, messages, sent);
	return sent;
}

static inline int do_recvmmsg(const struct end *end, struct mmsghdr *messages, unsigned count, int flags)
{
	int received = (int)check(recvmmsg(end->fd, messages, count, (unsigned)flags, NULL), "recvmmsg");
	log_messages("recvmmsg", end, true, messages, received);
	return received;
}

/* Wait until `length` bytes are in the receive queue. */
static inline void await_bytes(const struct end *end, int length)
{
	struct pollfd poller = { .fd = end->fd, .events = POLLIN };
	int queued = 0;

	while (queued < length) {
		check(poll(&poller, 1, 5000), "poll");
		check(ioctl(end->fd, FIONREAD, &queued), "FIONREAD");
	}
}

/* Send `length` recognisable bytes. */
static inline void feed(const struct end *end, size_t length)
{
	char *buffer = malloc(length);
	do_send(end, pattern(buffer, length), length, 0);
	free(buffer);
}

/* Receive `length` bytes with as many recv() as it takes. */
static inline void drain(const struct end *end, size_t length)
{
	char *buffer = malloc(length);
	for (size_t done = 0; done < length;)
		done += (size_t)check(do_recv(end, buffer, length - done, 0), "recv");
	free(buffer);
}

#endif
