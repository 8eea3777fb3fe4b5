/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The wire contract: all records that cross from the kernel to user space, and nothing else.
 * Python's dtypes, column names and docs/events.md are generated from the BTF of these types,
 * DOC() texts included (tools/generate_wire.py), so each fact about a field is written once, here.
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
	KIND_ACKED = 2,
	KIND_TRANSMIT = 3,
	KIND_PROBE = 4,
	KIND_RECEIVE = 5,
	KIND_RETRANSMIT = 6,
	KIND_UNDO = 7,
	KIND_DROP = 8,
	KIND_CONNECT = 9,
	KIND_ACCEPT = 10,
	KIND_CLOSE = 11,
	KIND_RESET = 12,
	KIND_STATE = 13,
	KIND_TLS_SEND = 14,
	KIND_TLS_RECV = 15,
	KIND_TRANSLATE = 16,
	KIND_SNAPSHOT = 17, /* no hook: read by an iterator */
	KIND_COUNT = 18,
};

/* How the owner of an event is known. */
enum owner_source {
	OWNER_NONE = 0,     /* unknown */
	OWNER_TASK = 1,     /* seen in process context: it is the caller */
	OWNER_SOCKET = 2,   /* noted at the socket, or at the listener that accepted it */
	OWNER_ITERATOR = 3, /* has the socket open: found at the start */
};

/* The start of every record. */
struct event {
	u64 ts_ns DOC("when the hook fired (for a message: when its call returned), CLOCK_MONOTONIC, nanoseconds");
	u64 socket DOC("socket cookie; null when this kernel does not give the hook one");
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
	u8 kind DOC("what happened");
	u8 owner_source DOC("how the owner is known: task (the caller), socket (its last user), iterator (had it open at the start), none");
	u8 family DOC("4 or 6: the IP version of the packets, whatever the socket's family");
	u8 sampling; /* n: of 2^n connections one is recorded, this one */
	u16 flags DOC("messages: PEEK, ZEROCOPY, ENCRYPTED (inside a call into a TLS library: records of a tls_send, a tls_recv or a handshake); segments: the TCP header's flags");
	u32 bytes DOC("messages, deliveries: bytes sent or received; segments, losses: TCP payload bytes; connections: 0; requests: both ways");
	u32 seq DOC("sequence number of the first byte; null when the hook cannot tell, as for urgent data or when another thread uses the socket at the same time");
	s32 error DOC("errno of the call, the attempt or the socket, as a name; null when there is none");
	u32 scope_id DOC("interface index of link-local addresses, in the network namespace; null for other addresses");
};

/* Bits of event.flags of a message. */
enum message_flag {
	MESSAGE_PEEK = 1,
	MESSAGE_ZEROCOPY = 2,
	MESSAGE_ENCRYPTED = 4, /* inside a call into a TLS library */
	MESSAGE_SEQ_UNKNOWN = 0x8000,
};

/* Why a message with bytes has no payload though payload was asked for. */
enum payload_reason {
	PAYLOAD_AVAILABLE = 0,
	PAYLOAD_SPLICED = 1,   /* sendfile, splice, MSG_SPLICE_PAGES: pages, no user buffer */
	PAYLOAD_KERNEL = 2,    /* sent or received by the kernel itself (NFS, iSCSI, ...) */
	PAYLOAD_IO_URING = 3,  /* the tracepoint hook cannot see io_uring's buffers */
	PAYLOAD_FAULT = 4,     /* the user page was not resident when it was read */
	PAYLOAD_DISCARDED = 5, /* MSG_TRUNC: TCP discarded the bytes */
	PAYLOAD_SYSCALL = 6,   /* a system call whose arguments the hook does not know */
	PAYLOAD_ENCRYPTED = 7, /* TLS records: their plaintext is in a tls_send or tls_recv */
	PAYLOAD_BODY = 8,      /* in the middle of a body whose length is known: for requests, it is not taken */
};

#define DURATION_UNKNOWN 0xffffffffffffffffULL
#define REQUESTED_UNKNOWN 0xffffffffU
#define BYTES_UNKNOWN 0xffffffffU
#define MICROSECONDS_UNKNOWN 0xffffffffU

