/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The life of a connection: its transitions, how it began, its totals as it ends. */
#include "tcprism/ending.h"
#include "tcprism/transition.h"
#include "tcprism/undo.h"

INLINE u32 kind_of_transition(const struct moment *m, const struct note *note)
{
	if (m->old_state == TCP_SYN_SENT && (m->new_state == TCP_ESTABLISHED || m->new_state == TCP_CLOSE))
		return KIND_CONNECT;
	if (m->old_state == TCP_SYN_RECV && m->new_state == TCP_ESTABLISHED)
		return note && note->active ? KIND_CONNECT : KIND_ACCEPT;
	if (m->new_state == TCP_CLOSE && m->old_state != TCP_LISTEN && m->old_state != TCP_SYN_RECV)
		return KIND_CLOSE;
	return KIND_STATE;
}

INLINE void count_filtered(u32 kind)
{
	struct counters *counters = kind_wanted(kind) ? counters_of(kind) : NULL;

	if (!counters)
		return;
	COUNT(counters->seen, 1);
	COUNT(counters->filtered, 1);
}

/* A connection that the port filters reject. */
INLINE void transition_filtered(const struct moment *m)
{
	u32 kind = kind_of_transition(m, NULL);

	if (m->new_state == m->old_state)
		return;
	if (kind != KIND_STATE)
		count_filtered(kind);
	count_filtered(KIND_STATE);
}

INLINE void transition(struct sock *sk, struct moment *m)
{
	struct note *note = note_transition(sk, m);

	if (m->new_state == m->old_state) /* close() after shutdown() */
		return;
	m->kind = kind_of_transition(m, note);
	if (note)
		undo_check(sk, note);
	if (m->kind == KIND_CLOSE)
		m->ending = ending_of(sk, note, m->old_state);
	if (m->kind != KIND_STATE)
		connection_happened(sk, note, m);
	m->kind = KIND_STATE;
	m->elapsed_ns = ELAPSED_UNKNOWN;
	m->ending = ENDING_NONE;
	connection_happened(sk, note, m);
}

INLINE void listener_follow(struct sock *sk, const struct moment *m)
{
	if (m->new_state == TCP_LISTEN)
		listener_is_current(sk);
	else if (m->old_state == TCP_LISTEN && m->new_state == TCP_CLOSE)
		listener_forget(sk);
	else if (m->old_state == TCP_LISTEN && !(config.local_storage && note_of(sk, READS_BTF))) /* inherits none */
		listener_accepts(sk);
}

SEC("tp_btf/inet_sock_set_state") int tracepoint_state(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct moment m = { .elapsed_ns = ELAPSED_UNKNOWN, .reason = REASON_UNKNOWN };

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	m.old_state = ctx[1];
	m.new_state = ctx[2];
	listener_follow(sk, &m);
	if (ports_may_pass(&sk->__sk_common, READS_BTF))
		transition(sk, &m);
	else
		transition_filtered(&m);
	if (m.new_state == TCP_CLOSE)
		note_forget(sk);
	return 0;
}
