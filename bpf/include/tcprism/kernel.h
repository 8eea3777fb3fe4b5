/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The kernel's structures, as far as they are read. libbpf moves every access to where the running
 * kernel has the field (CO-RE), so order and size here mean nothing; names and types do.
 * What changed between kernels is in drift.h.
 */
#ifndef TCPRISM_KERNEL_H
#define TCPRISM_KERNEL_H

#include "helpers.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define TCP_NAGLE_OFF 1 /* TCP_NODELAY, include/net/tcp.h */
#define PACKET_OTHERHOST 3 /* include/uapi/linux/if_packet.h */
#define EPIPE 32
#define ECONNRESET 104
#define ETIMEDOUT 110

#define SOCK_DONE 1 /* enum sock_flags: the peer's FIN has arrived */

#define MSG_PEEK 0x02
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define MSG_ZEROCOPY 0x4000000
#define MSG_SPLICE_PAGES 0x8000000

#define EAGAIN 11
#define ERESTARTSYS 512 /* to 516: the call is made again or becomes EINTR, without any data */
#define ERESTART_LAST 516

#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define TCP_NEW_SYN_RECV 12

#define TCP_CA_RECOVERY 3 /* enum tcp_ca_state, include/uapi/linux/tcp.h */
#define TCP_CA_LOSS 4

#define ICSK_TIME_LOSS_PROBE 5 /* include/net/inet_connection_sock.h */

#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02
#define TCPHDR_ACK 0x10

#define PF_IO_WORKER 0x00000010
#define PF_KTHREAD 0x00200000
#define TS_COMPAT 0x0002 /* x86: the thread is inside a 32-bit system call */

struct in6_addr {
	union {
		u32 u6_addr32[4];
	} in6_u;
} CORE;

struct ns_common {
	u32 inum;
} CORE;

struct local_ports {
	u32 range; /* high << 16 | low */
} CORE;

struct netns_ipv4 {
	struct local_ports ip_local_ports;
} CORE;

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
} CORE;

typedef struct {
	struct net *net;
} CORE possible_net_t;

typedef struct {
	u64 counter;
} CORE atomic64_t;

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	u8 skc_state;
	unsigned long skc_flags;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
} CORE;

typedef struct {
	int owned;
} CORE socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	u16 sk_type;
	u8 sk_kern_sock : 1;
	int sk_err;
	socket_lock_t sk_lock;
	int sk_sndbuf;
	int sk_rcvbuf;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
	struct bpf_local_storage *sk_bpf_storage;
} CORE;

struct socket {
	struct sock *sk;
} CORE;

struct inode {
	u16 i_mode;
	unsigned long i_ino;
} CORE;

struct file {
	struct inode *f_inode;
	void *private_data;
} CORE;

struct bpf_iter_meta {
	struct seq_file *seq;
} CORE;

struct inet_sock {
	u16 inet_sport;
} CORE;

struct tcp_congestion_ops {
	char name[16];
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_congestion_ops *icsk_ca_ops;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	u8 icsk_ca_state : 5;
	u8 icsk_pending;
	u8 icsk_retransmits;
	u8 icsk_probes_out;
	u32 icsk_rto;
	struct {
		u32 lrcvtime;
	} icsk_ack;
} CORE;

struct tcp_options_received {
	u16 rcv_wscale : 4;
} CORE;

/* The least of a window of time, in s[0]: lib/win_minmax.c */
struct minmax_sample {
	u32 v;
} CORE;

struct minmax {
	struct minmax_sample s[3];
} CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	struct tcp_options_received rx_opt;
	u32 write_seq;
	u32 copied_seq;
	u32 rcv_nxt;
	u32 rcv_wnd;
	u32 rcv_wup;
	u32 snd_una;
	u32 snd_nxt;
	u32 snd_wnd;
	u8 nonagle : 4;
	u32 lsndtime;
	u32 snd_cwnd;
	u32 srtt_us;
	u32 rttvar_us;
	u32 packets_out;
	u32 snd_ssthresh;
	u32 sacked_out;
	u32 lost_out;
	u32 retrans_out;
	u32 undo_marker;
	u64 bytes_sent;
	u64 bytes_acked;
	u64 bytes_received;
	u64 bytes_retrans;
	u32 segs_out;
	u32 segs_in;
	u32 data_segs_out;
	u32 data_segs_in;
	u32 total_retrans;
	u32 dsack_dups;
	u32 reord_seen;
	u32 mss_cache;
	u32 rate_delivered;
	u32 rate_interval_us;
	struct minmax rtt_min;
	u32 chrono_start;
	u32 chrono_stat[3];
	u8 chrono_type;
} CORE;

struct request_sock {
	struct sock_common __req_common;
} CORE;

