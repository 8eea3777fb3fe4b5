/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The headers of a packet in the kernel, read as plain memory: a tracing program gets no direct access. */
#ifndef TCPRISM_PACKET_H
#define TCPRISM_PACKET_H

#include "connection.h"

#define ETH_P_IP 0x0008 /* network order */
#define ETH_P_IPV6 0xdd86

struct ipv4_header {
	u8 version_and_length, tos;
	u16 total_length;
	u16 id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 source, destination;
};

struct ipv6_header {
	u32 version_and_flow;
	u16 payload_length;
	u8 next, hops;
	struct address source, destination;
};

#define TCP_HEADER_LENGTH 20 /* without options */

struct tcp_header {
	u16 source, dest;
	u32 seq, ack;
	u8 offset_and_flags, flags;
	u16 window;
};

struct seen_packet {
	u64 tcp_at; /* the address of its header */
	struct address source, destination;
	struct tcp_header tcp;
	u32 length; /* of TCP header and payload */
	u8 family;
};

/* Of what begins at `at`. A packet that is longer than its IP header can tell (BIG TCP) has 0 there. */
INLINE u32 length_from(const struct sk_buff *skb, u64 at, u32 told)
{
	return told ? told : skb->len + (u32)(untyped(skb->data) - at);
}

/* Returns the address of the TCP header, or 0 if it is not TCP. */
INLINE u64 read_ipv4(struct seen_packet *to, const struct sk_buff *skb, u64 at)
{
	struct ipv4_header ip;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), (void *)at) || ip.version_and_length >> 4 != 4)
		return 0;
	if (ip.protocol != IPPROTO_TCP || bpf_ntohs(ip.fragment) & 0x1fff)
		return 0;
	map_ipv4(&to->source, ip.source);
	map_ipv4(&to->destination, ip.destination);
	to->family = 4;
	to->length = length_from(skb, at, bpf_ntohs(ip.total_length)) - (ip.version_and_length & 15) * 4;
	return at + (ip.version_and_length & 15) * 4;
}

#define EXTENSIONS_MAX 4
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_DESTINATION 60

INLINE bool is_extension(u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_DESTINATION;
}

INLINE u64 read_ipv6(struct seen_packet *to, const struct sk_buff *skb, u64 at)
{
	struct ipv6_header ip;
	u32 extensions = 0;
	u8 extension[2];

	if (bpf_probe_read_kernel(&ip, sizeof(ip), (void *)at))
		return 0;
	at += sizeof(ip);
	for (u32 i = 0; i < EXTENSIONS_MAX && is_extension(ip.next); i++) {
		if (bpf_probe_read_kernel(extension, sizeof(extension), (void *)(at + extensions)))
			return 0;
		ip.next = extension[0];
		extensions += (extension[1] + 1) * 8;
	}
	if (ip.next != IPPROTO_TCP)
		return 0;
	to->source = ip.source;
	to->destination = ip.destination;
	to->family = 6;
	to->length = length_from(skb, at, bpf_ntohs(ip.payload_length)) - extensions;
	return at + extensions;
}

INLINE bool read_seen_packet(struct seen_packet *to, const struct sk_buff *skb)
{
	u64 at = untyped(skb->head) + skb->network_header;

	if (skb->protocol == ETH_P_IP)
		at = read_ipv4(to, skb, at);
	else if (skb->protocol == ETH_P_IPV6)
		at = read_ipv6(to, skb, at);
	else
		return false;
	to->tcp_at = at;
	/* What was dropped for its lengths claims more than there is, or less. */
	if (!at || (s32)to->length < TCP_HEADER_LENGTH || at + TCP_HEADER_LENGTH > untyped(skb->head) + skb->tail)
		return false;
	return !bpf_probe_read_kernel(&to->tcp, sizeof(to->tcp), (void *)at);
}

/* The barrier keeps the comparisons, by which old verifiers see that it is 0, or from 1 to OPTIONS_MAX. */
INLINE u32 options_length(u8 offset_and_flags)
{
	u32 header = (offset_and_flags >> 4) * 4;

	barrier_var(header);
	if (header <= TCP_HEADER_LENGTH || header > TCP_HEADER_LENGTH + OPTIONS_MAX)
		return 0;
	header -= TCP_HEADER_LENGTH;
	barrier_var(header);
	return header;
}

/* Returns how many bytes of options there are, at most OPTIONS_MAX. */
INLINE u32 read_options(u8 *to, const struct seen_packet *packet)
{
	u32 length = options_length(packet->tcp.offset_and_flags);

	if (!length)
		return 0;
	return bpf_probe_read_kernel(to, length, (void *)(packet->tcp_at + TCP_HEADER_LENGTH)) ? 0 : length;
}

/* A device that puts segments together, as virtio's may, tells their size but not always how many there are. */
INLINE u32 segs_of(u32 segs, u32 size, u32 payload)
{
	if (segs)
		return segs;
	return size && payload > size ? (payload + size - 1) / size : 1;
}

INLINE void read_segs(struct segment *to, const struct sk_buff *skb)
{
	const struct skb_shared_info *shared = (void *)(untyped(skb->head) + skb->end);
	u16 segs = 0;

	READ(READS_PROBED, segs, shared->gso_segs);
	READ(READS_PROBED, to->gso_size, shared->gso_size);
	to->segs = segs_of(segs, to->gso_size, to->event.bytes);
}

INLINE void seen_into(struct segment *to, const struct seen_packet *packet)
{
	u32 header = (packet->tcp.offset_and_flags >> 4) * 4;
	u32 flags = packet->tcp.flags;

	to->event.flags = flags;
	to->event.seq = bpf_ntohl(packet->tcp.seq);
	to->event.bytes = packet->length > header ? packet->length - header : 0; /* lengths off the wire may lie */
	to->end_seq = to->event.seq + to->event.bytes + !!(flags & TCPHDR_SYN) + !!(flags & TCPHDR_FIN);
	to->ack = flags & TCPHDR_ACK ? bpf_ntohl(packet->tcp.ack) : 0;
	to->window = bpf_ntohs(packet->tcp.window);
	to->segs = 1;
	to->gso_size = 0;
	to->options_length = 0;
	to->payload_length = 0;
}

/* The packet's network namespace and link, if it still has its device: TCP clears that on receipt. */
INLINE void read_device(struct connection *to, const struct sk_buff *skb)
{
	struct net_device *dev = (void *)untyped(READABLE(struct sk_buff, skb)->dev);
	struct net *net = NULL;
	u32 interface = 0;

	if (!dev)
		return;
	READ(READS_PROBED, net, dev->nd_net.net);
	READ(READS_PROBED, to->netns, net->ns.inum);
	READ(READS_PROBED, interface, dev->ifindex);
	to->scope_id = scope_of(to, interface);
}

/* The connection as this host sees it. */
INLINE void packet_connection(struct connection *to, const struct seen_packet *packet, const struct sk_buff *skb,
			      bool outgoing)
{
	to->local = outgoing ? packet->source : packet->destination;
	to->remote = outgoing ? packet->destination : packet->source;
	to->local_port = bpf_ntohs(outgoing ? packet->tcp.source : packet->tcp.dest);
	to->remote_port = bpf_ntohs(outgoing ? packet->tcp.dest : packet->tcp.source);
	to->family = packet->family;
	to->netns = 0;
	to->scope_id = 0;
	read_device(to, skb);
}

#endif
