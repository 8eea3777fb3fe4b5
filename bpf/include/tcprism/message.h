/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What all message hooks share: a call into TCP has returned. If it passes the filters, record what it moved, with
 * payload, in the ring of the fitting size.
 */
#ifndef TCPRISM_MESSAGE_H
#define TCPRISM_MESSAGE_H

#include "body.h"
#include "call.h"
#include "delivery.h"
#include "tls.h"

/* A read that reaches the peer's FIN also consumes the FIN's sequence number. */
INLINE u32 taken_fin(struct tcp_sock *tp, u32 copied_seq, enum reads reads)
{
	const struct sock *sk = (void *)tp;
	unsigned long flags = 0;
	u32 rcv_nxt = 0;

	READ(reads, flags, sk->__sk_common.skc_flags);
	if (!(flags >> SOCK_DONE & 1))
		return 0;
	READ(reads, rcv_nxt, tp->rcv_nxt);
	return copied_seq == rcv_nxt;
}

/* Such as kernel TLS: the bytes that reach TCP are not the caller's. */
INLINE bool has_upper_layer(struct tcp_sock *tp, enum reads reads)
{
	const struct tcp_ulp_ops *ops = NULL;

	READ(reads, ops, tp->inet_conn.icsk_ulp_ops);
	return ops;
}

/*
 * Whether the call reads or writes out of sequence: urgent data or, in repair mode, either queue. A peek skips urgent
 * data that is next, and leaves no trace of that.
 */
INLINE bool is_out_of_stream(struct tcp_sock *tp, u32 kind, u32 flags, enum reads reads)
{
	u16 urgent = 0;

	if (READ_BITS(reads, tp, repair))
		return true;
	if (kind == KIND_SEND || !(flags & (MSG_OOB | MSG_PEEK)))
		return false;
	READ(reads, urgent, tp->urg_data);
	return flags & MSG_OOB || urgent;
}

/* How far behind copied_seq a peek began: SO_PEEK_OFF, which has moved on by what was read (TCP has it since 6.9). */
INLINE u32 peeked_ahead(struct sock *sk, u32 bytes, enum reads reads)
{
	s32 offset = 0;

	READ(reads, offset, sk->sk_peek_off);
	return offset > 0 ? offset - bytes : 0;
}

/* By socket address: write_seq as a send returned while another was under way there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u32);
} sends_between SEC(".maps");

u32 sends_met; /* whether that has ever happened: if not, no send need look there */

/*
 * Whether another thread is in the middle of a send, as it waits for room or goes on. Then what returns now may have
 * come in between, and the other will find that in the table.
 */
INLINE bool comes_between(struct sock *sk, u32 write_seq, enum reads reads)
{
	u64 key = (u64)sk;
	int waiting = 0;

	READ(reads, waiting, sk->sk_write_pending);
	if (!waiting && !is_held(sk, reads))
		return false;
	bpf_map_update_elem(&sends_between, &key, &write_seq, 0);
	WRITE_ONCE(sends_met, 1);
	return true;
}

/* Whether another came in between a send that began at `seq`. None is under way any more: the entry has served. */
INLINE bool came_between(struct sock *sk, u32 seq)
{
	u64 key = (u64)sk;
	u32 *found = READ_ONCE(sends_met) ? bpf_map_lookup_elem(&sends_between, &key) : NULL;
	bool between;

	if (!found)
		return false;
	between = after(*found, seq);
	bpf_map_delete_elem(&sends_between, &key);
	return between;
}

/*
 * Exact if the sequence number advanced by what this call moved: then no other thread was in between. Without the
 * entry, a thread is noticed that holds the socket, or that has sent in between, but not one that came and went since
 * the call ended, or while a read waited.
 */