struct tcp_request_sock {
	u32 rcv_nxt;
	u32 snt_isn;
} CORE;

struct net_device {
	possible_net_t nd_net;
} CORE;

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	u8 pkt_type : 3;
	u16 protocol;
	u16 network_header;
	u32 len;
	unsigned char *head;
} CORE;

struct tcp_skb_cb {
	u32 seq;
	u32 end_seq;
	u32 ack_seq;
	u16 tcp_gso_segs;
	u8 tcp_flags; /* 16 bits since 6.15; the low byte is where it was (little endian) */
} CORE;

struct bpf_iter__task {
	struct task_struct *task;
} CORE;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
} CORE;

struct iovec {
	void *iov_base;
	u64 iov_len;
}; /* user-space interface: a fixed layout */

struct iov_iter {
	u8 iter_type;
	u64 iov_offset;
	u64 count;
	u64 nr_segs;
	const struct iovec *__iov;
	void *ubuf;
} CORE;

struct msghdr {
	struct iov_iter msg_iter;
	u32 msg_flags;
} CORE;

struct thread_info {
	u32 status;
} CORE;

typedef struct {
	int counter;
} CORE atomic_t;

struct signal_struct {
	atomic_t live;
} CORE;

typedef struct {
	u32 val;
} CORE kuid_t;

struct cred {
	kuid_t uid;
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} CORE;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	u32 flags;
	void *stack;
	int pid;
	int tgid;
	struct signal_struct *signal;
	const struct cred *cred;
	struct css_set *cgroups;
	struct io_uring_task *io_uring; /* of a task that has ever used it */
	char comm[COMM_LENGTH];
} CORE;

struct pt_regs { /* x86-64 */
	unsigned long di, si, dx, cx, r8, r9, r10, bx, ax, orig_ax, sp;
} CORE;

enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
	ITER_KVEC,
};

enum bpf_func_id {
	BPF_FUNC_get_current_task_btf,
	BPF_FUNC_sock_from_file,
};

enum skb_drop_reason {
	SKB_DROP_REASON_NOT_SPECIFIED,
};

enum sk_rst_reason {
	SK_RST_REASON_NOT_SPECIFIED,
};

struct __sk_buff { /* user-space interface: a fixed layout */
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end, napi_id;
	u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port;
	u32 data_meta;
	u64 flow_keys;
	u64 tstamp;
	u32 wire_len, gso_segs;
	struct sock *sk;
};

/*
 * How a program may read kernel memory. The verifier knows the type behind a BTF program's
 * arguments (fentry, tp_btf), so it reads them with plain loads; a kprobe only has numbers.
 * The shared bodies take this as a constant, so each wrapper compiles to one of the two.
 */
enum reads {
	READS_BTF,
	READS_PROBED,
};

#define READ(reads, to, from)                                                                      \
	do {                                                                                       \
		if ((reads) == READS_BTF)                                                          \
			(to) = (from);                                                             \
		else                                                                               \
			bpf_probe_read_kernel(&(to), sizeof(to), &(from));                         \
	} while (0)

/*
 * A bit field, wherever this kernel has it: the facts come from CO-RE. The barrier keeps the
 * compiler from counting the offset from the outer structure, to which it would be added twice.
 */
#define READ_BITS(reads, holder, field)                                                            \
	({                                                                                         \
		const typeof(*(holder)) *holder_ = (holder);                                       \
		asm volatile("" : "+r"(holder_));                                                  \
		const u8 *at_ = (const u8 *)holder_ + __builtin_preserve_field_info(holder_->field, 0); \
		u64 bits_ = 0;                                                                     \
		u32 size_ = __builtin_preserve_field_info(holder_->field, 1);                      \
		if ((reads) == READS_PROBED)                                                       \
			bpf_probe_read_kernel(&bits_, size_ & 7, at_);                             \
		else if (size_ == 1)                                                               \
			bits_ = *at_;                                                              \
		else if (size_ == 2)                                                               \
			bits_ = *(const u16 *)at_;                                                 \
		else                                                                               \
			bits_ = *(const u32 *)at_;                                                 \
		bits_ <<= __builtin_preserve_field_info(holder_->field, 4);                       \
		bits_ >> __builtin_preserve_field_info(holder_->field, 5);                        \
	})

/*
 * A typed pointer as a mere number, for what the verifier refuses to do with the pointer itself:
 * arithmetic, or a read of what it has no type for. To store and to compare, a cast will do.
 */
INLINE u64 untyped(const void *pointer)
{
	u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

/* For a typed pointer that can be null: later verifiers know and want to see it tested, earlier ones drop the test. */
INLINE bool is_there(const void *pointer)
{
	return pointer && untyped(pointer);
}

#endif
