/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment that this host threw away, on its way out or in. */
#include "tcprism/packet.h"

/* A packet that goes out has its sender's socket; one that came in has none, or the one that it was found for. */
INLINE bool is_outgoing(const struct sock *sk, const struct seen_packet *packet)
{
	return sk->__sk_common.skc_num == __builtin_bswap16(packet->tcp.source);
}

INLINE void packet_into_loss(struct loss *to, const struct seen_packet *packet)
{
	struct segment *s = &to->segment;
	u32 flags = packet->tcp.flags;

	s->event.flags = flags;
	s->event.seq = __builtin_bswap32(packet->tcp.seq);
	s->event.bytes = packet->length - (packet->tcp.offset_and_flags >> 4) * 4;
	s->end_seq = s->event.seq + s->event.bytes + !!(flags & TCPHDR_SYN) + !!(flags & TCPHDR_FIN);
	s->ack = flags & TCPHDR_ACK ? __builtin_bswap32(packet->tcp.ack) : 0;
	s->window = __builtin_bswap16(packet->tcp.window);
	s->segs = 1;
}

INLINE void drop_event(const struct sk_buff *skb, struct sock *sk, u32 reason)
{
	struct counters *counters = counters_of(KIND_DROP);
	struct owner *owner = NULL;
	struct seen_packet packet;
	struct connection c;
	struct loss l = {};

	if (!counters || !read_seen_packet(&packet, skb))
		return;
	COUNT(counters->seen, 1);
	no_evidence(&l);
	c.netns = 0;
	if (is_there(sk)) {
		l.outgoing = is_outgoing(sk, &packet);
		c.netns = read_netns(&sk->__sk_common, READS_BTF);
		if (is_full_socket(sk)) {
			owner = owner_of(sk, READS_BTF);
			l.segment.event.socket = cookie_of(sk, READS_PROBED); /* none is made for a pointer out of a packet */
		}
	}
	if (!c.netns)
		c.netns = netns_of_device(skb);
	packet_connection(&c, &packet, l.outgoing);
	if (!ports_pass(c.local_port, c.remote_port) || !owner_passes(owner) || !connection_passes(&c)) {
		COUNT(counters->filtered, 1);
		return;
	}
	event_begin(&l.segment.event, KIND_DROP, &c, owner);
	packet_into_loss(&l, &packet);
	l.reason = reason;
	SUBMIT(loss, struct loss, counters, *record = l);
}

SEC("tp_btf/kfree_skb") int tracepoint_drop(u64 *ctx)
{
	const struct sk_buff *skb = (void *)ctx[0];
	struct sock *sk = skb->sk;

	drop_event(skb, sk, DROP_HAS_REASON() ? ctx[2] : REASON_UNKNOWN);
	return 0;
}
