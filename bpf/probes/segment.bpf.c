/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * TCP hands a segment to IP: transmit, and retransmit with its witness, the kernel's own tracepoint.
 * transmit counts as OutSegs does: a segment that was sent before is no transmit.
 */
#include "tcprism/emit.h"

/* What is known when the segment is handed over; the window is chosen on the way down. */
struct pending {
	u64 sk; /* 0: no transmission under way */
	u32 seq, end_seq, ack;
	u16 segs, flags;
};

/* By socket (fentry: it is locked while it transmits) or by stack position (kprobe: no arguments at the exit). */
struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, 16384);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct pending);
} transmissions SEC(".maps");

INLINE bool after(u32 a, u32 b)
{
	return (s32)(b - a) < 0;
}

/* As OutSegs in __tcp_transmit_skb(): new data, or nothing that takes a sequence number. */
INLINE bool is_first_transmission(u32 seq, u32 end_seq, u32 snd_nxt)
{
	return seq == end_seq || after(end_seq, snd_nxt);
}

INLINE u32 payload_bytes(u32 seq, u32 end_seq, u32 flags)
{
	return end_seq - seq - !!(flags & TCPHDR_SYN) - !!(flags & TCPHDR_FIN);
}

/* The header's window, as tcp_select_window() left it: unscaled in a SYN. */
INLINE u32 window_of(struct tcp_sock *tp, u32 flags, enum reads reads)
{
	u32 window = 0, scale = 0;

	READ(reads, window, tp->rcv_wnd);
	if (!(flags & TCPHDR_SYN))
		scale = READ_BITS(reads, &tp->rx_opt, rcv_wscale);
	window >>= scale & 15;
	return MIN(window, 65535);
}

INLINE void read_congestion(struct segment *to, struct tcp_sock *tp, enum reads reads)
{
	u32 srtt = 0;

	READ(reads, to->cwnd, tp->snd_cwnd);
	READ(reads, to->packets_out, tp->packets_out);
	READ(reads, srtt, tp->srtt_us);
	to->srtt_us = srtt ? srtt >> 3 : SRTT_UNKNOWN; /* kept eightfold: tcp_rtt_estimator() */
	to->ca_state = READ_BITS(reads, &tp->inet_conn, icsk_ca_state);
}

INLINE void no_congestion(struct segment *to)
{
	to->srtt_us = SRTT_UNKNOWN;
	to->ca_state = CA_STATE_UNKNOWN;
}

/* Counts a segment and filters it, cheapest questions first; false: leave it. */
INLINE bool segment_passes(struct counters *counters, struct connection *to, const struct sock_common *sk,
			   const struct owner *owner, enum reads reads)
{
	COUNT(counters->seen, 1);
	if (socket_ports_pass(sk, reads) && owner_passes(owner)) {
		read_connection(to, sk, reads);
		if (connection_passes(to))
			return true;
	}
	COUNT(counters->filtered, 1);
	return false;
}

INLINE void pending_into(struct segment *to, const struct pending *from)
{
	to->event.seq = from->seq;
	to->event.bytes = payload_bytes(from->seq, from->end_seq, from->flags);
	to->event.flags = from->flags;
	to->end_seq = from->end_seq;
	to->ack = from->ack;
	to->segs = from->segs;
}

INLINE void read_control_block(struct pending *to, const struct sk_buff *skb, enum reads reads)
{
	const struct tcp_skb_cb *cb = (const void *)skb->cb;
	u16 segs = 0;
	u8 flags = 0;

	READ(reads, to->seq, cb->seq);
	READ(reads, to->end_seq, cb->end_seq);
	READ(reads, segs, cb->tcp_gso_segs); /* skb_shinfo's is not set yet */
	READ(reads, flags, cb->tcp_flags);
	to->segs = segs ? segs : 1;
	to->flags = flags;
}

