/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Recording what happened to a connection. */
#ifndef TCPRISM_CONNECTION_EVENT_H
#define TCPRISM_CONNECTION_EVENT_H

#include "totals.h"

/* What a hook knows about it. */
struct moment {
	/* Volatile, for the verifier then forgets what it has compared them with, and does not check each combination. */
	volatile u8 kind, old_state, new_state;
	u8 sent; /* reset */
	u8 ending;
	u32 reason;
	s32 error; /* 0: the socket has it, if any */
	u32 iss; /* 0: not known */
	u64 elapsed_ns;
};

INLINE bool connection_admit(struct counters *counters, const struct connection *c, const struct owner *owner)
{
	COUNT(counters->seen, 1);
	if (ports_pass(c->local_port, c->remote_port) && owner_passes(owner) && connection_passes(c))
		return true;
	COUNT(counters->filtered, 1);
	return false;
}

INLINE void fill_moment(struct connection_event *to, const struct moment *m)
{
	to->elapsed_ns = m->elapsed_ns;
	to->reset_reason = m->reason;
	to->old_state = m->old_state;
	to->new_state = m->new_state;
	to->ending = m->ending;
	to->sent = m->sent;
	to->iss = m->kind == KIND_STATE ? 0 : m->iss;
}

/* What is known of the SYN that this end sent: nothing was sent after it yet when `first_seq` was noted. */
INLINE u32 iss_of(const struct note *note)
{
	return note && note->established ? note->first_seq - 1 : 0;
}

/*
 * Of the peer's SYN: bytes_received counts all that rcv_nxt has gone on by since, as tcp_rcv_nxt_update() does. A socket
 * that has begun to connect has no rcv_nxt (tcp_connect_init()); before that it may have an earlier connection's.
 */
INLINE u32 irs_of(const struct tcp_sock *tp, u8 kind)
{
	u32 next = tp->rcv_nxt;

	return next && kind != KIND_STATE ? next - (u32)tp->bytes_received - 1 : 0;
}

/* Without a connection there are no totals. */
INLINE void fill_totals(struct connection_event *to, struct sock *sk, const struct moment *m)
{
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (tp) {
		read_totals(&to->totals, tp);
		to->irs = irs_of(tp, m->kind);
		return;
	}
	to->totals.delivery_rate = RATE_UNKNOWN;
	to->totals.min_rtt_us = MICROSECONDS_UNKNOWN;
	to->totals.srtt_us = MICROSECONDS_UNKNOWN;
}

/* A subprogram, so that there is one copy for all kinds. `sk` is a full socket or NULL. */
static __noinline int connection_submit(struct sock *sk, const struct moment *m, const struct connection *c,
						       const struct owner *owner)
{
	struct counters *counters = counters_of(m->kind);
	struct connection_event *record;
	struct lane *lane;

	if (!counters || !connection_admit(counters, c, owner))
		return 0;
	record = RESERVE(connection, &lane, counters);
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	event_begin(&record->event, m->kind, c, owner);
	fill_moment(record, m);
	fill_totals(record, sk, m);
	if (sk) {
		record->event.socket = cookie_of(sk, READS_BTF);
		record->event.error = -(m->error ? m->error : sk->sk_err);
	}
	ring_submit(lane);
	COUNT(counters->submitted, 1);
	return 0;
}

INLINE void connection_happened(struct sock *sk, const struct moment *m, const struct connection *c,
				const struct owner *owner)
{
	if (kind_wanted(m->kind))
		connection_submit(sk, m, c, owner);
}

#endif
