/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What is stored with a socket when its state changes: its owner, and the time. */
#ifndef TCPRISM_TRANSITION_H
#define TCPRISM_TRANSITION_H

#include "connection_event.h"

/* Connections that have been established for MPTCP sockets. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} mptcp_connections SEC(".maps");

INLINE void count_mptcp(const struct tcp_sock *tp)
{
	u32 zero = 0;
	u64 *count = is_below_mptcp(tp, READS_BTF) ? bpf_map_lookup_elem(&mptcp_connections, &zero) : NULL;

	if (count)
		COUNT(*count, 1);
}

/*
 * Only the socket's own process makes the transitions into these states: it connects, listens or closes. One that
 * aborts closes at once; an error would mean that something else did: the peer, a timer, `ss -K` (tcp_abort()).
 */
INLINE bool made_by_owner(const struct sock *sk, const struct moment *m)
{
	u32 state = m->new_state;

	if (state == TCP_CLOSE)
		return m->old_state != TCP_LISTEN && is_held(sk, READS_BTF) && !sk->sk_err;
	return state == TCP_SYN_SENT || state == TCP_LISTEN || state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK;
}

/* A socket can have one connection after another. */
INLINE void note_begins(struct note *note)
{
	note->active = true;
	note->established = false;
	note->reset = ENDING_NONE;
	note->error = 0;
	note->undo_marker = 0;
	note->began_ns = 0;
}

INLINE void note_establishes(struct sock *sk, struct note *note)
{
	struct tcp_sock *tp = tcp_sock_of(sk, READS_BTF);

	if (tp) {
		count_mptcp(tp);
		note->first_seq = tp->write_seq;
		note->reset = ENDING_NONE; /* to a segment of an earlier connection */
		note->established = !tp->bytes_sent && tp->snd_nxt == tp->write_seq; /* not where Fast Open has sent */
	}
}

/*
 * The note of a new connection. With task filters, an accepted one gets a note, because a process that passes may take
 * it; one that this end made has a note if its process passes.
 */
INLINE struct note *note_established(struct sock *sk, bool accepted)
{
	struct note *note = accepted || !FILTERS_BY_TASK() ? note_create(sk, READS_BTF) : note_of(sk, READS_BTF);
	const struct owner *listener;

	if (!note || !accepted || note->owner.pid)
		return note;
	listener = listener_owner(sk);
	if (listener)
		note->owner = *listener;
	listener_forget(sk);
	return note;
}

/* This end has no more to send. Called again when close() follows shutdown(). */
INLINE void note_closes(struct sock *sk, struct note *note)
{
	struct tcp_sock *tp = tcp_sock_of(sk, READS_BTF);

	if (tp)
		note->data_segs_in = tp->data_segs_in;
}

/*
 * The handshake of an incoming connection is over: it is established or, with Fast Open, its process has already
 * closed it, or it was reset.
 */
INLINE bool is_accepted(const struct moment *m, const struct note *note)
{
	return m->old_state == TCP_SYN_RECV && m->new_state != TCP_SYN_RECV && !(note && note->active);
}

/* Notes owner and time. Returns the socket's note, if any. */
INLINE struct note *note_transition(struct sock *sk, struct moment *m)
{
	bool begins = m->new_state == TCP_SYN_SENT || m->new_state == TCP_ESTABLISHED;
	struct note *note;
	u64 now;

	if (m->new_state == TCP_LISTEN)
		note_create(sk, READS_BTF); /* to be inherited, whoever listens */
	if (made_by_owner(sk, m))
		note = owner_is_current(sk, READS_BTF);
	else if (m->new_state == TCP_ESTABLISHED)
		note = note_established(sk, m->old_state == TCP_SYN_RECV);
	else
		note = note_of(sk, READS_BTF);
	if (m->new_state == TCP_CLOSE && is_accepted(m, note))
		note = note_established(sk, true);
	if (!note)
		return NULL;
	if (m->new_state == TCP_SYN_SENT)
		note_begins(note);
	if (m->new_state == TCP_ESTABLISHED)
		note_establishes(sk, note);
	if (m->new_state == TCP_FIN_WAIT1 || m->new_state == m->old_state)
		note_closes(sk, note);
	begins |= is_accepted(m, note) && m->new_state != TCP_CLOSE;
	if (!begins && m->new_state != TCP_CLOSE)
		return note;
	now = bpf_ktime_get_ns();
	if (note->began_ns)
		m->elapsed_ns = now - note->began_ns;
	if (begins)
		note->began_ns = now;
	return note;
}

/* The retransmission timer ends the attempt: it is not pending while it runs, as it is while a SYN may be answered. */
INLINE bool is_given_up(struct sock *sk)
{
	struct tcp_sock *tp = is_held(sk, READS_BTF) ? NULL : tcp_sock_of(sk, READS_BTF);

	return tp && !tp->inet_conn.icsk_pending;
}

/*
 * Why an attempt to connect came to nothing. Its process may have taken the error away by now (SO_ERROR), which leaves
 * what was noted, and since 6.11 cannot (853c3bd7b791); before 5.17 an ICMP error that came during a system call is
 * only kept for the end.
 */
INLINE s32 error_of_attempt(struct sock *sk, const struct note *note, const struct moment *m)
{
	if (sk->sk_err || m->old_state != TCP_SYN_SENT || m->new_state != TCP_CLOSE)
		return sk->sk_err;
	if (note && note->error)
		return note->error;
	if (sk->sk_err_soft)
		return sk->sk_err_soft;
	return is_given_up(sk) ? ETIMEDOUT : 0;
}

#endif
