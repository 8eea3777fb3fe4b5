/*
 * Traffic over loopback, and the truth about it.
 *
 *     load NAME SECONDS PORT MESSAGE_BYTES [EVENTS_A_SECOND]
 *
 * A client process and a server process, both on the CPUs they are given. The end prints one line:
 * operations, seconds, seconds of CPU, sends, receives. Every call that returned is counted, so
 * that a monitor's account can be held against it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BULK (128 << 10)
#define CONNECTIONS 200
#define TICK_NS 1000000
#define LOOKS_AT_CLOCK 64 /* operations between two */

struct counts {
	unsigned long operations, sends, receives;
};

struct shared {
	struct counts client, server;
};

static struct shared *shared;
static struct counts *mine;
static struct sockaddr_in address = { .sin_family = AF_INET };
static double deadline;
static unsigned long rate; /* a second: messages of a flood (sends and receives), connections; 0: no limit */
static size_t message_bytes;
static char buffer[BULK];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static int expired(unsigned long operations)
{
	return operations % LOOKS_AT_CLOCK == 0 && now() >= deadline;
}

static void put(int connection, size_t size)
{
	if (send(connection, buffer, size, 0) != (ssize_t)size)
		fail("send");
	mine->sends++;
}

/* What one call brought; 0 at the end of the stream. */
static ssize_t take(int connection, size_t size)
{
	ssize_t result = recv(connection, buffer, size, 0);

	if (result < 0)
		fail("recv");
	mine->receives++;
	return result;
}

static void set(int socket, int level, int option)
{
	int one = 1;

	if (setsockopt(socket, level, option, &one, sizeof(one)))
		fail("setsockopt");
}

static int listen_here(void)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	set(listener, SOL_SOCKET, SO_REUSEADDR);
	if (bind(listener, (void *)&address, sizeof(address)) || listen(listener, CONNECTIONS))
		fail("listen");
	return listener;
}

static int connect_there(void)
{
	int connection = socket(AF_INET, SOCK_STREAM, 0);

	if (connection < 0 || connect(connection, (void *)&address, sizeof(address)))
		fail("connect");
	return connection;
}

static int accept_one(int listener)
{
	int connection = accept(listener, NULL, NULL);

	if (connection < 0)
		fail("accept");
	return connection;
}

static void stream_client(size_t size)
{
	int connection = connect_there();

	for (unsigned long i = 1; !expired(i); i++)
		put(connection, size);
	close(connection);
}

static void stream_server(int listener, size_t size, unsigned long unit)
{
	int connection = accept_one(listener);
	unsigned long bytes = 0;
	ssize_t result;

	while ((result = take(connection, size)) > 0)
		bytes += result;
	mine->operations = bytes / unit;
}

/* Operations are mebibytes. */
static void bulk_client(void)
{
	stream_client(BULK);
}

static void bulk_server(int listener)
{
	stream_server(listener, BULK, 1 << 20);
}

static void wait_for_tick(struct timespec *next)
{
	next->tv_nsec += TICK_NS;
	if (next->tv_nsec >= 1000000000) {
		next->tv_nsec -= 1000000000;
		next->tv_sec++;
	}
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
}

/* Operations are messages; half of the events are sends, half receives. */
static void paced_client(void)
{
	unsigned long burst = rate / 2 / (1000000000 / TICK_NS);
	int connection = connect_there();
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	while (now() < deadline) {
		for (unsigned long i = 0; i < burst; i++)
			put(connection, message_bytes);
		wait_for_tick(&next);
	}
	close(connection);
}

static void flood_client(void)
{
	if (rate)
		paced_client();
	else
		stream_client(message_bytes);
}

static void flood_server(int listener)
{
	stream_server(listener, message_bytes, message_bytes);
}

static void pingpong_client(void)
{
	int connection = connect_there();

	set(connection, IPPROTO_TCP, TCP_NODELAY);
	for (unsigned long i = 1; !expired(i); i++) {
		put(connection, message_bytes);
		take(connection, message_bytes);
		mine->operations++;
	}
	close(connection);
}