INLINE void set_sequence(struct moved *to, const struct call *call, struct sock *sk, u32 kind, enum reads reads)
{
	struct tcp_sock *tp = is_tcp(sk, reads) ? tcp_sock_of(sk, reads) : NULL;
	bool peeks = to->flags & MESSAGE_PEEK;
	u32 now, fin, bytes, seq;

	to->seq = 0;
	to->flags |= MESSAGE_SEQ_UNKNOWN;
	if (!tp)
		return;
	now = next_sequence(tp, kind, reads);
	fin = kind == KIND_RECV ? taken_fin(tp, now, reads) : 0;
	bytes = peeks ? 0 : to->bytes;
	seq = call->sk ? call->seq : now - bytes - fin;
	if (!now || (now - seq != bytes && now - seq != bytes + fin))
		return;
	if (!call->sk && kind == KIND_RECV && is_held(sk, reads))
		return;
	if (!call->sk && kind == KIND_SEND && (comes_between(sk, now, reads) || came_between(sk, seq)))
		return;
	if (has_upper_layer(tp, reads) || is_out_of_stream(tp, kind, call->flags, reads))
		return;
	if (peeks)
		seq += peeked_ahead(sk, to->bytes, reads);
	to->seq = seq;
	to->flags &= ~MESSAGE_SEQ_UNKNOWN;
}

struct payload {
	u32 length;                 /* that can be recorded */
	struct gathering *gathered; /* where it is, NULL: in the caller's memory */
};

/*
 * The bytes of a call's payload to record. A global function, for the verifier knows nothing of its result: to follow a
 * value for each branch would multiply all paths that come after.
 */
__noinline u32 payload_wanted(u32 bytes, u32 shape, u32 limit)
{
	u32 now = payload_limit();

	if (limit > now)
		limit = now;
	return shape == BUFFER_NONE ? 0 : MIN(bytes, limit);
}

/* Gathers the segments of an iovec. Returns false if other programs use all buffers for that. */
INLINE bool payload_find(struct payload *payload, struct call *call, const struct moved *moved)
{
	u32 shape = call->buffer.shape;

	payload->gathered = NULL;
	payload->length = config.payload_limit ? payload_wanted(moved->bytes, shape, moved->payload_limit) : 0;
	if (shape == BUFFER_NONE || shape == BUFFER_FLAT)
		return true;
	payload->gathered = gather(&call->buffer, payload->length);
	if (!payload->gathered)
		return false;
	payload->length = MIN(payload->length, payload->gathered->bytes);
	if (call->requested == REQUESTED_UNKNOWN)
		call->requested = payload->gathered->requested;
	return true;
}

/* `needed`: how much of the message. Global for the same reason. */
__noinline u32 payload_unavailable(u32 shape, u32 unavailable, u32 bytes, u32 length, u32 needed)
{
	if (length || !bytes || !config.payload_limit)
		return PAYLOAD_AVAILABLE;
	if (shape == BUFFER_NONE)
		return unavailable;
	return needed ? PAYLOAD_FAULT : PAYLOAD_BODY;
}

INLINE long read_payload(void *to, u32 length, const struct buffer *from, const struct gathering *gathered)
{
	if (gathered)
		return bpf_probe_read_kernel(to, length, gathered->payload);
	return bpf_probe_read_user(to, length, (void *)(from->base + from->offset));
}

INLINE u32 message_flags(u32 kind, u32 flags)
{
	if (kind == KIND_SEND)
		return flags & MSG_ZEROCOPY ? MESSAGE_ZEROCOPY : 0;
	return flags & MSG_PEEK ? MESSAGE_PEEK : 0;
}

/* Calls that moved nothing and will be repeated are not messages, nor are reads of the error queue. */
INLINE bool is_message(u32 kind, int result, u32 flags)
{
	if (result == -EAGAIN || (result <= -ERESTARTSYS && result >= -ERESTART_LAST))
		return false;
	return kind == KIND_SEND || !(flags & MSG_ERRQUEUE);
}

/* A process calls MPTCP in TCP's place; the TCP sockets below are the kernel's. */
INLINE bool is_tcp_or_mptcp(struct sock *sk, enum reads reads)
{
	u16 protocol = 0, type = 0;

	READ(reads, protocol, sk->sk_protocol);
	READ(reads, type, sk->sk_type);
	return (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP) && type == SOCK_STREAM;
}

