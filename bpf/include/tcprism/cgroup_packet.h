/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The headers of a packet that leaves or arrives, which a cgroup_skb program may read directly. */
#ifndef TCPRISM_CGROUP_PACKET_H
#define TCPRISM_CGROUP_PACKET_H

#include "packet.h"

#define IPV4_MINIMUM 20
#define IPV6_LENGTH 40
#define HEADERS_MAX 512 /* of IP, options included */

struct packet {
	const u8 *start, *end; /* the linear part: it has all headers, for TCP has made them or pulled them in */
	const struct tcp_header *tcp;
	u32 tcp_at; /* bytes of IP's headers */
	u32 payload;
	u32 seq, end_seq;
};

INLINE u32 tcp_at_ipv4(const struct packet *packet)
{
	if (packet->start + IPV4_MINIMUM > packet->end || packet->start[9] != IPPROTO_TCP)
		return 0;
	return (packet->start[0] & 15) * 4;
}

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

/* Returns false if it is not TCP. */
INLINE bool read_packet(struct packet *to, struct __sk_buff *skb)
{
	u32 at, flags;

	to->start = (void *)(u64)skb->data;
	to->end = (void *)(u64)skb->data_end;
	at = skb->protocol == ETH_P_IP ? tcp_at_ipv4(to) : skb->protocol == ETH_P_IPV6 ? tcp_at_ipv6(to, skb) : 0;
	if (!at || at > HEADERS_MAX)
		return false;
	to->tcp_at = at;
	to->tcp = (void *)(to->start + at);
	if ((const u8 *)(to->tcp + 1) > to->end)
		return false;
	flags = to->tcp->flags;
	to->payload = skb->len - at - (to->tcp->offset_and_flags >> 4) * 4;
	to->seq = bpf_ntohl(to->tcp->seq);
	to->end_seq = to->seq + to->payload + !!(flags & TCPHDR_SYN) + !!(flags & TCPHDR_FIN);
	return true;
}

/* The connection as this host sees it, but for its network namespace. */
INLINE bool read_packet_connection(struct connection *to, const struct packet *from, const struct __sk_buff *skb,
				   bool outgoing)
{
	struct address *source = outgoing ? &to->local : &to->remote, *destination = outgoing ? &to->remote : &to->local;
	const u32 *word = (const void *)from->start;

	to->local_port = bpf_ntohs(outgoing ? from->tcp->source : from->tcp->dest);
	to->remote_port = bpf_ntohs(outgoing ? from->tcp->dest : from->tcp->source);
	if (skb->protocol == ETH_P_IP && from->start + IPV4_MINIMUM <= from->end) {
		to->family = 4;
		map_ipv4(source, word[3]);
		map_ipv4(destination, word[4]);
		to->scope_id = 0;
		return true;
	}
	if (from->start + IPV6_LENGTH > from->end)
		return false;
	to->family = 6;
	__builtin_memcpy(source, word + 2, sizeof(*source));
	__builtin_memcpy(destination, word + 6, sizeof(*destination));
	to->scope_id = scope_of(to, skb->ifindex);
	return true;
}

#endif
