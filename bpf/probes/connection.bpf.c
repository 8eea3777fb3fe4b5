/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The life of a connection: its transitions, how it began, its totals as it ends. */
#include "tcprism/ending.h"
#include "tcprism/transition.h"
#include "tcprism/undo.h"

INLINE u32 kind_of_transition(const struct moment *m, const struct note *note)
{
	if (m->old_state == TCP_SYN_SENT && (m->new_state == TCP_ESTABLISHED || m->new_state == TCP_CLOSE))
		return KIND_CONNECT;
	if (is_accepted(m, note))
		return KIND_ACCEPT;
	if (m->old_state == TCP_SYN_RECV && m->new_state == TCP_ESTABLISHED)
		return KIND_CONNECT;
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
	if (kind == KIND_ACCEPT && m->new_state == TCP_CLOSE)
		count_filtered(KIND_CLOSE);
	count_filtered(KIND_STATE);
}

/* Fast Open may begin and end in one transition. */
INLINE bool begins_and_ends(const struct moment *m)
{
	return m->kind == KIND_ACCEPT && m->new_state == TCP_CLOSE;
}

INLINE bool transition_wanted(const struct moment *m)
{
	return kind_wanted(m->kind) || kind_wanted(KIND_STATE) || (begins_and_ends(m) && kind_wanted(KIND_CLOSE));
}

INLINE void transition(struct sock *sk, struct moment *m)
{
	struct note *note = note_transition(sk, m);
	const struct owner *owner = note ? &note->owner : NULL;
	struct connection c;

	if (m->new_state == m->old_state) /* close() after shutdown() */
		return;
	m->kind = kind_of_transition(m, note);
	m->error = error_of_attempt(sk, note, m);
	m->iss = iss_of(note);
	if (note)
		undo_check(sk, note);
	if (!transition_wanted(m))
		return;
	read_connection(&c, &sk->__sk_common, READS_BTF);
	if (begins_and_ends(m)) {
		connection_happened(sk, m, &c, owner);
		m->kind = KIND_CLOSE;
	}
	if (m->kind == KIND_CLOSE)
		m->ending = ending_of(sk, note, m->old_state);
	if (m->kind != KIND_STATE)
		connection_happened(sk, m, &c, owner);
	m->kind = KIND_STATE;
	m->elapsed_ns = ELAPSED_UNKNOWN;
	m->ending = ENDING_NONE;
	connection_happened(sk, m, &c, owner);
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

/* The latest of the errors that wait for recvmsg(MSG_ERRQUEUE), if it came from the network. */
INLINE u32 queued_error(struct sock *sk)
{
	const struct sk_buff *skb = NULL, *first = (void *)&sk->sk_error_queue;
	const struct sock_exterr_skb *queued;
	u32 error = 0;
	u8 origin = 0;

	READ(READS_PROBED, skb, sk->sk_error_queue.prev);
	if (skb == first)
		return 0;
	queued = (const void *)skb->cb;
	READ(READS_PROBED, origin, queued->ee.ee_origin);
	READ(READS_PROBED, error, queued->ee.ee_errno);
	return origin >= SO_EE_ORIGIN_LOCAL && origin <= SO_EE_ORIGIN_ICMP6 ? error : 0;
}

/* Before its process is woken, who may take the error away: tcp_v4_err(), tcp_v6_err(). */
SEC("tp_btf/inet_sk_error_report") int tracepoint_error(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct note *note;
	u32 error;

	if (sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	note = note_of(sk, READS_BTF);
	error = sk->sk_err ? sk->sk_err : queued_error(sk);
	if (note && error)
		note->error = error;
	return 0;
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
