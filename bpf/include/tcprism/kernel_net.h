/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The kernel's networking structures, with only the fields that are read. libbpf relocates each access to the
 * running kernel's layout (CO-RE): names and types matter here, order and size do not. drift.h has what differs
 * between kernels.
 */
#ifndef TCPRISM_KERNEL_NET_H
#define TCPRISM_KERNEL_NET_H

#include "helpers.h"

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
	u32 skc_tw_rcv_nxt; /* TIME_WAIT */
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
} CORE;

struct spinlock {
	u32 unused;
} CORE;

typedef struct {
	struct spinlock slock; /* held by whichever CPU receives for the socket */
	int owned;
} CORE socket_lock_t;

struct sk_buff_head {
	struct sk_buff *prev;
} CORE;

struct sock_extended_err {
	u32 ee_errno;
	u8 ee_origin;
} CORE;

struct sock_exterr_skb {
	struct sock_extended_err ee;
} CORE;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	u16 sk_type;
	u8 sk_kern_sock : 1;
	u8 sk_shutdown;
	unsigned long sk_tsq_flags;
	int sk_err;
	int sk_err_soft;
	struct sk_buff_head sk_error_queue;
	socket_lock_t sk_lock;
	struct {
		int len;
	} sk_backlog;
	s32 sk_peek_off;
	int sk_write_pending; /* threads that wait for room, or for the connection, in the middle of a send */
	int sk_sndbuf;
	int sk_rcvbuf;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
	struct bpf_local_storage *sk_bpf_storage;
} CORE;

struct socket {
	struct sock *sk;
} CORE;

struct inet_sock {
	u16 inet_sport;
} CORE;

struct tcp_congestion_ops {
	char name[16];
} CORE;

struct hlist_node {
	struct hlist_node **pprev; /* NULL: in no list */
} CORE;

struct timer_list {
	struct hlist_node entry;
} CORE;

struct request_sock_queue {
	u8 rskq_defer_accept;
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_congestion_ops *icsk_ca_ops;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	struct timer_list icsk_retransmit_timer;
	u8 icsk_ca_state : 5;
	u8 icsk_pending;
	u8 icsk_retransmits;
	u8 icsk_probes_out;
	u32 icsk_rto;
	struct {
		u32 lrcvtime;
	} icsk_ack;
	struct request_sock_queue icsk_accept_queue;
} CORE;

struct tcp_options_received {
	u16 saw_tstamp : 1;
	u16 tstamp_ok : 1;
	u16 snd_wscale : 4;
	u16 rcv_wscale : 4;
} CORE;

/* The minimum over a time window is in s[0]: lib/win_minmax.c */
struct minmax_sample {
	u32 v;
} CORE;

struct minmax {
	struct minmax_sample s[3];
} CORE;

struct list_head {
	struct list_head *next;
} CORE;

struct tcp_sock {
	struct request_sock *fastopen_rsk; /* until the handshake is done */
	struct inet_connection_sock inet_conn;
	struct list_head tsorted_sent_queue;
	u8 is_mptcp;
	struct tcp_options_received rx_opt;
	u32 write_seq;
	u32 copied_seq;
	u32 rcv_nxt;
	u32 rcv_wnd;
	u32 rcv_wup;
	u32 rcv_mwnd_seq; /* 7.x: the end of the largest window offered */
	u32 snd_una;
	u32 max_window;
	u32 snd_nxt;
	u32 snd_wnd;
	u8 nonagle : 4;
	u8 repair : 1;
	u16 urg_data;
	int linger2;
	u32 rcv_tstamp;
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

struct inet_timewait_sock {
	u8 tw_substate;
} CORE;

struct request_sock {
	struct sock_common __req_common;
} CORE;

struct tcp_request_sock {
	u64 snt_synack;
	u32 rcv_nxt;
	u32 snt_isn;
} CORE;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} CORE;

union nf_inet_addr {
	u32 all[4];
} CORE;

union nf_conntrack_man_proto {
	u16 all;
} CORE;

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
} CORE;

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			u16 all;
		} u;
	} dst;
} CORE;

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} CORE;

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
} CORE;

struct sk_buff {
	unsigned long _nfct;
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	u8 pkt_type : 3;
	u8 csum_valid : 1;
	int skb_iif;
	u16 protocol;
	u16 network_header;
	u32 len;
	u32 tail; /* of what the linear part holds, from head */
	u32 end; /* of the linear part, from head: there skb_shared_info begins */
	unsigned char *head;
	unsigned char *data;
} CORE;

struct skb_shared_info {
	u16 gso_size;
	u16 gso_segs;
} CORE;

struct tcp_skb_cb {
	u32 seq;
	u32 end_seq;
	u32 ack_seq;
	u16 tcp_gso_segs;
	u16 tcp_gso_size;
	u8 tcp_flags; /* 16 bits since 6.15; the low byte is where it was (little endian) */
} CORE;

enum skb_drop_reason {
	SKB_DROP_REASON_NOT_SPECIFIED,
};

/* Apart, for a tracepoint's enum must have all members to match (DROP_HAS_SOCKET); kernels have some of these. */
enum skb_drop_reason___of_tcp {
	SKB_DROP_REASON_NO_SOCKET,
	SKB_DROP_REASON_TCP_CSUM,
	SKB_DROP_REASON_TCP_FLAGS,
	SKB_DROP_REASON_TCP_OLD_DATA,
	SKB_DROP_REASON_TCP_OVERWINDOW,
	SKB_DROP_REASON_TCP_OFOMERGE,
	SKB_DROP_REASON_TCP_RFC7323_PAWS,
	SKB_DROP_REASON_TCP_RFC7323_PAWS_ACK,
	SKB_DROP_REASON_TCP_RFC7323_TW_PAWS,
	SKB_DROP_REASON_TCP_RFC7323_TSECR,
	SKB_DROP_REASON_TCP_LISTEN_OVERFLOW,
	SKB_DROP_REASON_TCP_OLD_SEQUENCE,
	SKB_DROP_REASON_TCP_INVALID_SEQUENCE,
	SKB_DROP_REASON_TCP_INVALID_END_SEQUENCE,
	SKB_DROP_REASON_TCP_INVALID_ACK_SEQUENCE,
	SKB_DROP_REASON_TCP_RESET,
	SKB_DROP_REASON_TCP_INVALID_SYN,
	SKB_DROP_REASON_TCP_CLOSE,
	SKB_DROP_REASON_TCP_FASTOPEN,
	SKB_DROP_REASON_TCP_OLD_ACK,
	SKB_DROP_REASON_TCP_TOO_OLD_ACK,
	SKB_DROP_REASON_TCP_ACK_UNSENT_DATA,
	SKB_DROP_REASON_TCP_OFO_DROP,
	SKB_DROP_REASON_TCP_ABORT_ON_DATA,
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
	u32 gso_size;
};

#endif
