/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A SYN-ACK as a packet: sent for the first time, or again? */
#ifndef TCPRISM_SYNACK_H
#define TCPRISM_SYNACK_H

#include "conntrack.h"
#include "cgroup_packet.h"

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

/* The key by which the answer to a packet of the connection will be looked up. Returns its length. */
INLINE u32 answer_tuple(struct bpf_sock_tuple *to, const struct connection *c)
{
	u16 source = bpf_htons(c->remote_port), destination = bpf_htons(c->local_port);

	if (c->family == 4) {
		to->ipv4.saddr = c->remote.word[3];
		to->ipv4.daddr = c->local.word[3];
		to->ipv4.sport = source;
		to->ipv4.dport = destination;
		return sizeof(to->ipv4);
	}
	__builtin_memcpy(to->ipv6.saddr, &c->remote, sizeof(to->ipv6.saddr));
	__builtin_memcpy(to->ipv6.daddr, &c->local, sizeof(to->ipv6.daddr));
	to->ipv6.sport = source;
	to->ipv6.dport = destination;
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
 * The packet has its listener's socket only, so its request is looked up, by the ends that it had before NAT. With
 * Fast Open there is a connection instead, and only retransmissions are sent without it. A SYN cookie leaves neither,
 * and is never retransmitted.
 */
INLINE bool is_repeated_synack(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	const struct sock_common *found, *readable;
	struct connection c;
	bool repeated = false;
	u8 state = 0;

	if (!read_packet_connection(&c, packet, skb, true))
		return false;
	undo_translation(&c, skb);
	found = bpf_skc_lookup_tcp(skb, &tuple, answer_tuple(&tuple, &c), BPF_F_CURRENT_NETNS, 0);
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