/* A process called into TCP. Its payload, if any, follows in the record. */
struct message {
	struct event event;
	u32 requested DOC("bytes the caller asked for; null when the hook cannot tell");
	u32 unread_us DOC("recv: how long its last byte waited in the receive queue, microseconds; null without the kind acked, or when unknown");
	u64 duration_ns DOC("time inside the call, nanoseconds; null when the hook cannot tell");
	u32 payload_length DOC("bytes of payload captured");
	u8 payload_unavailable DOC("why there is no payload (spliced, kernel, io_uring, fault, discarded, syscall, encrypted, body), or null");
	u8 reserved[3];
};

/* How it is known which connection a TLS session uses. */
enum socket_source {
	SOCKET_NONE = 0,       /* it is not */
	SOCKET_CALL = 1,       /* this call into the library called into TCP, with TLS records */
	SOCKET_SESSION = 2,    /* an earlier call of the session did */
	SOCKET_CIPHERTEXT = 3, /* what the session encrypted was sent there */
};

/*
 * A process called into a TLS library. Fields without a text are those of a message. The plaintext, if any is
 * captured, follows in the record.
 */
struct tls_message {
	struct event event;
	u64 session DOC("the library's object of the session (SSL *), an address in the process; of rustls, which moves it, the number of the socket");
	u64 duration_ns;
	u64 stream_offset DOC("bytes of plaintext that the session had moved in this direction before, since tcprism knows its connection");
	u32 requested;
	u32 encrypted_bytes DOC("bytes of the TLS records that carry it, from seq on; 0: those of the call before, or not known");
	u32 payload_length;
	u32 missed_bytes DOC("bytes of TLS records that had moved in this direction by then outside of the calls that are read, so that their plaintext is missing; null if its first records were not seen");
	u8 payload_unavailable;
	u8 socket_source DOC("how the connection of a TLS message is known: call (the call itself used it), session (an earlier call did), ciphertext (its records were sent or received there); none: it is not, the addresses are :: and the ports 0");
	u8 reserved[6];
};

#define CA_STATE_UNKNOWN 0xff

/* Where a segment that arrived stands against what its socket had received and sent by then. */
enum segment_arrival {
	ARRIVAL_UNKNOWN = 0,
	ARRIVAL_IN_ORDER = 1,       /* it begins where the socket goes on, or before that and brings more */
	ARRIVAL_OUT_OF_ORDER = 2,   /* bytes before it have not arrived */
	ARRIVAL_DUPLICATE = 3,      /* all that it carries had arrived */
	ARRIVAL_OLD_SEQUENCE = 4,   /* it carries nothing and begins before that: a keepalive, an ACK that was overtaken */
	ARRIVAL_DUPLICATE_ACK = 5,  /* RFC 5681 */
	ARRIVAL_OLD_ACK = 6,        /* it carries nothing and acknowledges less than is acknowledged already */
	ARRIVAL_OUTSIDE_WINDOW = 7, /* it begins where the receive window ends, or later */
	ARRIVAL_CHECKSUM_ERROR = 8,
	ARRIVAL_NO_SOCKET = 9,
};

/* TCP handed a segment to IP, or IP one to TCP. With GSO and GRO one record stands for `segs` segments. */
struct segment {
	struct event event;
	u32 end_seq DOC("sequence number after the last byte, including SYN and FIN");
	u32 ack DOC("acknowledgement number");
	u32 window DOC("window as in the TCP header, unscaled; null when the hook cannot tell");
	u32 cwnd DOC("congestion window, segments; null when the socket has none");
	u32 srtt_us DOC("smoothed round-trip time, microseconds; null before the first measurement");
	u32 packets_out DOC("segments in flight before this one, as the kernel counts them");
	u16 segs DOC("segments on the wire (GSO, GRO)");
	u8 ca_state DOC("congestion state: Open, Disorder, CWR, Recovery, Loss");
	u8 cause DOC("retransmit: its cause: rto, fast, tlp, syn, syn-ack, unknown; transmit: tlp for a tail loss probe with new data; else null");
	u8 arrival DOC("receive: where it stands against what the socket had received and sent: in_order, out_of_order, duplicate, old_sequence, duplicate_ack, old_ack, outside_window, or checksum_error, no_socket; null when that cannot be told, as in a handshake or while a process or another CPU works on the socket; else null");
	u8 options_length; /* of TCP's options, which follow in the record if they were asked for */
	u16 gso_size; /* payload bytes of each of `segs` but the last; 0: not known, or there is one */
	u32 payload_length; /* of the packet's payload, which follows in the record if it was asked for, behind the options */
	u8 reserved[4];
};

