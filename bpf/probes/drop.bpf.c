/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment that this host dropped, on its way out or in. */
#include "tcprism/loss.h"
#include "tcprism/packet.h"

INLINE void packet_into_loss(struct loss *to, const struct seen_packet *packet)
{
	struct segment *s = &to->segment;
	u32 header = (packet->tcp.offset_and_flags >> 4) * 4;
	u32 flags = packet->tcp.flags;

	s->event.flags = flags;
	s->event.seq = bpf_ntohl(packet->tcp.seq);
	s->event.bytes = packet->length > header ? packet->length - header : 0; /* lengths from the wire may be wrong */
	s->end_seq = s->event.seq + s->event.bytes + !!(flags & TCPHDR_SYN) + !!(flags & TCPHDR_FIN);
	s->ack = flags & TCPHDR_ACK ? bpf_ntohl(packet->tcp.ack) : 0;
	s->window = bpf_ntohs(packet->tcp.window);
	s->segs = 1;
}

/* The socket of an outgoing packet is the sender's; an incoming one may have the socket that it was meant for. */
INLINE bool is_outgoing(const struct sock *sk, const struct seen_packet *packet)
{
	return sk->__sk_common.skc_num == bpf_ntohs(packet->tcp.source);
}

struct dropped {
	struct seen_packet packet;
	struct connection connection;
	const struct owner *owner;
	u64 socket;
	bool outgoing;
};

/* A closed socket frees what TCP received and nobody read, at least a FIN: no loss. */
INLINE bool was_received(const struct sock *sk, const struct dropped *d)
{
	return !d->outgoing && is_full_socket(sk) && sk->__sk_common.skc_state == TCP_CLOSE;
}

/* A socket found through a packet: no helper may make a cookie for it. */
INLINE void read_socket(struct dropped *to, struct sock *sk)
{
	to->outgoing = is_outgoing(sk, &to->packet);
	to->connection.netns = read_netns(&sk->__sk_common, READS_BTF);
	if (!is_full_socket(sk))
		return;
	to->owner = owner_of(sk, READS_BTF);
	to->socket = cookie_of(sk, READS_PROBED);
}

INLINE void drop_event(struct dropped *d, const struct sk_buff *skb, u32 reason)
{
	struct counters *counters = counters_of(KIND_DROP);
	struct connection *c = &d->connection;
	struct loss l = {};

	if (!counters)
		return;
	COUNT(counters->seen, 1);
	if (!c->netns)
		c->netns = netns_of_device(skb);
	packet_connection(c, &d->packet, d->outgoing);
	if (!ports_pass(c->local_port, c->remote_port) || !owner_passes(d->owner) || !connection_passes(c)) {
		COUNT(counters->filtered, 1);
		return;
	}
	event_begin(&l.segment.event, KIND_DROP, c, d->owner);
	no_evidence(&l);
	packet_into_loss(&l, &d->packet);
	l.segment.event.socket = d->socket;
	l.outgoing = d->outgoing;
	l.reason = reason;
	SUBMIT(loss, struct loss, counters, *record = l);
}

SEC("tp_btf/kfree_skb") int tracepoint_drop(u64 *ctx)
{
	const struct sk_buff *skb = (void *)ctx[0];
	struct sock *sender = skb->sk;
	struct dropped d = {};

	/* A packet for another host, seen because of a bridge or a capture, is no loss. */
	if (READ_BITS(READS_BTF, skb, pkt_type) == PACKET_OTHERHOST || !read_seen_packet(&d.packet, skb))
		return 0;
	if (is_there(sender)) {
		read_socket(&d, sender);
		if (was_received(sender, &d))
			return 0;
	} else if (DROP_HAS_SOCKET()) {
		struct sock *receiver = (void *)ctx[3];

		if (is_there(receiver))
			read_socket(&d, receiver);
	}
	drop_event(&d, skb, DROP_HAS_REASON() ? ctx[2] : REASON_UNKNOWN);
	return 0;
}
