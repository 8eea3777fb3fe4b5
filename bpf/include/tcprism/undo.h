/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * When the kernel finds that what it retransmitted had not been lost (DSACK, Eifel, F-RTO), it sets undo_marker to 0
 * (tcp_undo_cwnd_reduction()). No hook reports that on every kernel, so the marker is noted at each retransmission,
 * and compared when the next ACK arrives or the state changes.
 */
#ifndef TCPRISM_UNDO_H
#define TCPRISM_UNDO_H

#include "loss.h"

INLINE void undo_note(struct note *note, const struct tcp_sock *tp, const struct pending *again)
{
	if (!tp->undo_marker)
		return;
	if (note->undo_marker != tp->undo_marker) {
		note->undo_marker = tp->undo_marker;
		note->undo_end = again->end_seq;
		note->undo_segs = 0;
	}
	note->undo_segs += again->segs;
	if (after(again->end_seq, note->undo_end))
		note->undo_end = again->end_seq;
}

INLINE void undo_fill(struct loss *to, struct sock *sk, struct tcp_sock *tp, const struct note *note,
		      const struct connection *c)
{
	struct segment *s = &to->segment;

	__builtin_memset(to, 0, sizeof(*to));
	event_begin(&s->event, KIND_UNDO, c, &note->owner);
	s->event.socket = cookie_of(sk, READS_BTF);
	s->event.seq = note->undo_marker;
	s->event.bytes = note->undo_end - note->undo_marker;
	s->end_seq = note->undo_end;
	s->ack = tp->rcv_nxt;
	s->window = WINDOW_UNKNOWN;
	to->undone = note->undo_segs;
	read_evidence(to, tp);
}

INLINE void undo_event(struct sock *sk, struct tcp_sock *tp, const struct note *note)
{
	struct counters *counters = counters_of(KIND_UNDO);
	struct connection c;

	if (!counters || !segment_passes(counters, &c, &sk->__sk_common, &note->owner, READS_BTF))
		return;
	SUBMIT(loss, struct loss, counters, undo_fill(record, sk, tp, note, &c));
}

INLINE void undo_check(struct sock *sk, struct note *note)
{
	struct tcp_sock *tp;

	if (!kind_wanted(KIND_UNDO) || !note->undo_marker)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || tp->undo_marker == note->undo_marker)
		return;
	if (!tp->undo_marker)
		undo_event(sk, tp, note);
	note->undo_marker = 0;
}

#endif
