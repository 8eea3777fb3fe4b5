/* SPDX-License-Identifier: MIT */
/*
 * Makes TCP calls of every sort over loopback and logs what each did.
 *
 *   workload calls LOG 4|6|mapped BASE_PORT [SCENARIO...]   each scenario on a connection of its own:
 *       its server has port BASE_PORT + 2 * number, its client the one after
 *   workload flood BASE_PORT COUNT SIZE    COUNT times send and receive SIZE bytes on one connection
 *   workload list                          the names of the scenarios
 */
#include "calls.h"
#include "uring.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/sendfile.h>
#include <sys/wait.h>

struct connection {
	struct end client, server;
};

int truth_fd = 1;
const char *scenario_name = "start";

/* ---- one-call scenarios ---- */

#define BUFFER(LENGTH) pattern((char[LENGTH]){ 0 }, LENGTH)

static void scenario_write(struct connection *c)
{
	check(do_write(&c->client, BUFFER(41), 41), "write");
	check(do_write(&c->client, BUFFER(200), 200), "write");
	drain(&c->server, 241);
}

static void scenario_read(struct connection *c)
{
	char buffer[300];

	feed(&c->client, 150);
	await_bytes(&c->server, 150);
	check(do_read(&c->server, buffer, 50), "read"); /* partial */
	check(do_read(&c->server, buffer, sizeof(buffer)), "read");
}

static void scenario_send(struct connection *c)
{
	feed(&c->client, 1);
	feed(&c->client, 63);
	feed(&c->client, 64);
	feed(&c->client, 65);
	drain(&c->server, 193);
	feed(&c->server, 300); /* and the other way */
	drain(&c->client, 300);
}

static void scenario_recv(struct connection *c)
{
	char buffer[400];

	feed(&c->client, 300);
	await_bytes(&c->server, 300);
	for (int length = 20; length <= 140; length += 120)
		check(do_recv(&c->server, buffer, (size_t)length, 0), "recv");
	check(do_recv(&c->server, buffer, sizeof(buffer), 0), "recv");
}

static void scenario_sendto(struct connection *c)
{
	check(do_sendto(&c->client, BUFFER(77), 77), "sendto");
	drain(&c->server, 77);
}

static void scenario_recvfrom(struct connection *c)
{
	char buffer[100];

	feed(&c->client, 88);
	check(do_recvfrom(&c->server, buffer, sizeof(buffer)), "recvfrom");
}

/* Segments of one byte, of none, and longer ones. */
static int cut(struct iovec *iov, char *buffer, const size_t *lengths, int count)
{
	for (int i = 0; i < count; i++) {
		iov[i] = (struct iovec){ buffer, lengths[i] };
		buffer += lengths[i];
	}
	return count;
}

static const size_t with_empty[] = { 0, 30, 0, 0, 1, 45, 0 }; /* 76 bytes */
static const size_t three[] = { 1, 100, 33 };                  /* 134 bytes */

static void scenario_sendmsg(struct connection *c)
{
	struct iovec iov[7];

	check(do_sendmsg(&c->client, iov, cut(iov, BUFFER(76), with_empty, 7), 0), "sendmsg");
	check(do_sendmsg(&c->client, iov, cut(iov, BUFFER(134), three, 1), 0), "sendmsg");
	drain(&c->server, 77);
}

static void scenario_recvmsg(struct connection *c)
{
	char buffer[400];
	struct iovec iov[7];

	feed(&c->client, 200);
	await_bytes(&c->server, 200);
	check(do_recvmsg(&c->server, iov, cut(iov, buffer, with_empty, 7), 0), "recvmsg");
	check(do_recvmsg(&c->server, iov, cut(iov, buffer, three, 3), 0), "recvmsg"); /* partly filled */
}

static void scenario_writev(struct connection *c)
{
	struct iovec iov[7];

	check(do_writev(&c->client, iov, cut(iov, BUFFER(134), three, 3)), "writev");
	check(do_writev(&c->client, iov, cut(iov, BUFFER(76), with_empty, 7)), "writev");
	drain(&c->server, 210);
}

/* 70 segments: single bytes, then ever longer ones. */
static size_t cut_70(struct iovec *iov, char *buffer)
{
	size_t lengths[70], total = 0;

	for (int i = 0; i < 70; i++)
		total += lengths[i] = i < 30 ? 1 : (size_t)i;
	cut(iov, buffer, lengths, 70);
	return total;
}