#define OPTIONS_MAX 40 /* bytes of TCP's options: its header has at most 60 */

/* In event.flags of a segment that a packet hook saw, above the flags of its header: */
#define WSCALE_SHIFT 9       /* by how much its window is to be shifted, four bits, */
#define WSCALE_KNOWN 0x2000  /* if this is set */
#define ECN_SHIFT 14         /* and the ECN field of the IP header, two bits */

#define WINDOW_UNKNOWN 0xffffffffU

/* Packets of a connection leave with other ends than its socket has: NAT on this host has rewritten them. */
struct translation {
	struct event event;
	u8 translated_local_ip[16] DOC("source address of the packets that it sends, after all NAT in its network namespace");
	u8 translated_remote_ip[16] DOC("their destination address");
	u16 translated_local_port DOC("their source port");
	u16 translated_remote_port DOC("their destination port");
	u8 reserved[4];
};

/* The last byte of a send has been acknowledged. */
struct delivery {
	struct event event;
	u64 send_ts_ns DOC("ts_ns of the send");
	u32 unsent_us DOC("how long its last byte waited in the send queue after the send returned, microseconds; 0: it left before that; null when unknown");
	u32 unacked_us DOC("time from when its last byte first left until its acknowledgement, microseconds; 0: that came before the send returned; null when unknown");
};

/* Why a segment was retransmitted, or sent early as a probe. */
enum cause {
	CAUSE_NONE = 0,
	CAUSE_RTO = 1,     /* the retransmission timer expired, or recovery from that (state Loss) */
	CAUSE_FAST = 2,    /* recovery: SACK, RACK or duplicate ACKs indicated a loss */
	CAUSE_TLP = 3,     /* tail loss probe, RFC 8985 */
	CAUSE_SYN = 4,
	CAUSE_SYN_ACK = 5,
	CAUSE_UNKNOWN = 6, /* the kernel's state proves none of these */
};

/* A segment was lost or presumed lost: retransmitted, found to be spuriously retransmitted, or dropped here. */
struct loss {
	struct segment segment;
	u32 rto_us DOC("retransmission timeout, microseconds; null when there is no connection yet");
	u32 rttvar_us DOC("mean deviation of the round-trip time, microseconds; null before the first measurement");
	u32 ssthresh DOC("slow start threshold, segments; null while it is infinite");
	u32 sacked_out DOC("segments selectively acknowledged (SACK), or duplicate ACKs");
	u32 lost_out DOC("segments marked lost");
	u32 retrans_out DOC("retransmitted segments in flight before this one");
	u32 undone DOC("undo: how many retransmissions were spurious; else null");
	u32 reason DOC("drop: the kernel's reason as a name; null where the kernel gives none");
	u32 first_seq; /* of the first byte that the connection sends */
	u8 icsk_retransmits DOC("consecutive timeouts of the socket, including this one");
	u8 outgoing DOC("drop: true on its way out, false on its way in; else null");
	u8 first_seq_known;
	u8 reserved;
};

