/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The life of a connection: its transitions, how it came about, its totals as it ends, and resets. */
#include "tcprism/packet.h"
#include "tcprism/undo.h"

/* What a hook knows of the moment. */
struct moment {
	u32 kind;
	u8 old_state, new_state;
	u8 sent; /* reset */
	u8 ending;
	u32 reason;
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
}

/* The kernel's totals where there is a connection, else unknown ones. */
INLINE void fill_totals(struct connection_event *to, struct sock *sk)
{
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (tp) {
		read_totals(&to->totals, tp);
		return;
	}
	to->totals.delivery_rate = RATE_UNKNOWN;
	to->totals.min_rtt_us = MICROSECONDS_UNKNOWN;
	to->totals.srtt_us = MICROSECONDS_UNKNOWN;
}

/* A subprogram: each kind's events go through one copy of it. `sk` is a full socket or NULL. */
static __attribute__((noinline)) int connection_submit(struct sock *sk, const struct moment *m, const struct connection *c,
						       const struct owner *owner)
{
	struct counters *counters = counters_of(m->kind);
	struct connection_event *record;
	struct lane *lane;

	if (!counters || !connection_admit(counters, c, owner))
		return 0;
	record = RESERVE(connection, &lane);
	if (!record) {
		COUNT(counters->ring_full, 1);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	event_begin(&record->event, m->kind, c, owner);
	fill_moment(record, m);
	fill_totals(record, sk);
	if (sk) {
		record->event.socket = cookie_of(sk, READS_BTF);
		record->event.error = -sk->sk_err;
	}
	ring_submit(lane);
	COUNT(counters->submitted, 1);
	return 0;
}

INLINE void connection_happened(struct sock *sk, struct note *note, struct moment *m)
{
	struct connection c;
	struct sock *same;

	if (!kind_wanted(m->kind))
		return;
	same = (void *)bpf_skc_to_tcp_sock(sk); /* through this pointer the verifier reads on without searching types */
	if (!same)
		return;
	read_connection(&c, &same->__sk_common, READS_BTF);
	connection_submit(sk, m, &c, note ? &note->owner : NULL);
}

INLINE u32 ending_of(const struct sock *sk, const struct note *note, u32 old_state)
{
	if (note && note->reset)
		return note->reset;
	if (sk->sk_err == ETIMEDOUT)
		return ENDING_TIMEOUT;
	if (sk->sk_err == ECONNRESET || sk->sk_err == EPIPE)
		return ENDING_RESET_RECEIVED;
	if (sk->sk_err)
		return ENDING_ERROR;
	if (old_state == TCP_LAST_ACK || old_state == TCP_FIN_WAIT2 || old_state == TCP_CLOSING || old_state == TCP_TIME_WAIT)
		return ENDING_FIN;
	return ENDING_ABORTED;
}

/*
 * The process is there as it connects or listens, and as it closes: the transitions into these states are made
 * by nobody else (tcp_close_state()).
 */
INLINE bool made_by_owner(u32 state)
{
	return state == TCP_SYN_SENT || state == TCP_LISTEN || state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK;
}

/* A socket can be used for one connection after another. */
INLINE void note_begins(struct note *note)
{
	note->active = true;
	note->established = false;
	note->reset = ENDING_NONE;
	note->undo_marker = 0;
	note->began_ns = 0;
}

INLINE void note_establishes(struct sock *sk, struct note *note)
{
	struct tcp_sock *tp = tcp_sock_of(sk, READS_BTF);

	if (tp) {
		note->first_seq = tp->write_seq;
		note->established = true;
	}
}

/*
 * Of a connection that begins to exist. One that comes in may yet be accepted by a process that passes; of one that
 * goes out, the process has been turned away.
 */
INLINE struct note *note_established(struct sock *sk, bool accepted)
{
	struct note *note = accepted || !FILTERS_BY_TASK() ? note_create(sk, READS_BTF) : note_of(sk, READS_BTF);
	const struct owner *listener;

	if (!note || !accepted || note->owner.pid)
		return note;
	listener = inherits_note() ? NULL : listener_owner(sk, READS_BTF);
	if (listener)
		note->owner = *listener;
	return note;
}

/* Notes who and when; returns what is known of the socket. */
INLINE struct note *note_transition(struct sock *sk, struct moment *m)
{
	bool begins = m->new_state == TCP_SYN_SENT || m->new_state == TCP_ESTABLISHED;
	struct note *note;
	u64 now;

	if (made_by_owner(m->new_state))
		note = owner_is_current(sk, READS_BTF);
	else if (m->new_state == TCP_ESTABLISHED)
		note = note_established(sk, m->old_state == TCP_SYN_RECV);
	else
		note = note_of(sk, READS_BTF);
	if (!note)
		return NULL;
	if (m->new_state == TCP_SYN_SENT)
		note_begins(note);
	if (m->new_state == TCP_ESTABLISHED)
		note_establishes(sk, note);
	if (!begins && m->new_state != TCP_CLOSE)
		return note;
	now = bpf_ktime_get_ns();
	if (note->began_ns)
		m->elapsed_ns = now - note->began_ns;
	if (begins)
		note->began_ns = now;
	return note;
}

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

/* Of a connection that no event will be about. */
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

	if (m->new_state == m->old_state) /* as close() does after shutdown() */
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

SEC("tp_btf/inet_sock_set_state") int tracepoint_state(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct moment m = { .elapsed_ns = ELAPSED_UNKNOWN, .reason = REASON_UNKNOWN };

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	m.old_state = ctx[1];
	m.new_state = ctx[2];
	if (m.new_state == TCP_LISTEN)
		listener_is_current(sk);
	if (ports_may_pass(&sk->__sk_common, READS_BTF))
		transition(sk, &m);
	else
		transition_filtered(&m);
	if (m.new_state == TCP_CLOSE)
		note_forget(sk);
	return 0;
}

INLINE void reset_of_socket(struct sock *sk, u32 sent, u32 reason)
{
	struct note *note = note_of(sk, READS_BTF);
	struct moment m = { .kind = KIND_RESET, .sent = sent, .reason = reason, .elapsed_ns = ELAPSED_UNKNOWN };

	m.old_state = sk->__sk_common.skc_state;
	if (note)
		note->reset = sent ? ENDING_RESET_SENT : ENDING_RESET_RECEIVED;
	connection_happened(sk, note, &m);
}

/* To whom there is no connection: told by the packet that is answered. */
INLINE void reset_of_packet(const struct sk_buff *skb, u32 reason)
{
	struct moment m = { .kind = KIND_RESET, .sent = true, .reason = reason, .elapsed_ns = ELAPSED_UNKNOWN };
	struct seen_packet packet;
	struct connection c;

	if (!kind_wanted(KIND_RESET) || !read_seen_packet(&packet, skb))
		return;
	packet_connection(&c, &packet, false);
	c.netns = netns_of_device(skb);
	connection_submit(NULL, &m, &c, NULL);
}

/* Without a socket since 6.10; without a packet where the socket resets by itself. */
SEC("tp_btf/tcp_send_reset") int tracepoint_reset_sent(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct sk_buff *skb = (void *)ctx[1];
	u32 reason = RESET_HAS_REASON() ? ctx[2] : REASON_UNKNOWN;

	if (is_there(sk) && is_full_socket(sk) && sk->__sk_common.skc_state != TCP_LISTEN)
		reset_of_socket(sk, true, reason);
	else if (is_there(skb))
		reset_of_packet(skb, reason);
	return 0;
}

SEC("tp_btf/tcp_receive_reset") int tracepoint_reset_received(u64 *ctx)
{
	reset_of_socket((void *)ctx[0], false, REASON_UNKNOWN);
	return 0;
}