INLINE void transmit_enter(struct sock *sk, struct sk_buff *skb, u32 rcv_nxt, u64 key, enum reads reads)
{
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	struct pending pending = {};
	u32 snd_nxt = 0;

	if (!tp)
		return;
	read_control_block(&pending, skb, reads);
	READ(reads, snd_nxt, tp->snd_nxt);
	if (!is_first_transmission(pending.seq, pending.end_seq, snd_nxt))
		return;
	pending.ack = pending.flags & TCPHDR_ACK ? rcv_nxt : 0;
	pending.sk = (u64)sk;
	if (bpf_map_update_elem(&transmissions, &key, &pending, 0)) {
		struct counters *counters = counters_of(KIND_TRANSMIT);

		if (counters) {
			COUNT(counters->seen, 1);
			COUNT(counters->map_full, 1);
		}
	}
}

INLINE void transmit_event(const struct pending *pending, struct sock *sk, int error, enum reads reads)
{
	struct counters *counters = counters_of(KIND_TRANSMIT);
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	struct owner *owner = owner_of(sk, reads);
	struct connection c;
	struct segment s = {};

	if (!counters || !tp)
		return;
	if (!segment_passes(counters, &c, &sk->__sk_common, owner, reads))
		return;
	event_begin(&s.event, KIND_TRANSMIT, &c, owner);
	s.event.socket = cookie_of(sk, reads);
	s.event.error = error < 0 ? error : 0;
	pending_into(&s, pending);
	s.window = window_of(tp, pending->flags, reads);
	read_congestion(&s, tp, reads);
	SUBMIT(segment, struct segment, counters, *record = s);
}

INLINE void transmit_leave(struct sock *sk, int error, u64 key, enum reads reads)
{
	struct pending *pending = bpf_map_lookup_elem(&transmissions, &key);

	if (!pending)
		return;
	transmit_event(pending, reads == READS_BTF ? sk : (struct sock *)pending->sk, error, reads);
	bpf_map_delete_elem(&transmissions, &key);
}

SEC("fentry/__tcp_transmit_skb") int fentry_transmit(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];

	transmit_enter(sk, (void *)ctx[1], ctx[4], (u64)sk, READS_BTF);
	return 0;
}

SEC("fexit/__tcp_transmit_skb") int fexit_transmit(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];

	transmit_leave(sk, ctx[5], (u64)sk, READS_BTF);
	return 0;
}

SEC("kprobe/__tcp_transmit_skb") int kprobe_transmit(struct pt_regs *ctx)
{
	transmit_enter((void *)ctx->di, (void *)ctx->si, ctx->r8, ctx->sp + sizeof(u64), READS_PROBED);
	return 0;
}

/* The return address is off the stack by now. */
SEC("kretprobe/__tcp_transmit_skb") int kretprobe_transmit(struct pt_regs *ctx)
{
	transmit_leave(NULL, ctx->ax, ctx->sp, READS_PROBED);
	return 0;
}

/* Without fentry and kprobes: each packet as it leaves IP, once, with its true headers. */
#define ETH_P_IP 0x0008 /* network order */
#define ETH_P_IPV6 0xdd86
#define IPV4_MINIMUM 20
#define IPV6_LENGTH 40
#define HEADERS_MAX 512 /* IP's, with any options */

struct tcp_header {
	u16 source, dest;
	u32 seq, ack;
	u8 offset_and_flags, flags;
	u16 window;
};

struct packet {
	const u8 *start, *end; /* what lies in one piece: all headers of a packet that was made here do */
	const struct tcp_header *tcp;
	u32 payload;
	u32 seq, end_seq;
};

INLINE u32 tcp_at_ipv4(const struct packet *packet)
{
	if (packet->start + IPV4_MINIMUM > packet->end || packet->start[9] != IPPROTO_TCP)
		return 0;
	return (packet->start[0] & 15) * 4;
}

#define EXTENSIONS_MAX 4
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_DESTINATION 60