/* What a tcp_sock counts over the life of its connection. */
struct totals {
	u64 bytes_sent DOC("payload bytes sent, including retransmissions (tcp_sock.bytes_sent)");
	u64 bytes_acked DOC("payload bytes that the peer acknowledged, including the SYN (tcp_sock.bytes_acked)");
	u64 bytes_received DOC("payload bytes received in order, including the FIN (tcp_sock.bytes_received)");
	u64 bytes_retrans DOC("payload bytes retransmitted (tcp_sock.bytes_retrans)");
	u64 delivery_rate DOC("latest delivery rate, bytes per second; null when the kernel has not measured it");
	u64 busy_us DOC("time with data to send, microseconds, in steps of the kernel's tick");
	u64 rwnd_limited_us DOC("part of busy_us held up by the peer's receive window");
	u64 sndbuf_limited_us DOC("part of busy_us held up by a small send buffer");
	u32 segs_out DOC("segments sent (tcp_sock.segs_out)");
	u32 segs_in DOC("segments received (tcp_sock.segs_in)");
	u32 data_segs_out DOC("segments with payload sent");
	u32 data_segs_in DOC("segments with payload received");
	u32 total_retrans DOC("segments retransmitted, including SYNs");
	u32 dsack_dups DOC("duplicates that the peer reported (DSACK)");
	u32 reord_seen DOC("reordering events");
	u32 min_rtt_us DOC("minimum recent round-trip time, microseconds; null before the first measurement");
	u32 srtt_us DOC("smoothed round-trip time, microseconds; null before the first measurement");
	u32 cwnd DOC("congestion window, segments; null when the socket has none");
	char congestion[16] DOC("congestion control in use");
};

/* How a connection ended. */
enum ending {
	ENDING_NONE = 0,
	ENDING_FIN = 1,            /* both ends sent a FIN */
	ENDING_RESET_SENT = 2,
	ENDING_RESET_RECEIVED = 3,
	ENDING_TIMEOUT = 4,        /* ETIMEDOUT: the peer stopped answering */
	ENDING_ERROR = 5,          /* the event's error says which */
	ENDING_ABORTED = 6,        /* closed before both ends had sent a FIN, and without a reset */
};

#define ELAPSED_UNKNOWN 0xffffffffffffffffULL
#define RATE_UNKNOWN 0xffffffffffffffffULL
#define REASON_UNKNOWN 0xffffffffU

/* Something happened to a connection as a whole. */
struct connection_event {
	struct event event;
	u64 elapsed_ns DOC("connect: from the call to the outcome; close: since it was established; nanoseconds; null when that was not seen");
	u32 reset_reason DOC("reset: the kernel's reason as a name; null where the kernel gives none");
	u8 old_state DOC("state before: SYN_SENT, ESTABLISHED, ...");
	u8 new_state DOC("state after");
	u8 ending DOC("close: how it ended: fin, reset_sent, reset_received, timeout, error, aborted; else null");
	u8 sent DOC("reset: true when sent, false when received; else null");
	u32 iss DOC("initial send sequence number (RFC 9293), of the SYN that this end sent: the peer's irs; null when its beginning was not seen");
	u32 irs DOC("initial receive sequence number, of the peer's SYN: its iss; null before that came; kind state has neither");
	struct totals totals;
};

/* The state of a connection, once for each process that has its socket open. */
struct snapshot {
	struct event event;
	struct totals totals;
	u64 inode DOC("the socket's inode, as in /proc/PID/fd: unique per socket");
	u64 last_data_sent_us DOC("time since the last segment with payload left, or since the connection was made, microseconds, in steps of the tick");
	u64 last_data_recv_us DOC("time since the last segment with payload came, or since the connection was made, microseconds, in steps of the tick");
	u32 unsent DOC("bytes in the send queue that have not yet left (write_seq - snd_nxt)");
	u32 unacked DOC("bytes sent and not yet acknowledged (snd_nxt - snd_una)");
	u32 unread DOC("bytes in the receive queue (rcv_nxt - copied_seq)");
	u32 snd_wnd DOC("receive window that the peer has offered, bytes");
	u32 rcv_wnd DOC("remaining part of the receive window offered to the peer, bytes");
	u32 sndbuf DOC("send buffer, bytes (sk_sndbuf)");
	u32 rcvbuf DOC("receive buffer, bytes (sk_rcvbuf)");
	u32 mss DOC("payload bytes of a full segment");
	u32 packets_out DOC("segments in flight");
	u32 sacked_out DOC("segments selectively acknowledged (SACK), or duplicate ACKs");
	u32 lost_out DOC("segments marked lost");
	u32 retrans_out DOC("retransmitted segments in flight");
	u32 ssthresh DOC("slow start threshold, segments; null while it is infinite");
	u32 rto_us DOC("retransmission timeout, microseconds");
	u32 rttvar_us DOC("mean deviation of the round-trip time, microseconds; null before the first measurement");
	u32 backlog DOC("LISTEN: connections that wait to be accepted");
	u32 backlog_limit DOC("LISTEN: how many may wait");
	u8 state DOC("TCP state: ESTABLISHED, LISTEN, ...");
	u8 ca_state DOC("congestion state: Open, Disorder, CWR, Recovery, Loss");
	u8 icsk_retransmits DOC("consecutive timeouts");
	u8 probes_out DOC("consecutive zero-window probes that were not answered with an open window");
	u8 nodelay DOC("whether TCP_NODELAY has turned Nagle's algorithm off");
	u8 reserved[3];
};