/* The calling thread and its connection. */
struct caller {
	struct thread thread;
	struct counters *counters;
	struct connection connection;
	struct owner current;
	u32 sampling; /* event.sampling */
};

/* At a call's entry. The filters are those of its end: a call that will not be recorded must leave nothing behind. */
INLINE bool call_wanted(struct sock *sk, u32 kind, struct thread *thread, enum reads reads)
{
	if (!kind_wanted(kind) || !socket_ports_pass(&sk->__sk_common, reads))
		return false;
	read_thread(thread);
	return task_passes(thread->pid) && socket_connection_passes(&sk->__sk_common, reads);
}

/* Cheapest checks first. A caller that passes them all becomes the socket's owner. */
INLINE bool caller_passes(struct caller *caller, struct sock *sk, enum reads reads)
{
	bool for_owner;

	if (!socket_ports_pass(&sk->__sk_common, reads))
		return false;
	read_thread(&caller->thread);
	for_owner = works_for_owner(&caller->thread, sk, reads); /* before 5.12, for io_uring */
	if (for_owner ? !owner_passes(owner_of(sk, reads)) : !task_passes(caller->thread.pid)) {
		if (config.owners_from_messages && !for_owner)
			owner_turn_away_for_good(sk, &caller->thread, reads);
		return false;
	}
	read_connection(&caller->connection, &sk->__sk_common, reads);
	if (!connection_passes(&caller->connection))
		return false;
	if (for_owner)
		read_owner(&caller->current, sk, reads);
	else
		read_current(&caller->current, &caller->thread, true);
	if (config.owners_from_messages && !for_owner && is_tcp(sk, reads))
		owner_remember(sk, &caller->current, reads);
	return true;
}

/* Counts and filters a call that returned. Returns whether to record it. */
INLINE bool message_admit(struct caller *caller, struct sock *sk, u32 kind, enum reads reads)
{
	bool wanted = kind_wanted(kind), passes;

	caller->counters = counters_of(kind);
	if (!caller->counters)
		return false;
	if (wanted)
		COUNT(caller->counters->seen, 1);
	passes = caller_passes(caller, sk, reads);
	if (wanted && !passes)
		COUNT(caller->counters->filtered, 1);
	if (config.tls && kind == KIND_SEND && !passes)
		tls_left_out();
	return wanted && passes;
}

/* Works out what a call has moved before the ring is known: the verifier checks what comes later for each ring. */
INLINE void read_moved(struct moved *to, const struct call *call, struct sock *sk, u32 kind, int result, enum reads reads)
{
	s32 negative = result >> 31;

	barrier_var(negative); /* a mask: with a comparison the path would branch */
	to->ts_ns = bpf_ktime_get_ns();
	to->socket = cookie_of(sk, reads);
	to->duration_ns = call->start_ns ? to->ts_ns - call->start_ns : DURATION_UNKNOWN;
	to->bytes = result & ~negative;
	to->error = result & negative;
	to->flags = message_flags(kind, call->flags);
	to->unread_us = MICROSECONDS_UNKNOWN;
	to->payload_limit = config.payload_limit;
	set_sequence(to, call, sk, kind, reads);
}

INLINE void follow_bytes(struct moved *moved, struct sock *sk, const struct caller *caller, u32 kind, enum reads reads)
{
	if (kind == KIND_SEND)
		delivery_sent(sk, moved, &caller->connection, &caller->current, reads);
	else if (!(moved->flags & (MESSAGE_SEQ_UNKNOWN | MESSAGE_PEEK)))
		moved->unread_us = delivery_unread(sk, moved->seq + moved->bytes, moved->ts_ns, reads);
}

INLINE void message_fill(struct message *m, const struct caller *caller, const struct moved *moved,
			 const struct call *call, u32 kind, u32 payload_length)
{
	event_at(&m->event, moved->ts_ns, kind, &caller->connection, &caller->current);
	m->event.socket = moved->socket;
	m->event.bytes = moved->bytes;
	m->event.error = moved->error;
	m->event.seq = moved->seq;
	m->event.flags = moved->flags;
	m->event.sampling = caller->sampling;
	m->requested = call->requested;
	m->unread_us = moved->unread_us;
	m->duration_ns = moved->duration_ns;
	m->payload_length = payload_length;
	m->payload_unavailable = payload_unavailable(call->buffer.shape, call->buffer.unavailable, moved->bytes,
						     payload_length, moved->payload_limit);
}

