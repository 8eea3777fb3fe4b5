/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Without fentry and kprobes: each packet as it leaves IP, once, with its true headers. */
#include "tcprism/packet.h"

#define IPV4_MINIMUM 20
#define IPV6_LENGTH 40
#define HEADERS_MAX 512 /* IP's, with any options */

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

/* Read from the socket where it has been made already: the helper costs more. */
INLINE u64 cookie_of_packet(struct __sk_buff *skb, struct tcp_sock *tp)
{
	struct sock *sk = (void *)tp;
	u64 cookie = tp ? sk->__sk_common.skc_cookie.counter : 0;

	return cookie ? cookie : bpf_get_socket_cookie(skb);
}

INLINE void egress_fill(struct segment *s, u32 kind, struct __sk_buff *skb, const struct packet *packet,
			const struct connection *c, struct tcp_sock *tp, const struct owner *owner)
{
	event_begin(&s->event, kind, c, owner);
	s->event.socket = cookie_of_packet(skb, tp);
	s->event.error = 0;
	packet_into(s, packet, skb->gso_segs);
	if (tp)
		read_congestion(s, tp, READS_BTF);
	else
		no_congestion(s);
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

/*
 * The connection that a packet belongs to. A SYN-ACK's socket is a listener (or a request), and has none yet;
 * that of a reset without a connection is the kernel's own raw one, which is no tcp_sock whatever 6.12 says.
 */
INLINE struct tcp_sock *connection_of(struct sock *of_packet)
{
	struct tcp_sock *tp = full_tcp_sock(of_packet);
	struct sock *sk = (void *)tp;

	return tp && sk->sk_type == SOCK_STREAM && sk->__sk_common.skc_state != TCP_LISTEN ? tp : NULL;
}

INLINE void egress(struct __sk_buff *skb)
{
	struct sock *sk = skb->sk; /* for helpers: it cannot be read */
	struct tcp_sock *tp = sk ? connection_of(sk) : NULL;
	struct owner *owner = NULL;
	u32 kind = KIND_TRANSMIT;
	struct counters *counters;
	struct connection c;
	struct packet packet;

	if (!read_packet(&packet, skb))
		return;
	if (tp && !is_first_transmission(packet.seq, packet.end_seq, tp->snd_nxt))
		return;
	if (tp)
		kind = kind_of_segment(tp, packet.seq, packet.end_seq, READS_BTF);
	if (tp && kind_wanted(KIND_ACKED))
		delivery_left(sk, packet.end_seq, READS_BTF);
	counters = counters_of(kind);
	if (!counters || !kind_wanted(kind))
		return;
	COUNT(counters->seen, 1);
	if (!ports_pass(__builtin_bswap16(packet.tcp->source), __builtin_bswap16(packet.tcp->dest)))
		goto filtered;
	if (tp)
		owner = segment_owner(sk, tp, READS_BTF);
	if (egress_passes(&c, &packet, skb, tp, owner)) {
		SUBMIT(segment, struct segment, counters, egress_fill(record, kind, skb, &packet, &c, tp, owner));
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

