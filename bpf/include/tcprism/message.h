/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The shared body of all message hooks: a call into TCP returned. Admit it by the filters, record
 * what it moved, with payload, in the ring that fits.
 */
#ifndef TCPRISM_MESSAGE_H
#define TCPRISM_MESSAGE_H

#include "call.h"

/* A read that ends with the peer's FIN takes the FIN's sequence number along. */
INLINE u32 taken_fin(struct sock *sk, u32 copied_seq, enum reads reads)
{
	unsigned long flags = 0;
	struct tcp_sock *tp;
	u32 rcv_nxt = 0;

	READ(reads, flags, sk->__sk_common.skc_flags);
	if (!(flags >> SOCK_DONE & 1))
		return 0;
	tp = tcp_sock_of(sk, reads);
	if (tp)
		READ(reads, rcv_nxt, tp->rcv_nxt);
	return copied_seq == rcv_nxt;
}

/* Exact where the sequence number moved by what this call moved: no other thread was in between. */
INLINE void set_sequence(struct message *m, const struct call *call, struct sock *sk, enum reads reads)
{
	struct event *event = &m->event;
	u32 now = sequence_of(sk, event->kind, reads);
	u32 fin = event->kind == KIND_RECV ? taken_fin(sk, now, reads) : 0;
	u32 moved = event->flags & MESSAGE_PEEK ? 0 : event->bytes;

	event->seq = call->sk ? call->seq : now - moved - fin;
	if (!now || (now - event->seq != moved && now - event->seq != moved + fin))
		event->flags |= MESSAGE_SEQ_UNKNOWN;
}

#define EMIT_CLASS(size)                                                                           \
	if (want <= size) {                                                                        \
		struct message_##size {                                                            \
			struct message message;                                                    \
			u8 payload[size];                                                          \
		};                                                                                 \
		SUBMIT(message_##size, struct message_##size, counters, {                          \
			u32 length = want;                                                         \
			asm volatile("" : "+r"(length));                                           \
			if (length > size)                                                         \
				length = size;                                                     \
			if (gathered)                                                              \
				bpf_probe_read_kernel(record->payload, length, gathered->bytes);   \
			else if (bpf_probe_read_user(record->payload, length, (void *)(call->buffer.base + call->buffer.offset))) \
				set_payload(m, 0, PAYLOAD_FAULT);                                  \
			record->message = *m;                                                      \
		});                                                                                \
		return;                                                                            \
	}

INLINE void set_payload(struct message *m, u32 length, u32 reason)
{
	m->payload_length = length;
	m->payload_unavailable = reason;
}

/* How much payload this message gets; an iovec's segments are gathered on the way. */
INLINE u32 choose_payload(struct message *m, const struct call *call, struct gathered **gathered)
{
	const struct buffer *buffer = &call->buffer;
	u32 direction = m->event.kind;
	u32 want = MIN(m->event.bytes, config.payload_limit);
	struct gathering *state;

	if (buffer->shape == BUFFER_NONE) {
		set_payload(m, 0, want ? buffer->unavailable : PAYLOAD_AVAILABLE);
		return 0;
	}
	if (buffer->shape != BUFFER_FLAT) {
		*gathered = bpf_map_lookup_elem(&gathered_bytes, &direction);
		state = bpf_map_lookup_elem(&gathering, &direction);
		if (!*gathered || !state)
			return 0;
		gather(state, direction, buffer, want);
		want = MIN(want, state->bytes);
		if (m->requested == REQUESTED_UNKNOWN)
			m->requested = state->requested;
	}
	set_payload(m, want, want || !m->event.bytes || !config.payload_limit ? PAYLOAD_AVAILABLE : PAYLOAD_FAULT);
	return want;
}

/* Into the ring of the smallest payload class that holds it. */
INLINE void message_submit(struct message *m, const struct call *call, struct counters *counters)
{
	struct gathered *gathered = NULL;
	u32 want = choose_payload(m, call, &gathered);

	if (config.payload_limit)
		COUNT(counters->payload_cut, m->event.bytes - want);
	if (!want) {
		SUBMIT(message_0, struct message, counters, *record = *m);
		return;
	}
	PAYLOAD_CLASSES(EMIT_CLASS)
}