INLINE u32 tcp_at_ipv6(const struct packet *packet, struct __sk_buff *skb)
{
	u32 at = IPV6_LENGTH;
	u8 extension[2];
	u8 next;

	if (packet->start + IPV6_LENGTH > packet->end)
		return 0;
	next = packet->start[6];
	for (u32 i = 0; i < EXTENSIONS_MAX; i++) {
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_DESTINATION)
			break;
		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return 0;
		next = extension[0];
		at += (extension[1] + 1) * 8;
	}
	return next == IPPROTO_TCP ? at : 0;
}

/* Finds the TCP header; false: not TCP. */
INLINE bool read_packet(struct packet *to, struct __sk_buff *skb)
{
	u32 at, flags;

	to->start = (void *)(u64)skb->data;
	to->end = (void *)(u64)skb->data_end;
	at = skb->protocol == ETH_P_IP ? tcp_at_ipv4(to) : skb->protocol == ETH_P_IPV6 ? tcp_at_ipv6(to, skb) : 0;
	if (!at || at > HEADERS_MAX)
		return false;
	to->tcp = (void *)(to->start + at);
	if ((const u8 *)(to->tcp + 1) > to->end)
		return false;
	flags = to->tcp->flags;
	to->payload = skb->len - at - (to->tcp->offset_and_flags >> 4) * 4;
	to->seq = __builtin_bswap32(to->tcp->seq);
	to->end_seq = to->seq + to->payload + !!(flags & TCPHDR_SYN) + !!(flags & TCPHDR_FIN);
	return true;
}

INLINE bool read_packet_connection(struct connection *to, const struct packet *from, u32 protocol)
{
	const u32 *word = (const void *)from->start;

	to->local_port = __builtin_bswap16(from->tcp->source);
	to->remote_port = __builtin_bswap16(from->tcp->dest);
	if (protocol == ETH_P_IP && from->start + IPV4_MINIMUM <= from->end) {
		to->family = 4;
		map_ipv4(&to->local, word[3]);
		map_ipv4(&to->remote, word[4]);
		return true;
	}
	if (from->start + IPV6_LENGTH > from->end)
		return false;
	to->family = 6;
	__builtin_memcpy(&to->local, word + 2, sizeof(to->local));
	__builtin_memcpy(&to->remote, word + 6, sizeof(to->remote));
	return true;
}

INLINE void packet_into(struct segment *to, const struct packet *from, u32 segs)
{
	to->event.seq = from->seq;
	to->event.bytes = from->payload;
	to->event.flags = from->tcp->flags;
	to->end_seq = from->end_seq;
	to->ack = from->tcp->flags & TCPHDR_ACK ? __builtin_bswap32(from->tcp->ack) : 0;
	to->window = __builtin_bswap16(from->tcp->window);
	to->segs = segs ? segs : 1;
}

/* A SYN-ACK's request socket, or the kernel's own socket for resets: no tcp_sock, no owner. */
INLINE u32 netns_of_other(struct sock *sk)
{
	struct sock *address = (void *)untyped(sk);

	return address ? read_netns(&address->__sk_common, READS_PROBED) : 0;
}

INLINE void egress_record(struct __sk_buff *skb, const struct packet *packet, const struct connection *c,
			  struct tcp_sock *tp, const struct owner *owner, struct counters *counters)
{
	struct segment s = {};

	event_begin(&s.event, KIND_TRANSMIT, c, owner);
	s.event.socket = bpf_get_socket_cookie(skb);
	packet_into(&s, packet, skb->gso_segs);
	if (tp)
		read_congestion(&s, tp, READS_BTF);
	else
		no_congestion(&s);
	SUBMIT(segment, struct segment, counters, *record = s);
}

INLINE bool egress_passes(struct connection *c, const struct packet *packet, struct __sk_buff *skb, struct tcp_sock *tp,
			  const struct owner *owner)
{
	struct sock *sk = (void *)tp;

	if (!owner_passes(owner) || !read_packet_connection(c, packet, skb->protocol))
		return false;
	c->netns = tp ? read_netns(&sk->__sk_common, READS_BTF) : netns_of_other(skb->sk);
	return connection_passes(c);
}