static void scenario_writev_70(struct connection *c)
{
	char buffer[4096];
	struct iovec iov[70];
	size_t total = cut_70(iov, pattern(buffer, sizeof(buffer)));

	check(do_writev(&c->client, iov, 70), "writev");
	drain(&c->server, total);
}

static void scenario_readv(struct connection *c)
{
	char buffer[400];
	struct iovec iov[7];

	feed(&c->client, 210);
	await_bytes(&c->server, 210);
	check(do_readv(&c->server, iov, cut(iov, buffer, three, 3)), "readv");
	check(do_readv(&c->server, iov, cut(iov, buffer, with_empty, 7)), "readv");
}

static void scenario_readv_70(struct connection *c)
{
	char buffer[4096];
	struct iovec iov[70];
	size_t total = cut_70(iov, buffer);

	feed(&c->client, total);
	await_bytes(&c->server, (int)total);
	check(do_readv(&c->server, iov, 70), "readv");
}

static void scenario_pwritev2(struct connection *c)
{
	struct iovec iov[3];

	check(do_pwritev2(&c->client, iov, cut(iov, BUFFER(134), three, 3)), "pwritev2");
	drain(&c->server, 134);
}

static void scenario_preadv2(struct connection *c)
{
	char buffer[200];
	struct iovec iov[3];

	feed(&c->client, 134);
	check(do_preadv2(&c->server, iov, cut(iov, buffer, three, 3)), "preadv2");
}

static void scenario_sendmmsg(struct connection *c)
{
	struct iovec iov[11];
	struct mmsghdr messages[3];

	memset(messages, 0, sizeof(messages));
	messages[0].msg_hdr = message_of(iov, cut(iov, BUFFER(134), three, 3));
	messages[1].msg_hdr = message_of(iov + 3, cut(iov + 3, BUFFER(76), with_empty, 7));
	messages[2].msg_hdr = message_of(iov + 10, 1);
	iov[10] = (struct iovec){ BUFFER(500), 500 };
	if (do_sendmmsg(&c->client, messages, 3) != 3)
		die("sendmmsg: fewer than 3");
	drain(&c->server, 710);
}

/* Twice with the same arguments, the second time with bytes for two messages only. */
static void scenario_recvmmsg(struct connection *c)
{
	char buffer[3][40];
	struct iovec iov[3];
	struct mmsghdr messages[3];

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < 3; i++) {
		iov[i] = (struct iovec){ buffer[i], sizeof(buffer[i]) };
		messages[i].msg_hdr = message_of(&iov[i], 1);
	}
	feed(&c->client, 120);
	await_bytes(&c->server, 120);
	if (do_recvmmsg(&c->server, messages, 3, MSG_DONTWAIT) != 3)
		die("recvmmsg: fewer than 3");
	feed(&c->client, 70);
	await_bytes(&c->server, 70);
	if (do_recvmmsg(&c->server, messages, 3, MSG_DONTWAIT) != 2)
		die("recvmmsg: not 2");
}

/* ---- flags ---- */

static void scenario_peek(struct connection *c)
{
	char buffer[100];
	struct iovec iov[3];

	feed(&c->client, 90);
	await_bytes(&c->server, 90);
	check(do_recv(&c->server, buffer, 30, MSG_PEEK), "recv");
	check(do_recvmsg(&c->server, iov, cut(iov, buffer, (size_t[]){ 1, 50, 9 }, 3), MSG_PEEK), "recvmsg");
	check(do_recv(&c->server, buffer, sizeof(buffer), 0), "recv");
}

static void *send_when_read(void *argument)
{
	struct connection *c = argument;
	int queued = 1;

	prctl(PR_SET_NAME, "second half");
	while (queued)
		check(ioctl(c->server.fd, FIONREAD, &queued), "FIONREAD");
	feed(&c->client, 60);
	return NULL;
}

static void scenario_waitall(struct connection *c)
{
	char buffer[100];
	pthread_t thread;

	feed(&c->client, 40);
	await_bytes(&c->server, 40);
	check(-pthread_create(&thread, NULL, send_when_read, c), "pthread_create");
	check(do_recv(&c->server, buffer, 100, MSG_WAITALL), "recv");
	pthread_join(thread, NULL);
}

