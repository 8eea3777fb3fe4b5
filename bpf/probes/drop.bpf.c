/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment that this host threw away, on its way out or in, and should have kept. */
#include "tcprism/discard.h"
#include "tcprism/loss.h"
#include "tcprism/owner.h"

struct dropped {
	struct seen_packet packet;
	struct connection connection;
	struct judged judged; /* on its way in, if TCP has had it */
	const struct owner *owner;
	u64 socket;
	u32 reason;
	bool outgoing, is_judged;
};

/* The queued of several segments has the header of the first, and the end of the last. */
INLINE void packet_into_loss(struct loss *to, const struct dropped *d)
{
	struct segment *s = &to->segment;

	seen_into(s, &d->packet);
	if (d->is_judged) {
		s->event.bytes = d->judged.payload;
		s->end_seq = d->judged.end_seq;
	}
}

/*
 * A packet that goes out has its sender's socket; one that came in may have the one that it was found for. Ports tell,
 * unless they are the same at both ends or NAT has changed them: then whether any device has received it.
 */
INLINE bool is_outgoing(const struct sock *sk, const struct sk_buff *skb, const struct seen_packet *packet)
{
	u16 port = sk->__sk_common.skc_num;
	bool from = port == bpf_ntohs(packet->tcp.source), to = port == bpf_ntohs(packet->tcp.dest);

	return from == to ? !skb->skb_iif : from;
}

/* A socket that is gone lets go of what TCP had taken in and nobody has read, a FIN at least: no loss. */
INLINE bool was_received(const struct sock *sk, const struct dropped *d)
{
	return !d->outgoing && is_full_socket(sk) && sk->__sk_common.skc_state == TCP_CLOSE;
}

/*
 * The socket is one out of a packet: no cookie can be made for it. A connection has the socket's ends, whatever NAT
 * has written into the packet; a listener has only one.
 */
INLINE void read_socket(struct dropped *to, struct sock *sk, const struct sk_buff *skb)
{
	struct connection *c = &to->connection;

	if (is_full_socket(sk) && sk->__sk_common.skc_dport) {
		read_connection(c, &sk->__sk_common, READS_BTF);
	} else {
		packet_connection(c, &to->packet, skb, to->outgoing);
		c->netns = read_netns(&sk->__sk_common, READS_BTF);
	}
	if (!is_full_socket(sk))
		return;
	to->owner = owner_of(sk, READS_BTF);
	to->socket = cookie_of(sk, READS_PROBED);
}

INLINE void drop_event(struct dropped *d)
{
	struct counters *counters = counters_of(KIND_DROP);
	struct connection *c = &d->connection;
	struct loss l = {};

	if (!counters)
		return;
	COUNT(counters->seen, 1);
	if (!ports_pass(c->local_port, c->remote_port) || !owner_passes(d->owner) || !connection_passes(c)) {
		COUNT(counters->filtered, 1);
		return;
	}
	event_begin(&l.segment.event, KIND_DROP, c, d->owner);
	no_evidence(&l);
	packet_into_loss(&l, d);
	l.segment.event.socket = d->socket;
	l.outgoing = d->outgoing;
	l.reason = d->reason;
	SUBMIT(loss, struct loss, counters, *record = l);
}

SEC("tp_btf/kfree_skb") int tracepoint_drop(u64 *ctx)
{
	const struct sk_buff *skb = (void *)ctx[0];
	struct sock *sk = skb->sk;
	struct dropped d = { .reason = DROP_HAS_REASON() ? ctx[2] : REASON_UNKNOWN };

	if (is_copy(skb) || !read_seen_packet(&d.packet, skb))
		return 0;
	if (is_there(sk)) {
		d.outgoing = is_outgoing(sk, skb, &d.packet);
		if (was_received(sk, &d))
			return 0;
	} else if (DROP_HAS_SOCKET()) {
		sk = (void *)ctx[3];
	}
	d.is_judged = !d.outgoing && read_judged(&d.judged, skb, &d.packet.tcp, d.reason);
	if (d.is_judged && !is_lost(sk, &d.judged))
		return 0;
	if (is_there(sk))
		read_socket(&d, sk, skb);
	else
		packet_connection(&d.connection, &d.packet, skb, false);
	drop_event(&d);
	return 0;
}