static void pingpong_server(int listener)
{
	int connection = accept_one(listener);

	set(connection, IPPROTO_TCP, TCP_NODELAY);
	while (take(connection, message_bytes))
		put(connection, message_bytes);
}

/* The server closes first, so that no client port has to wait. */
static void connect_client(void)
{
	unsigned long burst = rate / (1000000000 / TICK_NS);
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (unsigned long i = 1; !expired(i); i++) {
		if (burst && i % burst == 0)
			wait_for_tick(&next);
		int connection = connect_there();

		while (take(connection, message_bytes))
			;
		close(connection);
		mine->operations++;
	}
}

static void connect_server(int listener)
{
	for (;;)
		close(accept_one(listener));
}

static int watch(int poll, int connection)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = connection };

	set(connection, IPPROTO_TCP, TCP_NODELAY);
	if (epoll_ctl(poll, EPOLL_CTL_ADD, connection, &event))
		fail("epoll_ctl");
	return connection;
}

static int ready(int poll, struct epoll_event *events)
{
	int count = epoll_wait(poll, events, CONNECTIONS, -1);

	if (count < 0)
		fail("epoll_wait");
	return count;
}

static void many_client(void)
{
	struct epoll_event events[CONNECTIONS];
	int poll = epoll_create1(0);

	for (int i = 0; i < CONNECTIONS; i++)
		put(watch(poll, connect_there()), message_bytes);
	while (now() < deadline) {
		int count = ready(poll, events);

		for (int i = 0; i < count; i++) {
			take(events[i].data.fd, message_bytes);
			put(events[i].data.fd, message_bytes);
			mine->operations++;
		}
	}
}

static void many_server(int listener)
{
	struct epoll_event events[CONNECTIONS];
	int poll = epoll_create1(0);

	for (int i = 0; i < CONNECTIONS; i++)
		watch(poll, accept_one(listener));
	for (;;) {
		int count = ready(poll, events);

		for (int i = 0; i < count; i++) {
			take(events[i].data.fd, message_bytes);
			put(events[i].data.fd, message_bytes);
		}
	}
}

static const struct load {
	const char *name;
	void (*client)(void);
	void (*server)(int listener);
	int ends; /* the server does, when the client has */
} loads[] = {
	{ "bulk", bulk_client, bulk_server, 1 },
	{ "pingpong", pingpong_client, pingpong_server, 1 },
	{ "connect", connect_client, connect_server, 0 },
	{ "many", many_client, many_server, 0 },
	{ "flood", flood_client, flood_server, 1 },
};

static const struct load *find(const char *name)
{
	for (size_t i = 0; i < sizeof(loads) / sizeof(*loads); i++)
		if (!strcmp(loads[i].name, name))
			return &loads[i];
	fprintf(stderr, "no such load: %s\n", name);
	exit(2);
}

static double cpu_seconds(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static pid_t start_server(const struct load *load, int listener)
{
	pid_t server = fork();

	if (server < 0)
		fail("fork");
	if (server)
		return server;
	mine = &shared->server;
	load->server(listener);
	_exit(0);
}

/* A server that knows no end is killed while it waits, with nothing left to count. */
static void end_server(const struct load *load, pid_t server)
{
	int status;

	if (!load->ends)
		kill(server, SIGKILL);
	if (waitpid(server, &status, 0) < 0 || (load->ends && status))
		fail("server");
}

int main(int argc, char **argv)
{
	const struct load *load;
	double start, seconds;
	pid_t server;

	if (argc < 5)
		return 2;
	load = find(argv[1]);
	message_bytes = strtoul(argv[4], NULL, 10);
	if (message_bytes > BULK)
		return 2;
	rate = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
	address.sin_port = htons(atoi(argv[3]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	mine = &shared->client;
	server = start_server(load, listen_here());
	start = now();
	deadline = start + atof(argv[2]);
	load->client();
	seconds = now() - start;
	end_server(load, server);
	if (load->ends)
		seconds = now() - start;
	printf("%lu %f %f %lu %lu\n", shared->client.operations + shared->server.operations, seconds,
	       cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN),
	       shared->client.sends + shared->server.sends, shared->client.receives + shared->server.receives);
	return 0;
}
