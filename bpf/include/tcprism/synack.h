/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A SYN-ACK as a packet: sent for the first time, or again? */
#ifndef TCPRISM_SYNACK_H
#define TCPRISM_SYNACK_H

#include "egress_packet.h"

struct bpf_sock_tuple { /* user-space interface: a fixed layout */
	union {
		struct {
			u32 saddr, daddr;
			u16 sport, dport;
		} ipv4;
		struct {
			u32 saddr[4], daddr[4];
			u16 sport, dport;
		} ipv6;
	};
};

/* The key by which the answer to the packet will be looked up. Returns its length, 0 if the headers cannot be read. */
INLINE u32 read_answer_tuple(struct bpf_sock_tuple *to, const struct packet *packet, u32 protocol)
{
	const u32 *word = (const void *)packet->start;

	if (protocol == ETH_P_IP && packet->start + IPV4_MINIMUM <= packet->end) {
		to->ipv4.saddr = word[4];
		to->ipv4.daddr = word[3];
		to->ipv4.sport = packet->tcp->dest;
		to->ipv4.dport = packet->tcp->source;
		return sizeof(to->ipv4);
	}
	if (packet->start + IPV6_LENGTH > packet->end)
		return 0;
	__builtin_memcpy(to->ipv6.saddr, word + 6, sizeof(to->ipv6.saddr));
	__builtin_memcpy(to->ipv6.daddr, word + 2, sizeof(to->ipv6.daddr));
	to->ipv6.sport = packet->tcp->dest;
	to->ipv6.dport = packet->tcp->source;
	return sizeof(to->ipv6);
}

/* tcp_make_synack() stamps each packet, and the request with the stamp of the first. */
INLINE bool is_later_than_first(const struct tcp_request_sock *request, u64 packet_ns)
{
	u64 first_us = 0;

	READ(READS_PROBED, first_us, request->snt_synack);
	return first_us != packet_ns / 1000;
}

/*
 * The packet has its listener's socket only, so its request is looked up. With Fast Open there is a connection instead,
 * and only retransmissions are sent without it. A SYN cookie leaves neither, and is never retransmitted.
 */
INLINE bool is_repeated_synack(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	u32 length = read_answer_tuple(&tuple, packet, skb->protocol);
	const struct sock_common *found, *readable;
	bool repeated = false;
	u8 state = 0;

	if (!length)
		return false;
	found = bpf_skc_lookup_tcp(skb, &tuple, length, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return false;
	readable = (void *)untyped(found);
	READ(READS_PROBED, state, readable->skc_state);
	if (state == TCP_SYN_RECV)
		repeated = true;
	if (state == TCP_NEW_SYN_RECV)
		repeated = is_later_than_first((const void *)readable, skb->tstamp);
	bpf_sk_release((void *)found);
	return repeated;
}

#endif
