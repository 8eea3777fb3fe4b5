/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The ends that NAT has written into a connection's packets. One that leaves has passed all of netfilter's hooks in its
 * network namespace, so a comparison with its socket tells, and needs no connection tracking. What another namespace
 * or host makes of it later shows nowhere here.
 */
#ifndef TCPRISM_TRANSLATION_H
#define TCPRISM_TRANSLATION_H

#include "cgroup_segment.h"

/* Connections whose translation is told, by cookie. User space gives it room if it is used. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, u8);
} translated SEC(".maps");

/* IPv6 sockets have the addresses of IPv4 connections in both forms. */
INLINE bool is_translated(const struct packet *packet, const struct __sk_buff *skb, struct tcp_sock *tp)
{
	const struct sock_common *sk = (const void *)tp;
	const u32 *word = (const void *)packet->start;

	if (packet->tcp->dest != sk->skc_dport || packet->tcp->source != tp->inet_conn.icsk_inet.inet_sport)
		return true;
	if (skb->protocol == ETH_P_IP)
		return packet->start + IPV4_MINIMUM <= packet->end &&
		       (word[3] != sk->skc_rcv_saddr || word[4] != sk->skc_daddr);
	if (packet->start + IPV6_LENGTH > packet->end)
		return false;
	for (u32 i = 0; i < 4; i++) {
		if (word[2 + i] != sk->skc_v6_rcv_saddr.in6_u.u6_addr32[i] ||
		    word[6 + i] != sk->skc_v6_daddr.in6_u.u6_addr32[i])
			return true;
	}
	return false;
}

INLINE void translation_fill(struct translation *t, u64 cookie, const struct connection *c,
			     const struct connection *rewritten, const struct owner *owner)
{
	event_begin(&t->event, KIND_TRANSLATE, c, owner);
	t->event.socket = cookie;
	t->event.flags = 0;
	t->event.bytes = 0;
	t->event.seq = 0;
	t->event.error = 0;
	__builtin_memcpy(t->translated_local_ip, &rewritten->local, sizeof(t->translated_local_ip));
	__builtin_memcpy(t->translated_remote_ip, &rewritten->remote, sizeof(t->translated_remote_ip));
	t->translated_local_port = rewritten->local_port;
	t->translated_remote_port = rewritten->remote_port;
}

/* Tells of each connection once. */
INLINE void tell_translation(const struct packet *packet, struct __sk_buff *skb, struct sock *sk, struct tcp_sock *tp)
{
	struct counters *counters = counters_of(KIND_TRANSLATE);
	const struct sock *readable = (void *)tp;
	u64 cookie = cookie_of_packet(skb, tp);
	struct connection c, rewritten;
	struct owner *owner;
	u8 told = 1;

	if (!counters || bpf_map_lookup_elem(&translated, &cookie) ||
	    !read_packet_connection(&rewritten, packet, skb, true))
		return;
	owner = segment_owner(sk, tp, packet->tcp->flags, is_at_work(readable, READS_BTF), READS_BTF);
	read_connection(&c, &readable->__sk_common, READS_BTF);
	COUNT(counters->seen, 1);
	if (!ports_pass(c.local_port, c.remote_port) || !owner_passes(owner) || !connection_passes(&c)) {
		COUNT(counters->filtered, 1);
		return;
	}
	bpf_map_update_elem(&translated, &cookie, &told, 0);
	SUBMIT(translation, struct translation, counters, translation_fill(record, cookie, &c, &rewritten, owner));
}

#endif