/* Payload bytes a record can hold. Each class has its own ring, so that all records of a ring have the same size. */
#define PAYLOAD_CLASSES(X) X(64) X(256) X(768) X(2048) X(6144) X(16384)
#define PAYLOAD_MAX 16384

/* The ledger: per CPU and kind. seen = filtered + sampled_out + submitted + ring_full + ring_busy + map_full. */
struct counters {
	u64 seen DOC("events that reached the hook");
	u64 filtered DOC("rejected by the filters");
	u64 sampled_out DOC("of connections that a sample leaves out");
	u64 submitted DOC("written to a ring");
	u64 ring_full DOC("lost: the ring was full (--ring-size)");
	u64 ring_busy DOC("lost: other programs were writing to every lane that was tried; a larger ring does not help");
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

#define LANES_A_CPU 2 /* the second is for a program that interrupts the first's writer */
#define LANES_TRIED 8 /* by a writer; if all are taken or full, the record is lost */

/*
 * A part of a ring, and how far it is written and read: counts of records that only grow. User space sets `first`
 * and `slots` before any hook is attached. Reader and writers use separate cache lines.
 */
struct lane {
	u32 writers; /* in it, or checking whether they may enter */
	u32 next;    /* where the next record goes, from `first` */
	u32 first;
	u32 slots;
	u64 written;
	u64 read __attribute__((aligned(64)));
} __attribute__((aligned(64)));

/* How much is recorded of what passes the filters. User space changes it as it goes; all 0: everything. */
struct effort {
	u64 since_ns; /* hooks were off for a while before that: what they noted earlier is out of date */
	u32 payload_shift; /* of config.payload_limit */
	u32 message_sampling; /* n: messages of one in 2^n connections, 32: of none */
	u32 segment_sampling;
};

/* What user space asks for. Read-only once loaded, so that the verifier removes disabled code. */
struct config {
	u32 kinds; /* bit mask of event_kind */
	u32 self_pid; /* 0: trace all processes */
	u32 payload_limit; /* bytes of a message, */
	u32 segment_payload_limit; /* and of a segment */
	u32 netns; /* the only chosen one, or 0: saves a lookup */
	u8 owners_from_messages; /* messages identify the process that uses a socket */
	u8 owners_from_segments; /* if messages are not traced, segments do */
	u8 by_pid;
	u8 by_comm;
	u8 by_netns; /* those in the map are chosen */
	u8 by_host;
	u8 by_remote_host;
	u8 by_port;
	u8 by_local_port;
	u8 by_remote_port;
	u8 family; /* 4, 6 or 0 for both */
	u8 cgroups; /* entries of the cgroup array */
	u8 local_storage; /* the kernel has socket and task storage for tracing programs */
	u8 can_cast; /* it has bpf_rdonly_cast() */
	u8 recvmsg_arguments; /* parameters of tcp_recvmsg() in this kernel */
	u8 accept_arguments; /* parameters of inet_csk_accept() */
	u8 tls; /* TLS messages are traced */
	u8 tls_records; /* and so is the payload of those of TCP that carry them */
	u8 options; /* those of TCP's header are recorded with segments */
	u8 skip_bodies; /* messages that continue a body come without payload */
	u32 tick_ns; /* a jiffy */
	u32 last_lane; /* of a ring: their number is a power of two */
	u16 lowest_port, highest_port; /* of by_port and by_local_port */
	u64 cgroup_ids[CGROUPS_MAX];
	u64 port[PORT_WORDS];
	u64 local_port[PORT_WORDS];
	u64 remote_port[PORT_WORDS];
};

#endif