INLINE u32 message_flags(u32 kind, u32 flags)
{
	if (kind == KIND_SEND)
		return flags & MSG_ZEROCOPY ? MESSAGE_ZEROCOPY : 0;
	return flags & MSG_PEEK ? MESSAGE_PEEK : 0;
}

/* Calls that moved nothing and will be made again, and reads of the error queue, are no messages. */
INLINE bool is_message(u32 kind, int result, u32 flags)
{
	if (result == -EAGAIN || (result <= -ERESTARTSYS && result >= -ERESTART_LAST))
		return false;
	return kind == KIND_SEND || !(flags & MSG_ERRQUEUE);
}

INLINE bool is_tcp(struct sock *sk, enum reads reads)
{
	u16 protocol = 0, type = 0;

	READ(reads, protocol, sk->sk_protocol);
	READ(reads, type, sk->sk_type);
	return protocol == IPPROTO_TCP && type == SOCK_STREAM;
}

INLINE void message_build(struct message *m, const struct call *call, struct sock *sk, int result, enum reads reads)
{
	m->event.socket = cookie_of(sk, reads);
	m->event.bytes = result > 0 ? result : 0;
	m->event.error = result < 0 ? result : 0;
	m->event.flags = message_flags(m->event.kind, call->flags);
	m->requested = call->requested;
	m->unread_us = MICROSECONDS_UNKNOWN;
	m->duration_ns = call->start_ns ? m->event.ts_ns - call->start_ns : DURATION_UNKNOWN;
	set_sequence(m, call, sk, reads);
}

/* The thread that is in the call, and what passed the filters. */
struct caller {
	u64 thread;
	struct counters *counters;
	struct connection connection;
	struct owner current;
};

/* At the entry of a call, before it counts: the same filters as at its end, or its memory would outlive it. */
INLINE bool call_wanted(struct sock *sk, u64 thread, u32 kind, enum reads reads)
{
	struct connection connection;

	if (!kind_wanted(kind) || !socket_ports_pass(&sk->__sk_common, reads) || !task_passes(HIGH32(thread)))
		return false;
	if (!FILTERS_BY_CONNECTION())
		return true;
	read_connection(&connection, &sk->__sk_common, reads);
	return connection_passes(&connection);
}

/* Cheapest questions first; who passes them all becomes the socket's owner. */
INLINE bool caller_passes(struct caller *caller, struct sock *sk, enum reads reads)
{
	if (!socket_ports_pass(&sk->__sk_common, reads))
		return false;
	if (!task_passes(HIGH32(caller->thread))) {
		if (config.track_owner)
			owner_turn_away(sk, caller->thread, reads);
		return false;
	}
	read_connection(&caller->connection, &sk->__sk_common, reads);
	if (!connection_passes(&caller->connection))
		return false;
	read_current(&caller->current, caller->thread, true);
	if (config.track_owner)
		owner_remember(sk, &caller->current, reads);
	return true;
}

/* A call returned: count it, filter it; true: it is to be recorded. */
INLINE bool message_admit(struct caller *caller, struct sock *sk, u32 kind, enum reads reads)
{
	bool wanted = kind_wanted(kind), passes;

	caller->thread = bpf_get_current_pid_tgid();
	caller->counters = counters_of(kind);
	if (!caller->counters)
		return false;
	if (wanted)
		COUNT(caller->counters->seen, 1);
	passes = caller_passes(caller, sk, reads);
	if (wanted && !passes)
		COUNT(caller->counters->filtered, 1);
	return wanted && passes;
}

INLINE void message_record(const struct caller *caller, const struct call *call, struct sock *sk, u32 kind, int result,
			   enum reads reads)
{
	struct message m = {};

	event_begin(&m.event, kind, &caller->connection, &caller->current);
	message_build(&m, call, sk, result, reads);
	message_submit(&m, call, caller->counters);
}

/* Of a call whose entry nobody saw: it had begun before the start, or the hook fires at its end alone. */
INLINE void call_unseen(struct call *call, u32 flags)
{
	call->start_ns = 0;
	call->sk = 0;
	call->requested = REQUESTED_UNKNOWN;
	call->flags = flags;
	buffer_none(&call->buffer, PAYLOAD_SYSCALL);
}

#endif
