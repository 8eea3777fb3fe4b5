/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Retransmissions: as many as RetransSegs counts, tail loss probes included, on every kernel. */
#include "tcprism/sent_again.h"
#include "tcprism/undo.h"

INLINE void retransmit_submit(struct counters *counters, const struct loss *l, const struct sock *sk)
{
	if (!config.options) {
		SUBMIT(loss, struct loss, counters, *record = *l);
		return;
	}
	SUBMIT(loss_40, struct loss_40, counters, {
		record->loss = *l;
		sent_again_into(record, sk);
	});
}

INLINE void retransmit_event(struct sock *sk, const struct sk_buff *skb, int error)
{
	struct counters *counters = counters_of(KIND_RETRANSMIT);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct note *note = kind_wanted(KIND_UNDO) ? note_create(sk, READS_BTF) : note_of(sk, READS_BTF);
	struct owner *owner = note ? &note->owner : NULL;
	struct pending pending = {};
	struct connection c;
	struct loss l = {};

	if (!counters || !tp)
		return;
	read_control_block(&pending, skb, READS_BTF);
	if (note && kind_wanted(KIND_UNDO))
		undo_note(note, tp, &pending);
	if (!kind_wanted(KIND_RETRANSMIT) || !segment_passes(counters, &c, &sk->__sk_common, owner, READS_BTF))
		return;
	pending.ack = pending.flags & TCPHDR_ACK ? tp->rcv_nxt : 0;
	event_begin(&l.segment.event, KIND_RETRANSMIT, &c, owner);
	l.segment.event.socket = cookie_of(sk, READS_BTF);
	l.segment.event.error = error < 0 ? error : 0;
	pending_into(&l.segment, &pending);
	l.segment.window = window_of(tp, pending.flags, READS_BTF);
	read_evidence(&l, tp);
	l.segment.cause = cause_of(tp, l.segment.ca_state, pending.flags);
	if (note && note->established) {
		l.first_seq = note->first_seq;
		l.first_seq_known = true;
	}
	retransmit_submit(counters, &l, sk);
}

SEC("tp_btf/tcp_retransmit_skb") int tracepoint_retransmit(u64 *ctx)
{
	retransmit_event((void *)ctx[0], (void *)ctx[1], RETRANSMIT_HAS_ERROR() ? ctx[2] : 0);
	return 0;
}

/* A SYN-ACK: there are a request and a listener, but no connection yet. */
INLINE void retransmit_synack_event(struct sock *listener, const struct request_sock *req)
{
	struct counters *counters = counters_of(KIND_RETRANSMIT);
	struct owner *owner = owner_of(listener, READS_BTF);
	struct tcp_request_sock *request = (void *)untyped(req);
	struct connection c;
	struct loss l = {};
	struct segment *s = &l.segment;

	if (!counters)
		return;
	if (!segment_passes(counters, &c, &req->__req_common, owner, READS_BTF))
		return;
	event_begin(&s->event, KIND_RETRANSMIT, &c, owner);
	s->event.flags = TCPHDR_SYN | TCPHDR_ACK;
	bpf_probe_read_kernel(&s->event.seq, sizeof(u32), &request->snt_isn);
	bpf_probe_read_kernel(&s->ack, sizeof(u32), &request->rcv_nxt);
	s->end_seq = s->event.seq + 1;
	s->segs = 1;
	s->window = WINDOW_UNKNOWN;
	no_evidence(&l);
	s->cause = CAUSE_SYN_ACK;
	retransmit_submit(counters, &l, listener);
}

SEC("tp_btf/tcp_retransmit_synack") int tracepoint_retransmit_synack(u64 *ctx)
{
	retransmit_synack_event((void *)ctx[0], (void *)ctx[1]);
	return 0;
}
