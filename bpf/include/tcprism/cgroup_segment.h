/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment as a packet, as a cgroup_skb program sees it with its socket. */
#ifndef TCPRISM_CGROUP_SEGMENT_H
#define TCPRISM_CGROUP_SEGMENT_H

#include "cgroup_packet.h"
#include "segment.h"

INLINE void packet_into(struct segment *to, const struct packet *from, u32 segs)
{
	to->event.seq = from->seq;
	to->event.bytes = from->payload;
	to->event.flags = from->tcp->flags;
	to->end_seq = from->end_seq;
	to->ack = from->tcp->flags & TCPHDR_ACK ? bpf_ntohl(from->tcp->ack) : 0;
	to->window = bpf_ntohs(from->tcp->window);
	to->segs = segs ? segs : 1;
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

#endif
