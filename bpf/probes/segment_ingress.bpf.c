/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* IP hands a segment to TCP: each packet once, when its socket has been found and is not yet locked for it. */
#include "tcprism/arrival.h"
#include "tcprism/discard.h"

INLINE void receive_fill(struct segment *s, struct __sk_buff *skb, const struct packet *packet,
			 const struct connection *c, struct tcp_sock *tp, const struct owner *owner, u32 sampling)
{
	event_begin(&s->event, KIND_RECEIVE, c, owner);
	s->event.sampling = sampling;
	s->event.socket = cookie_of_packet(skb, tp);
	s->event.error = 0;
	packet_into(s, packet, skb);
	s->segs = segs_of(skb->gso_segs, skb->gso_size, packet->payload);
	s->cause = CAUSE_NONE;
	if (tp) {
		read_congestion(s, tp, READS_BTF);
		s->event.flags |= window_scale_flags(tp, false);
		s->arrival = arrival_of(skb, tp, packet);
	} else {
		no_congestion(s);
		s->arrival = ARRIVAL_UNKNOWN;
	}
}

/* A listener's segment belongs to a handshake: the packet has both ends, which NAT has translated back by now. */
INLINE bool read_ingress_connection(struct connection *to, const struct packet *packet, struct __sk_buff *skb,
				    struct tcp_sock *tp)
{
	struct sock *sk = (void *)tp;

	if (tp) {
		read_connection(to, &sk->__sk_common, READS_BTF);
		return true;
	}
	if (!read_packet_connection(to, packet, skb, false))
		return false;
	to->netns = netns_of_other(skb->sk);
	return ports_pass(to->local_port, to->remote_port);
}

INLINE void ingress(struct __sk_buff *skb)
{
	struct counters *counters = counters_of(KIND_RECEIVE);
	struct sock *sk = skb->sk; /* for helpers only */
	const struct sock *readable;
	struct connection c;
	struct packet packet;
	struct owner *owner;
	struct tcp_sock *tp;
	u32 sampling;

	if (!counters || !sk || !read_packet(&packet, skb))
		return;
	COUNT(counters->seen, 1);
	tp = connection_of(sk);
	readable = (void *)tp;
	if (tp && !socket_ports_pass(&readable->__sk_common, READS_BTF))
		goto filtered;
	owner = owner_of(sk, READS_BTF);
	if (owner_passes(owner) && read_ingress_connection(&c, &packet, skb, tp) && connection_passes(&c)) {
		sampling = sample(counters, &c, true);
		if (sampling != LEFT_OUT)
			SUBMIT_PACKET(counters, skb, &packet,
				      receive_fill(record, skb, &packet, &c, tp, owner, sampling));
		return;
	}
filtered:
	COUNT(counters->filtered, 1);
}

SEC("cgroup_skb/ingress") int cgroup_receive(struct __sk_buff *skb)
{
	ingress(skb);
	return 1; /* let the packet pass */
}

/* What the cgroup's hook does not see, for it needs a full socket. TIME_WAIT frees whatever it has dealt with. */
INLINE u32 arrival_without_socket(const struct sk_buff *skb, const struct seen_packet *packet, const struct sock *sk,
				  u32 reason, bool *found)
{
	struct judged judged;

	*found = true;
	if (IS_REASON(reason, NO_SOCKET))
		return ARRIVAL_NO_SOCKET;
	if (IS_REASON(reason, TCP_CSUM) && !read_judged(&judged, skb, &packet->tcp, reason))
		return ARRIVAL_CHECKSUM_ERROR;
	*found = is_there(sk) && sk->__sk_common.skc_state == TCP_TIME_WAIT;
	return ARRIVAL_UNKNOWN;
}

INLINE void receive_of_packet(const struct sk_buff *skb, const struct seen_packet *packet, const struct sock *sk,
			      u32 arrival)
{
	struct counters *counters = counters_of(KIND_RECEIVE);
	struct segment s = {};
	struct connection c;

	if (!counters)
		return;
	COUNT(counters->seen, 1);
	packet_connection(&c, packet, skb, false);
	if (is_there(sk))
		c.netns = read_netns(&sk->__sk_common, READS_BTF);
	if (!ports_pass(c.local_port, c.remote_port) || !owner_passes(NULL) || !connection_passes(&c)) {
		COUNT(counters->filtered, 1);
		return;
	}
	event_begin(&s.event, KIND_RECEIVE, &c, NULL);
	s.event.sampling = sample(counters, &c, true);
	if (s.event.sampling == LEFT_OUT)
		return;
	seen_into(&s, packet);
	no_congestion(&s);
	read_segs(&s, skb);
	s.arrival = arrival;
	if (!config.options) {
		SUBMIT(segment, struct segment, counters, *record = s);
		return;
	}
	SUBMIT(segment_40, struct segment, counters, {
		*record = s;
		record->options_length = read_options((u8 *)(record + 1), packet);
	});
}

SEC("tp_btf/kfree_skb") int tracepoint_receive(u64 *ctx)
{
	const struct sk_buff *skb = (void *)ctx[0];
	const struct sock *sk = DROP_HAS_SOCKET() ? (void *)ctx[3] : NULL;
	struct seen_packet packet;
	u32 arrival;
	bool found;

	if (!DROP_HAS_REASON() || is_copy(skb) || !read_seen_packet(&packet, skb))
		return 0;
	arrival = arrival_without_socket(skb, &packet, sk, ctx[2], &found);
	if (found)
		receive_of_packet(skb, &packet, sk, arrival);
	return 0;
}
