/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment arrives at an established connection, before TCP looks at it: what the one before it has changed. */
#include "tcprism/undo.h"

SEC("tp_btf/tcp_probe") int tracepoint_ack(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct sk_buff *skb = (void *)ctx[1];
	const struct tcp_skb_cb *cb = (const void *)skb->cb;
	struct note *note = note_of(sk, READS_BTF);

	if (note)
		undo_check(sk, note);
	if (!kind_wanted(KIND_ACKED))
		return 0;
	if (cb->tcp_flags & TCPHDR_ACK)
		delivery_acked(sk, cb->ack_seq, note ? &note->owner : NULL);
	if (cb->seq != cb->end_seq)
		delivery_arrived(sk, cb->end_seq);
	return 0;
}