/* TCP throws away what MSG_TRUNC asks for: the buffer stays as it was. */
static void scenario_trunc(struct connection *c)
{
	char buffer[100] = "never overwritten";
	struct call call = call_of("recv", &c->server, true, NULL, 0);

	feed(&c->client, 90);
	await_bytes(&c->server, 90);
	call.requested = 60;
	call.path = "discarded";
	truth(&call, check(recv(c->server.fd, buffer, 60, MSG_TRUNC), "recv"), 0);
	drain(&c->server, 30);
}

static void await_zerocopy(const struct end *end)
{
	struct pollfd poller = { .fd = end->fd };
	char control[128];
	struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct sock_extended_err *error;

	check(poll(&poller, 1, 5000), "poll");
	check(recvmsg(end->fd, &message, MSG_ERRQUEUE), "recvmsg");
	if (!CMSG_FIRSTHDR(&message))
		die("no control message in the error queue");
	error = (struct sock_extended_err *)CMSG_DATA(CMSG_FIRSTHDR(&message));
	if (error->ee_origin != SO_EE_ORIGIN_ZEROCOPY)
		die("not the zero-copy notice");
}

static void scenario_zerocopy(struct connection *c)
{
	char buffer[3000];
	int on = 1;

	check(setsockopt(c->client.fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), "SO_ZEROCOPY");
	check(do_send(&c->client, pattern(buffer, sizeof(buffer)), sizeof(buffer), MSG_ZEROCOPY), "send");
	drain(&c->server, sizeof(buffer));
	await_zerocopy(&c->client);
}

/* ---- little, nothing and failure ---- */

