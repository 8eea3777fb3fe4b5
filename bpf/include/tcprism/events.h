/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The wire contract: every record that crosses from the kernel to user space, and nothing else.
 * Python's dtypes, column names and docs/events.md are generated from the BTF of these types,
 * DOC() texts included (tools/generate_wire.py), so a fact about a field is written here once.
 */
#ifndef TCPRISM_EVENTS_H
#define TCPRISM_EVENTS_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;

/* A decl tag lives in BTF (LLVM 14+); libbpf hides it from kernels older than 5.16. */
#define DOC(text) __attribute__((btf_decl_tag(text)))

#define COMM_LENGTH 16 /* TASK_COMM_LEN */

enum event_kind {
	KIND_SEND = 0,
	KIND_RECV = 1,
	KIND_TRANSMIT = 2,
	KIND_RETRANSMIT = 3,
	KIND_COUNT = 4,
};

/* What every event has, first in each record. */
struct event {
	u64 ts_ns DOC("when the hook fired, CLOCK_MONOTONIC, nanoseconds: for a message, as its call returned");
	u64 socket DOC("socket cookie; null when this kernel gives the hook none");
	u64 cgroup_id DOC("cgroup v2 id of the process");
	u32 pid DOC("process id (tgid) in the initial pid namespace; null when the owner is unknown");
	u32 tid DOC("thread id in the initial pid namespace; null when the owner is unknown");
	u32 uid DOC("real user id in the initial user namespace");
	u32 netns DOC("inode of the socket's network namespace");
	char comm[COMM_LENGTH] DOC("the thread's name (task->comm)");
	u8 local_ip[16] DOC("local address; an IPv4-mapped one shows as IPv4");
	u8 remote_ip[16] DOC("remote address; an IPv4-mapped one shows as IPv4");
	u16 local_port DOC("local port");
	u16 remote_port DOC("remote port");
	u8 kind DOC("send, recv, transmit or retransmit");
	u8 family DOC("4 or 6: what the packets are, whatever the socket is");
	u16 flags DOC("messages: PEEK, ZEROCOPY; segments: the TCP header's flags");
	u32 bytes DOC("messages: bytes sent or received; segments: TCP payload bytes");
	u32 seq DOC("sequence number of the first byte; null when the hook cannot prove it");
	s32 error DOC("the call's or the attempt's errno as a name; null when it succeeded");
};

/* Bits of event.flags of a message. */
enum message_flag {
	MESSAGE_PEEK = 1,
	MESSAGE_ZEROCOPY = 2,
	MESSAGE_SEQ_UNKNOWN = 0x8000,
};

/* Why a message with bytes has no payload though payload was asked for. */
enum payload_reason {
	PAYLOAD_AVAILABLE = 0,
	PAYLOAD_SPLICED = 1,   /* sendfile, splice, MSG_SPLICE_PAGES: pages, no user buffer */
	PAYLOAD_KERNEL = 2,    /* sent or received by the kernel itself (NFS, iSCSI, ...) */
	PAYLOAD_IO_URING = 3,  /* the tracepoint hook cannot see io_uring's buffers */
	PAYLOAD_FAULT = 4,     /* the user page was not resident when it was read */
	PAYLOAD_DISCARDED = 5, /* MSG_TRUNC: TCP threw the bytes away */
	PAYLOAD_SYSCALL = 6,   /* a system call whose arguments the hook does not know */
};

#define DURATION_UNKNOWN 0xffffffffffffffffULL
#define REQUESTED_UNKNOWN 0xffffffffU

/* A process called into TCP. Its payload, if any, follows in the record. */
struct message {
	struct event event;
	u32 requested DOC("bytes the caller asked for; null when the hook cannot tell");
	u64 duration_ns DOC("time inside the call, nanoseconds; null when the hook cannot tell");
	u32 payload_length DOC("bytes of payload captured");
	u8 payload_unavailable DOC("why there is no payload (spliced, kernel, io_uring, fault, discarded, syscall), or null");
	u8 reserved[3];
};

#define SRTT_UNKNOWN 0xffffffffU
#define CA_STATE_UNKNOWN 0xff

/* TCP handed a segment to IP. With GSO one record stands for `segs` segments. */
struct segment {
	struct event event;
	u32 end_seq DOC("sequence number after the last byte, SYN and FIN counted");
	u32 ack DOC("acknowledgement number");
	u32 window DOC("window as in the TCP header, unscaled; null when the hook cannot tell");
	u32 cwnd DOC("congestion window, segments; null when the socket has none");
	u32 srtt_us DOC("smoothed round-trip time, microseconds; null before the first measurement");
	u32 packets_out DOC("segments in flight before this one, as the kernel counts them");
	u16 segs DOC("segments on the wire (GSO)");
	u8 ca_state DOC("congestion state: Open, Disorder, CWR, Recovery, Loss");
	u8 reserved[5];
};

#define WINDOW_UNKNOWN 0xffffffffU

/* Payload bytes a record can hold: one ring a class, so that records of a ring have one size. */
#define PAYLOAD_CLASSES(X) X(64) X(256) X(1024) X(2048) X(4096) X(16384)
#define PAYLOAD_MAX 16384

/* The ledger: per CPU and kind. seen = filtered + submitted + ring_full + map_full. */
struct counters {
	u64 seen DOC("events that reached the hook");
	u64 filtered DOC("dropped by the filters");
	u64 submitted DOC("written to a ring");
	u64 ring_full DOC("lost: the ring was full (--ring-size)");
	u64 map_full DOC("lost: no memory or no room to remember the call");
	u64 payload_cut DOC("payload bytes not captured: longer than --payload");
};

#define PORT_WORDS 1024 /* 65536 bits */
#define PIDS_A_ROW 64
#define PID_ROWS 65536 /* PID_MAX_LIMIT is 4194304, include/linux/threads.h */
#define CGROUPS_MAX 16
#define COMMS_MAX 256
#define NETNS_MAX 1024
#define PREFIXES_MAX 4096

/* What user space asks for; read-only once loaded, so that the verifier removes what is off. */
struct config {
	u32 kinds; /* bit mask of event_kind */
	u32 self_pid; /* 0: trace everybody */
	u32 payload_limit;
	u8 track_owner; /* segments want to know whose socket it is */
	u8 by_pid;
	u8 by_comm;
	u8 by_netns;
	u8 by_host;
	u8 by_remote_host;
	u8 by_port;
	u8 by_local_port;
	u8 by_remote_port;
	u8 family; /* 4, 6 or 0 for both */
	u8 cgroups; /* entries of the cgroup array */
	u8 local_storage; /* the kernel has socket and task storage for tracing programs */
	u8 recvmsg_arguments; /* parameters of tcp_recvmsg() in this kernel */
	u8 reserved[3];
	u64 port[PORT_WORDS];
	u64 local_port[PORT_WORDS];
	u64 remote_port[PORT_WORDS];
};

#endif
