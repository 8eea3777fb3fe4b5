/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment as a packet, as a cgroup_skb program sees it with its socket. */
#ifndef TCPRISM_CGROUP_SEGMENT_H
#define TCPRISM_CGROUP_SEGMENT_H

#include "cgroup_packet.h"
#include "segment.h"

/* The ECN field (RFC 3168), and Accurate ECN's ninth flag beside the others. */
INLINE u32 packet_flags(const struct packet *packet, u32 protocol)
{
	u32 ecn = protocol == ETH_P_IP ? packet->start[1] & 3 : packet->start[1] >> 4 & 3;

	return packet->tcp->flags | (packet->tcp->offset_and_flags & 1) << 8 | ecn << ECN_SHIFT;
}

/* How the window in the header of any segment but a SYN is scaled. */
INLINE u32 window_scale_flags(const struct tcp_sock *tp, bool outgoing)
{
	u32 scale = outgoing ? READ_BITS(READS_BTF, &tp->rx_opt, rcv_wscale) : READ_BITS(READS_BTF, &tp->rx_opt, snd_wscale);

	return (scale & 15) << WSCALE_SHIFT | WSCALE_KNOWN;
}

INLINE void packet_into(struct segment *to, const struct packet *from, const struct __sk_buff *skb)
{
	to->event.seq = from->seq;
	to->event.bytes = from->payload;
	to->event.flags = packet_flags(from, skb->protocol);
	to->end_seq = from->end_seq;
	to->ack = from->tcp->flags & TCPHDR_ACK ? bpf_ntohl(from->tcp->ack) : 0;
	to->window = bpf_ntohs(from->tcp->window);
	to->gso_size = skb->gso_size;
	to->segs = skb->gso_segs ? skb->gso_segs : 1;
	to->options_length = 0;
	to->payload_length = 0;
}

/* Returns how many bytes of options there are, at most OPTIONS_MAX. */
INLINE u32 load_options(u8 *to, const struct packet *packet, const struct __sk_buff *skb)
{
	u32 length = options_length(packet->tcp->offset_and_flags);

	if (!length)
		return 0;
	return bpf_skb_load_bytes(skb, packet->tcp_at + TCP_HEADER_LENGTH, to, length) ? 0 : length;
}

/*
 * The connection that a packet belongs to. The socket of a handshake is a listener or a request: no connection yet. A
 * reset without a connection comes from the kernel's own raw socket, which 6.12 passes off as a tcp_sock.
 */
INLINE struct tcp_sock *connection_of(struct sock *of_packet)
{
	struct tcp_sock *tp = full_tcp_sock(of_packet);
	struct sock *sk = (void *)tp;

	return tp && sk->sk_type == SOCK_STREAM && sk->__sk_common.skc_state != TCP_LISTEN ? tp : NULL;
}

/* Of a socket that is no connection: there is no tcp_sock to read. */
INLINE u32 netns_of_other(struct sock *sk)
{
	struct sock *address = (void *)untyped(sk);

	return address ? read_netns(&address->__sk_common, READS_PROBED) : 0;
}

/* A load where the cookie exists already; the helper costs more. */
INLINE u64 cookie_of_packet(struct __sk_buff *skb, struct tcp_sock *tp)
{
	struct sock *sk = (void *)tp;
	u64 cookie = tp ? sk->__sk_common.skc_cookie.counter : 0;

	return cookie ? cookie : bpf_get_socket_cookie(skb);
}

/*
 * Loads bytes of the packet's payload, wherever they lie: in the linear part, in pages, in another buffer of the
 * list that GRO made. Returns how many: none where they are in memory that only a device can read.
 */
INLINE u32 load_payload(u8 *to, u32 length, u32 room, const struct packet *packet, const struct __sk_buff *skb)
{
	u32 at = packet->tcp_at + (packet->tcp->offset_and_flags >> 4) * 4;
	u32 above = length + 1;

	/* Two comparisons show old verifiers that it is at least 1 and fits, if the compiler does not make one of them. */
	barrier_var(above);
	if (above < 2)
		return 0;
	barrier_var(above);
	if (above > room + 1)
		return 0;
	length = above - 1;
	barrier_var(length);
	return bpf_skb_load_bytes(skb, at, to, length) ? 0 : length;
}

#define SUBMIT_PAYLOAD_CLASS(size)                                                                 \
	if (config.segment_payload_limit <= size || length <= size) {                              \
		SUBMIT(segment_40_##size, struct segment_40_##size, counters, {                    \
			record->head = *s;                                                         \
			record->head.segment.payload_length =                                      \
				load_payload(record->payload, length, size, packet, skb);          \
		});                                                                                \
		return;                                                                            \
	}

/* Into the ring of the smallest class that the payload fits. */
INLINE void submit_payload(struct counters *counters, const struct __sk_buff *skb, const struct packet *packet,
			   const struct segment_40 *s)
{
	u32 length = MIN(packet->payload, config.segment_payload_limit);

	COUNT(counters->payload_cut, packet->payload - length);
	PAYLOAD_CLASSES(SUBMIT_PAYLOAD_CLASS)
}

/*
 * `fill` sets `record`, a struct segment. Its options and payload follow if they were asked for. With payload it is put
 * together in the room of one without, and copied: on the stack, or once for each class, the verifier would follow
 * ten times as many paths.
 */
#define SUBMIT_PACKET(counters, skb, packet, fill)                                                 \
	do {                                                                                       \
		bool has_payload = config.segment_payload_limit && (packet)->payload;              \
		struct segment_40 *whole;                                                          \
		struct segment *record;                                                            \
		struct lane *lane;                                                                 \
                                                                                                   \
		if (!config.options && !has_payload) {                                             \
			SUBMIT(segment, struct segment, counters, fill);                           \
			break;                                                                     \
		}                                                                                  \
		whole = RESERVE(segment_40, &lane, counters);                                      \
		if (!whole)                                                                        \
			break;                                                                     \
		record = &whole->segment;                                                          \
		fill;                                                                              \
		if (config.options)                                                                \
			record->options_length = load_options(whole->options, packet, skb);        \
		if (has_payload) {                                                                 \
			submit_payload(counters, skb, packet, whole);                              \
			lane_leave(lane);                                                          \
			break;                                                                     \
		}                                                                                  \
		ring_submit(lane);                                                                 \
		COUNT((counters)->submitted, 1);                                                   \
	} while (0)

#endif