/* Without the barrier the compiler drops the comparison, which it can prove and the verifier cannot. */
#define SUBMIT_CLASS(size)                                                                         \
	if (config.payload_limit <= size || payload->length <= size) {                             \
		SUBMIT(message_##size, struct message, caller->counters, {                         \
			u32 bounded = payload->length;                                             \
                                                                                                   \
			barrier_var(bounded);                                                      \
			if (bounded > size)                                                        \
				bounded = size;                                                    \
			if (read_payload(record + 1, bounded, &call->buffer, payload->gathered))   \
				bounded = 0;                                                       \
			message_fill(record, caller, moved, call, kind, bounded);                  \
		});                                                                                \
		return;                                                                            \
	}

/* Into the ring of the smallest payload class that fits. */
INLINE void message_submit(const struct caller *caller, const struct moved *moved, const struct call *call, u32 kind,
			   const struct payload *payload)
{
	if (!payload->length) {
		SUBMIT(message_0, struct message, caller->counters,
		       message_fill(record, caller, moved, call, kind, 0));
		return;
	}
	PAYLOAD_CLASSES(SUBMIT_CLASS)
}

/* The message may begin a body. */
INLINE void find_body(const struct moved *moved, const struct buffer *from, const struct payload *payload, u32 kind)
{
	if (!payload->length)
		return;
	if (payload->gathered)
		body_begins(payload->gathered->index, moved->socket, kind, moved->seq, moved->bytes);
	else
		body_begins_flat(from->base + from->offset, moved->socket, kind, moved->seq, moved->bytes);
}

/* Records a message with its payload. */
INLINE void message_record(const struct caller *caller, const struct moved *moved, struct call *call, u32 kind)
{
	struct payload payload;

	if (!payload_find(&payload, call, moved)) {
		COUNT(caller->counters->ring_busy, 1);
		return;
	}
	if (config.skip_bodies && is_large(moved->socket, moved->bytes, moved->flags))
		find_body(moved, &call->buffer, &payload, kind);
	if (config.payload_limit && payload.length < moved->bytes)
		COUNT(caller->counters->payload_cut, moved->bytes - payload.length);
	message_submit(caller, moved, call, kind, &payload);
	if (payload.gathered)
		gathering_leave(payload.gathered);
}

INLINE bool message_left_out(struct caller *caller)
{
	caller->sampling = sample(caller->counters, &caller->connection, false);
	return caller->sampling == LEFT_OUT;
}

/* TLS is followed in all connections: any may come into the sample. */
INLINE void message_returned(struct caller *caller, struct call *call, struct sock *sk, u32 kind, int result,
			     enum reads reads)
{
	struct moved moved;

	if (!config.tls && message_left_out(caller))
		return;
	read_moved(&moved, call, sk, kind, result, reads);
	if (config.tls && tls_carried(sk, &caller->connection, &moved, kind, &call->buffer) && !config.tls_records)
		buffer_none(&call->buffer, PAYLOAD_ENCRYPTED);
	if (config.tls && message_left_out(caller))
		return;
	if (config.skip_bodies)
		moved.payload_limit = payload_needed(moved.socket, kind, moved.seq, moved.bytes, moved.flags);
	if (kind_wanted(KIND_ACKED) && moved.bytes)
		follow_bytes(&moved, sk, caller, kind, reads);
	message_record(caller, &moved, call, kind);
}

/* A call whose entry was not seen: it began before tracing, or the hook fires at its end only. */
INLINE void call_unseen(struct call *call, u32 flags)
{
	call->start_ns = 0;
	call->sk = 0;
	call->seq = 0;
	call->requested = REQUESTED_UNKNOWN;
	call->flags = flags;
	buffer_none(&call->buffer, PAYLOAD_SYSCALL);
}

#endif
