/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* ACKs and data as they arrive: which sends are acknowledged, and since when there is data to read. */
#include "tcprism/delivery.h"

INLINE void delivery_fill(struct delivery *to, const struct outstanding *o, struct sock *sk)
{
	struct connection c;
	bool known;

	read_connection(&c, &sk->__sk_common, READS_BTF);
	event_begin(&to->event, KIND_ACKED, &c, owner_of(sk, READS_BTF));
	to->event.socket = cookie_of(sk, READS_BTF);
	to->event.flags = 0;
	to->event.error = 0;
	to->event.seq = o->seq;
	to->event.bytes = o->end_seq - o->seq;
	to->send_ts_ns = o->send_ts_ns;
	known = o->left_ts_ns && o->send_ts_ns >= on_since();
	to->unsent_us = known ? elapsed_us(o->send_ts_ns, o->left_ts_ns) : MICROSECONDS_UNKNOWN;
	to->unacked_us = known ? elapsed_us(o->left_ts_ns, to->event.ts_ns) : MICROSECONDS_UNKNOWN;
}

/* The oldest waiting send has been acknowledged. It passed the filters when it was queued. */
static __noinline int delivery_submit(struct sock *sk, struct deliveries *d)
{
	struct counters *counters = counters_of(KIND_ACKED);
	const struct outstanding *o = &d->outstanding[AT(d->acked)];

	if (!counters)
		return 0;
	COUNT(counters->seen, 1);
	SUBMIT(delivery, struct delivery, counters, delivery_fill(record, o, sk));
	if (d->left == d->acked)
		d->left++;
	d->acked++;
	return 0;
}

/* Everything before `una` has been acknowledged. */
INLINE void delivery_acked(struct sock *sk, u32 una)
{
	struct deliveries *d = deliveries_of(sk, READS_BTF);

	if (!d)
		return;
	for (u32 i = 0; i < QUEUED && d->acked != d->sent; i++) {
		if (after(d->outstanding[AT(d->acked)].end_seq, una))
			break;
		delivery_submit(sk, d);
	}
}

SEC("tp_btf/tcp_probe") int tracepoint_acked(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct sk_buff *skb = (void *)ctx[1];
	const struct tcp_skb_cb *cb = (const void *)skb->cb;

	if (cb->tcp_flags & TCPHDR_ACK)
		delivery_acked(sk, cb->ack_seq);
	if (cb->seq != cb->end_seq)
		delivery_arrived(sk, cb->end_seq);
	return 0;
}

/* After ESTABLISHED no hook sees ACKs. The one that caused this transition has been processed. */
SEC("tp_btf/inet_sock_set_state") int tracepoint_acked_at_end(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct tcp_sock *tp;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		delivery_acked(sk, tp->snd_una);
	if (ctx[2] == TCP_CLOSE)
		deliveries_forget(sk);
	return 0;
}