static void scenario_nonblocking(struct connection *c)
{
	char buffer[20];

	if (do_recv(&c->server, buffer, sizeof(buffer), MSG_DONTWAIT) >= 0)
		die("bytes out of nowhere");
	feed(&c->client, 10);
	await_bytes(&c->server, 10);
	check(fcntl(c->server.fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	check(do_read(&c->server, buffer, sizeof(buffer)), "read");
	if (do_read(&c->server, buffer, sizeof(buffer)) >= 0)
		die("bytes out of nowhere");
}

static void scenario_partial_write(struct connection *c)
{
	static char buffer[400000];
	int little = 4096;
	ssize_t sent;

	check(setsockopt(c->client.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), "SO_SNDBUF");
	check(fcntl(c->client.fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	pattern(buffer, sizeof(buffer));
	sent = check(do_write(&c->client, buffer, sizeof(buffer)), "write");
	if (sent == sizeof(buffer))
		die("not partial");
	drain(&c->server, (size_t)sent);
}

static void scenario_eof(struct connection *c)
{
	char buffer[20];

	feed(&c->client, 10);
	check(shutdown(c->client.fd, SHUT_WR), "shutdown");
	drain(&c->server, 10);
	if (do_recv(&c->server, buffer, sizeof(buffer), 0) != 0)
		die("no end of file");
}

static void reset_by(const struct end *from, const struct end *to)
{
	struct linger now = { .l_onoff = 1 };
	struct pollfd poller = { .fd = to->fd, .events = POLLIN };

	check(setsockopt(from->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), "SO_LINGER");
	check(close(from->fd), "close");
	check(poll(&poller, 1, 5000), "poll");
}

static void scenario_reset(struct connection *c)
{
	char buffer[20];

	feed(&c->client, 10);
	drain(&c->server, 10);
	reset_by(&c->server, &c->client);
	if (do_recv(&c->client, buffer, sizeof(buffer), 0) >= 0 || errno != ECONNRESET)
		die("no ECONNRESET");
	if (do_send(&c->client, BUFFER(30), 30, 0) >= 0 || errno != EPIPE)
		die("no EPIPE");
}

/* The accepted end has no port of its own: the kernel forgets its number (inet_num) with the reset. */
static void scenario_reset_accepted(struct connection *c)
{
	char buffer[20];

	feed(&c->client, 10);
	drain(&c->server, 10);
	reset_by(&c->client, &c->server);
	if (do_recv(&c->server, buffer, sizeof(buffer), 0) >= 0 || errno != ECONNRESET)
		die("no ECONNRESET");
}

/* ---- bytes that are not in the caller's own buffer ---- */

static int file_of(size_t length)
{
	int fd = (int)check(syscall(SYS_memfd_create, "payload", 0), "memfd_create");
	char *buffer = malloc(length);

	check(write(fd, pattern(buffer, length), length), "write");
	free(buffer);
	return fd;
}

static ssize_t log_spliced(const char *name, const struct end *end, size_t requested, const void *bytes, ssize_t result)
{
	struct iovec iov = { (void *)bytes, requested };
	struct call call = call_of(name, end, false, &iov, 1);

	call.path = "spliced";
	return truth(&call, check(result, name), 0);
}

static void scenario_sendfile(struct connection *c)
{
	int fd = file_of(700);
	char buffer[700];
	off_t start = 0;

	check(pread(fd, buffer, sizeof(buffer), 0), "pread");
	log_spliced("sendfile", &c->client, sizeof(buffer), buffer, sendfile(c->client.fd, fd, &start, sizeof(buffer)));
	drain(&c->server, sizeof(buffer));
	close(fd);
}

static void scenario_splice(struct connection *c)
{
	char buffer[600];
	int ends[2];

	check(pipe(ends), "pipe");
	check(write(ends[1], pattern(buffer, sizeof(buffer)), sizeof(buffer)), "write");
	log_spliced("splice", &c->client, sizeof(buffer), buffer,
		    splice(ends[0], NULL, c->client.fd, NULL, sizeof(buffer), 0));
	drain(&c->server, sizeof(buffer));
	close(ends[0]);
	close(ends[1]);
}

/* The page is in the page cache, but not in our page table when the call begins. */
static void scenario_cold_page(struct connection *c)
{
	int fd = file_of(4096);
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	struct iovec iov = { page, 150 };
	struct call call = call_of("send", &c->client, false, &iov, 1);

	if (page == MAP_FAILED)
		die("mmap");
	call.path = "cold";
	truth(&call, check(send(c->client.fd, page, 150, 0), "send"), 0);
	drain(&c->server, 150);
	munmap(page, 4096);
	close(fd);
}

static void log_uring(struct uring *ring, const char *name, uint8_t opcode, const struct end *end, struct iovec *iov,
		      bool by_message)
{
	struct msghdr message = message_of(iov, 1);
	struct call call = call_of(name, end, opcode != IORING_OP_SEND && opcode != IORING_OP_WRITE &&
					      opcode != IORING_OP_SENDMSG, iov, 1);
	int result = by_message ? uring_do(ring, opcode, end->fd, &message, 1) :
				  uring_do(ring, opcode, end->fd, iov->iov_base, (unsigned)iov->iov_len);

	errno = -result;
	call.path = "io_uring";
	truth(&call, check(result < 0 ? -1 : result, name), 0);
}

static void scenario_io_uring(struct connection *c)
{
	char buffer[200];
	struct iovec in = { buffer, sizeof(buffer) }, out = { pattern((char[150]){ 0 }, 150), 150 };
	struct uring ring;

	if (!uring_open(&ring)) {
		fprintf(stderr, "unsupported io_uring: %s\n", strerror(errno));
		return;
	}
	log_uring(&ring, "IORING_OP_SEND", IORING_OP_SEND, &c->client, &out, false);
	log_uring(&ring, "IORING_OP_RECV", IORING_OP_RECV, &c->server, &in, false);
	log_uring(&ring, "IORING_OP_SENDMSG", IORING_OP_SENDMSG, &c->client, &out, true);
	log_uring(&ring, "IORING_OP_RECVMSG", IORING_OP_RECVMSG, &c->server, &in, true);
	log_uring(&ring, "IORING_OP_WRITE", IORING_OP_WRITE, &c->client, &out, false);
	log_uring(&ring, "IORING_OP_READ", IORING_OP_READ, &c->server, &in, false);
	close(ring.fd);
}

/* ---- who calls ---- */

static void scenario_fork(struct connection *c)
{
	pid_t child;
	int status;

	feed(&c->client, 20);
	child = (pid_t)check(fork(), "fork");
	if (!child) {
		prctl(PR_SET_NAME, "child");
		feed(&c->client, 40);
		_exit(0);
	}
	check(waitpid(child, &status, 0), "waitpid");
	feed(&c->client, 30);
	drain(&c->server, 90);
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void *send_in_turn(void *argument)
{
	struct connection *c = argument;

	prctl(PR_SET_NAME, "thread");
	for (int i = 0; i < 5; i++) {
		pthread_mutex_lock(&turn);
		feed(&c->client, 25);
		pthread_mutex_unlock(&turn);
	}
	return NULL;
}

static void scenario_threads(struct connection *c)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		check(-pthread_create(&threads[i], NULL, send_in_turn, c), "pthread_create");
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	drain(&c->server, 250);
}

/* exec() and prctl() change a thread's name while its sockets live on. */
static void scenario_rename(struct connection *c)
{
	feed(&c->client, 15);
	check(prctl(PR_SET_NAME, "renamed"), "PR_SET_NAME");
	feed(&c->client, 16);
	check(prctl(PR_SET_NAME, "workload"), "PR_SET_NAME");
	drain(&c->server, 31);
}

union descriptor_message {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

static void pass(int channel, int fd)
{
	struct iovec iov = { "x", 1 };
	union descriptor_message control = { { 0 } };
	struct msghdr message = message_of(&iov, 1);

	message.msg_control = &control;
	message.msg_controllen = sizeof(control.space);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	check(sendmsg(channel, &message, 0), "sendmsg");
}

static int take(int channel)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	union descriptor_message control = { { 0 } };
	struct msghdr message = message_of(&iov, 1);
	int fd;

	message.msg_control = &control;
	message.msg_controllen = sizeof(control.space);
	check(recvmsg(channel, &message, 0), "recvmsg");
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* The child closes what fork() gave it and sends on what the parent passes. */
static void scenario_passed(struct connection *c)
{
	int channel[2], status;
	pid_t child;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, channel), "socketpair");
	child = (pid_t)check(fork(), "fork");
	if (!child) {
		struct end mine = c->client;
		prctl(PR_SET_NAME, "receiver");
		close(c->client.fd);
		mine.fd = take(channel[1]);
		feed(&mine, 55);
		_exit(0);
	}
	pass(channel[0], c->client.fd);
	check(waitpid(child, &status, 0), "waitpid");
	drain(&c->server, 55);
	close(channel[0]);
	close(channel[1]);
}

/* ---- size and content ---- */

static void scenario_large(struct connection *c)
{
	feed(&c->client, 20000);
	feed(&c->client, 16384);
	drain(&c->server, 36384);
}

static void scenario_all_bytes(struct connection *c)
{
	char buffer[256];

	for (int i = 0; i < 256; i++)
		buffer[i] = (char)i;
	check(do_send(&c->client, buffer, 256, 0), "send");
	check(do_send(&c->client, "\0\0\0\0", 4, 0), "send");
	check(do_send(&c->client, "\x1b[31m\xff\xfe\r\n\t\x7f", 12, 0), "send");
	drain(&c->server, 272);
}

static void scenario_no_bytes(struct connection *c)
{
	check(do_send(&c->client, "", 0, 0), "send");
	feed(&c->client, 5);
	drain(&c->server, 5);
}

#ifdef SYS_socketcall
/* What musl does not use on i386: send and recv of socketcall(), and the direct system calls. */
static void scenario_i386(struct connection *c)
{
	char out[60], buffer[100];
	struct iovec iov = { out, sizeof(out) }, in = { buffer, sizeof(buffer) };
	struct msghdr message = message_of(&iov, 1), taken = message_of(&in, 1);
	const struct end *from = &c->client, *to = &c->server;

	pattern(out, sizeof(out));
	LOGGED("socketcall send", from, false, out, 60, 0,
	       syscall(SYS_socketcall, 9, (long[]){ from->fd, (long)out, 60, 0 }));
	LOGGED("socketcall recv", to, true, buffer, 100, 0,
	       syscall(SYS_socketcall, 10, (long[]){ to->fd, (long)buffer, 100, 0 }));
	pattern(out, sizeof(out));
	LOGGED("sendto", from, false, out, 60, 0, syscall(SYS_sendto, from->fd, out, 60, 0, NULL, 0));
	LOGGED("recvfrom", to, true, buffer, 100, 0, syscall(SYS_recvfrom, to->fd, buffer, 100, 0, NULL, NULL));
	pattern(out, sizeof(out));
	LOGGED("sendmsg", from, false, out, 60, 0, syscall(SYS_sendmsg, from->fd, &message, 0));
	LOGGED("recvmsg", to, true, buffer, 100, 0, syscall(SYS_recvmsg, to->fd, &taken, 0));
}
#endif

struct scenario {
	const char *name;
	void (*run)(struct connection *c);
};

#define SCENARIO(NAME) { #NAME, scenario_##NAME }

static const struct scenario scenarios[] = {
	SCENARIO(write), SCENARIO(read), SCENARIO(send), SCENARIO(recv), SCENARIO(sendto), SCENARIO(recvfrom),
	SCENARIO(sendmsg), SCENARIO(recvmsg), SCENARIO(writev), SCENARIO(readv), SCENARIO(writev_70),
	SCENARIO(readv_70), SCENARIO(pwritev2), SCENARIO(preadv2), SCENARIO(sendmmsg), SCENARIO(recvmmsg),
	SCENARIO(peek), SCENARIO(waitall), SCENARIO(trunc), SCENARIO(zerocopy), SCENARIO(nonblocking),
	SCENARIO(partial_write), SCENARIO(eof), SCENARIO(reset), SCENARIO(reset_accepted), SCENARIO(sendfile),
	SCENARIO(splice), SCENARIO(cold_page), SCENARIO(io_uring), SCENARIO(fork), SCENARIO(threads),
	SCENARIO(rename), SCENARIO(passed), SCENARIO(large), SCENARIO(all_bytes), SCENARIO(no_bytes),
#ifdef SYS_socketcall
	SCENARIO(i386),
#endif
};

/* ---- connections ---- */

static socklen_t address(struct sockaddr_storage *out, const char *family, int port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (!strcmp(family, "4")) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		inet_pton(AF_INET, "127.0.0.1", &in->sin_addr);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	inet_pton(AF_INET6, strcmp(family, "6") ? "::ffff:127.0.0.1" : "::1", &in6->sin6_addr);
	return sizeof(*in6);
}

static int bound(const char *family, int port)
{
	struct sockaddr_storage at;
	socklen_t length = address(&at, family, port);
	int fd = (int)check(socket(at.ss_family, SOCK_STREAM, 0), "socket"), on = 1;

	check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
	check(bind(fd, (struct sockaddr *)&at, length), "bind");
	return fd;
}

static struct connection connected(const char *family, int port)
{
	struct sockaddr_storage at;
	socklen_t length = address(&at, family, port);
	int listener = bound(family, port), client = bound(family, port + 1);

	check(listen(listener, 1), "listen");
	check(connect(client, (struct sockaddr *)&at, length), "connect");
	struct connection c = {
		.client = { client, (uint16_t)(port + 1), (uint16_t)port },
		.server = { (int)check(accept(listener, NULL, NULL), "accept"), (uint16_t)port, (uint16_t)(port + 1) },
	};
	close(listener);
	return c;
}

static bool wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (!strcmp(name, *names))
			return true;
	return false;
}

static void run_calls(const char *family, int base_port, char **names)
{
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
		if (!wanted(scenarios[i].name, names))
			continue;
		scenario_name = scenarios[i].name;
		struct connection c = connected(family, base_port + 2 * (int)i);
		scenarios[i].run(&c);
		close(c.client.fd);
		close(c.server.fd);
	}
}

static void flood(int base_port, long count, size_t size)
{
	struct connection c = connected("4", base_port);
	char *buffer = malloc(size);

	pattern(buffer, size);
	for (long i = 0; i < count; i++) {
		check(send(c.client.fd, buffer, size, 0), "send");
		if (recv(c.server.fd, buffer, size, MSG_WAITALL) != (ssize_t)size)
			die("recv");
	}
}

int main(int argc, char **argv)
{
	if (argc > 4 && !strcmp(argv[1], "calls")) {
		truth_fd = (int)check(open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644), argv[2]);
		run_calls(argv[3], atoi(argv[4]), argv + 5);
	} else if (argc == 5 && !strcmp(argv[1], "flood")) {
		flood(atoi(argv[2]), atol(argv[3]), (size_t)atol(argv[4]));
	} else if (argc == 2 && !strcmp(argv[1], "list")) {
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
			puts(scenarios[i].name);
	} else {
		fprintf(stderr, "usage: workload calls LOG 4|6|mapped PORT [SCENARIO...] | flood PORT COUNT SIZE | list\n");
		return 2;
	}
	return 0;
}