/* The connection that a packet belongs to. A SYN-ACK's socket is a listener (or a request), and has none yet. */
INLINE struct tcp_sock *connection_of(struct __sk_buff *skb)
{
	struct sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	return tp && ((struct sock *)tp)->__sk_common.skc_state != TCP_LISTEN ? tp : NULL;
}

INLINE void egress(struct __sk_buff *skb)
{
	struct tcp_sock *tp = connection_of(skb);
	struct counters *counters = counters_of(KIND_TRANSMIT);
	struct owner *owner = NULL;
	struct connection c;
	struct packet packet;

	if (!counters || !read_packet(&packet, skb))
		return;
	if (tp && !is_first_transmission(packet.seq, packet.end_seq, tp->snd_nxt))
		return;
	COUNT(counters->seen, 1);
	if (!ports_pass(__builtin_bswap16(packet.tcp->source), __builtin_bswap16(packet.tcp->dest)))
		goto filtered;
	if (tp)
		owner = owner_of((struct sock *)tp, READS_BTF);
	if (egress_passes(&c, &packet, skb, tp, owner)) {
		egress_record(skb, &packet, &c, tp, owner, counters);
		return;
	}
filtered:
	COUNT(counters->filtered, 1);
}

SEC("cgroup_skb/egress") int cgroup_transmit(struct __sk_buff *skb)
{
	egress(skb);
	return 1; /* let it pass */
}

/* Retransmissions: equal to RetransSegs, tail loss probes included, on every kernel. */
INLINE void retransmit_event(struct sock *sk, const struct sk_buff *skb, int error)
{
	struct counters *counters = counters_of(KIND_RETRANSMIT);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct owner *owner = owner_of(sk, READS_BTF);
	struct pending pending = {};
	struct connection c;
	struct segment s = {};

	if (!counters || !tp)
		return;
	if (!segment_passes(counters, &c, &sk->__sk_common, owner, READS_BTF))
		return;
	read_control_block(&pending, skb, READS_BTF);
	pending.ack = pending.flags & TCPHDR_ACK ? tp->rcv_nxt : 0;
	event_begin(&s.event, KIND_RETRANSMIT, &c, owner);
	s.event.socket = cookie_of(sk, READS_BTF);
	s.event.error = error < 0 ? error : 0;
	pending_into(&s, &pending);
	s.window = window_of(tp, pending.flags, READS_BTF);
	read_congestion(&s, tp, READS_BTF);
	SUBMIT(retransmit, struct segment, counters, *record = s);
}

SEC("tp_btf/tcp_retransmit_skb") int tracepoint_retransmit(u64 *ctx)
{
	retransmit_event((void *)ctx[0], (void *)ctx[1], RETRANSMIT_HAS_ERROR() ? ctx[2] : 0);
	return 0;
}

/* A SYN-ACK again: there is a request and a listener, but no connection yet. */
INLINE void retransmit_synack_event(struct sock *listener, const struct request_sock *req)
{
	struct counters *counters = counters_of(KIND_RETRANSMIT);
	struct owner *owner = owner_of(listener, READS_BTF);
	struct tcp_request_sock *request = (void *)untyped(req);
	struct connection c;
	struct segment s = {};

	if (!counters)
		return;
	if (!segment_passes(counters, &c, &req->__req_common, owner, READS_BTF))
		return;
	event_begin(&s.event, KIND_RETRANSMIT, &c, owner);
	s.event.flags = TCPHDR_SYN | TCPHDR_ACK;
	bpf_probe_read_kernel(&s.event.seq, sizeof(u32), &request->snt_isn);
	bpf_probe_read_kernel(&s.ack, sizeof(u32), &request->rcv_nxt);
	s.end_seq = s.event.seq + 1;
	s.segs = 1;
	s.window = WINDOW_UNKNOWN;
	no_congestion(&s);
	SUBMIT(retransmit, struct segment, counters, *record = s);
}

SEC("tp_btf/tcp_retransmit_synack") int tracepoint_retransmit_synack(u64 *ctx)
{
	retransmit_synack_event((void *)ctx[0], (void *)ctx[1]);
	return 0;
}
