/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where the kernel has neither fentry nor kprobes: each packet once, as it leaves IP, with its final headers. */
#include "tcprism/cgroup_segment.h"
#include "tcprism/sent_again.h"
#include "tcprism/synack.h"
#include "tcprism/translation.h"

INLINE void egress_fill(struct segment *s, u32 kind, struct __sk_buff *skb, const struct packet *packet,
			const struct connection *c, struct tcp_sock *tp, const struct owner *owner, u32 sampling)
{
	event_begin(&s->event, kind, c, owner);
	s->event.sampling = sampling;
	s->event.socket = cookie_of_packet(skb, tp);
	s->event.error = 0;
	packet_into(s, packet, skb);
	if (tp) {
		read_congestion(s, tp, READS_BTF);
		s->event.flags |= window_scale_flags(tp, true);
	} else {
		no_congestion(s);
	}
	s->arrival = ARRIVAL_UNKNOWN;
	s->cause = tp ? cause_of_transmit(tp, packet->seq, packet->end_seq, READS_BTF) : CAUSE_NONE;
}

/* NAT has passed: its packets may have other ends than a connection. */
INLINE bool read_egress_connection(struct connection *to, const struct packet *packet, struct __sk_buff *skb,
				   struct tcp_sock *tp)
{
	struct sock *sk = (void *)tp;

	if (tp) {
		read_connection(to, &sk->__sk_common, READS_BTF);
		return true;
	}
	if (!read_packet_connection(to, packet, skb, true))
		return false;
	undo_translation(to, skb);
	to->netns = netns_of_other(skb->sk);
	return ports_pass(to->local_port, to->remote_port);
}

/*
 * A SYN-ACK by a connection's socket, whose numbers are past it already. That of Fast Open was made at the time that its
 * request has noted; where both ends connect at once, see answers_crossed_syn(). Apart, for the verifier follows all
 * paths from here to the end of egress().
 */
__noinline u32 syn_ack_leaves_first(u64 socket, u64 packet_ns, u32 flags)
{
	struct tcp_sock *tp = (void *)socket;
	struct request_sock *request = NULL;

	READ(READS_PROBED, request, tp->fastopen_rsk);
	if (request)
		return !is_later_than_first((void *)request, packet_ns);
	return answers_crossed_syn(tp, flags, READS_PROBED);
}

/* As OutSegs counts, and a SYN-ACK that it does not count. */
INLINE bool leaves_first(struct tcp_sock *tp, const struct packet *packet, const struct __sk_buff *skb)
{
	if (is_first_transmission(packet->seq, packet->end_seq, tp->snd_nxt))
		return true;
	return packet->tcp->flags & TCPHDR_SYN && syn_ack_leaves_first(untyped(tp), skb->tstamp, packet->tcp->flags);
}

INLINE void remember_sent_again(struct __sk_buff *skb, const struct packet *packet)
{
	struct sent_again again = {
		.seq = packet->seq,
		.flags = packet_flags(packet, skb->protocol),
		.window = bpf_ntohs(packet->tcp->window),
	};
	u64 key = (u64)skb->sk;

	again.length = load_options(again.options, packet, skb);
	bpf_map_update_elem(&sent_again, &key, &again, 0);
}

INLINE void egress(struct __sk_buff *skb)
{
	struct sock *sk = skb->sk; /* for helpers only */
	const struct sock *readable;
	struct tcp_sock *tp = sk ? connection_of(sk) : NULL;
	struct owner *owner = NULL;
	u32 kind = KIND_TRANSMIT;
	struct counters *counters;
	struct connection c;
	struct packet packet;
	u32 sampling;

	if ((!config.options && segments_rest()) || !read_packet(&packet, skb))
		return;
	if (tp ? !leaves_first(tp, &packet, skb) : (packet.tcp->flags & TCPHDR_SYN) && is_repeated_synack(skb, &packet)) {
		if (config.options && kind_wanted(KIND_RETRANSMIT))
			remember_sent_again(skb, &packet);
		return;
	}
	if (tp)
		kind = kind_of_segment(tp, packet.seq, packet.end_seq, READS_BTF);
	if (tp && kind_wanted(KIND_ACKED))
		delivery_left(sk, packet.end_seq, READS_BTF);
	if (tp && kind_wanted(KIND_TRANSLATE) && is_translated(&packet, skb, tp))
		tell_translation(&packet, skb, sk, tp);
	counters = counters_of(kind);
	if (!counters || !kind_wanted(kind))
		return;
	COUNT(counters->seen, 1);
	if (tp) {
		readable = (void *)tp;
		if (!socket_ports_pass(&readable->__sk_common, READS_BTF))
			goto filtered;
		owner = segment_owner(sk, tp, packet.tcp->flags, is_at_work(readable, READS_BTF), READS_BTF);
	}
	if (owner_passes(owner) && read_egress_connection(&c, &packet, skb, tp) && connection_passes(&c)) {
		sampling = sample(counters, &c, true);
		if (sampling != LEFT_OUT)
			SUBMIT_PACKET(counters, skb, &packet,
				      egress_fill(record, kind, skb, &packet, &c, tp, owner, sampling));
		return;
	}
filtered:
	COUNT(counters->filtered, 1);
}

SEC("cgroup_skb/egress") int cgroup_transmit(struct __sk_buff *skb)
{
	egress(skb);
	return 1; /* let the packet pass */
}

