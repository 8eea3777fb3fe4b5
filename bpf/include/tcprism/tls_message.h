/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A call into a TLS library from entry to exit: what it moved, in plaintext, becomes a record. */
#ifndef TCPRISM_TLS_MESSAGE_H
#define TCPRISM_TLS_MESSAGE_H

#include "message.h"
#include "tls.h"

/*
 * A call inside another is mostly the library's own, or that of a session whose records the other's records travel in:
 * the outermost has what the program wrote. One that was left without a return, as by longjmp(), is none.
 */
INLINE bool is_inside(const struct pt_regs *ctx, const struct tls_call *call)
{
	return call->kind != TLS_NO_CALL && ctx->sp < call->sp;
}

/*
 * The kind of a call whose thread does not pass the filters. In memory, nothing but the calls tells where in the stream
 * of TCP a session is: if others of its threads pass, it has to be followed through this one.
 */
INLINE u32 tls_left_out_kind(u64 address, u32 pid, u32 kind)
{
	struct tls_session_key key = { .session = address, .pid = pid };
	const struct tls_session *session = FILTERS_BY_THREAD() ? bpf_map_lookup_elem(&tls_sessions, &key) : NULL;

	if (!session || session->source == SOCKET_CALL)
		return TLS_NO_CALL;
	return kind == KIND_TLS_SEND ? TLS_SEND_LEFT_OUT : kind == KIND_TLS_RECV ? TLS_RECV_LEFT_OUT : kind;
}

/* Whether a session that is called inside another's call has a connection of its own. */
INLINE bool tls_is_apart(u64 address, const struct tls_call *call, u32 pid, u32 kind)
{
	struct tls_session_key key = { .session = address, .pid = pid };
	const struct tls_session *inner, *outer;

	if (address == call->session)
		return false;
	if (kind == TLS_HANDSHAKE)
		return true;
	inner = bpf_map_lookup_elem(&tls_sessions, &key);
	key.session = call->session;
	outer = bpf_map_lookup_elem(&tls_sessions, &key);
	return inner && outer && inner->sk && outer->sk && inner->sk != outer->sk;
}

/*
 * A call inside another. A callback, as for the name that a client asks for, may talk to a third party: that is a call of
 * its own, which this returns. NULL: it belongs to the other.
 */
INLINE struct tls_call *tls_call_inside(const struct pt_regs *ctx, const struct thread *thread, struct tls_call *call,
					u32 kind)
{
	struct tls_thread key = tls_thread_of(thread);
	struct tls_call empty = {}, *inner;

	key.ids |= TLS_INNER;
	inner = call->has_inner ? bpf_map_lookup_elem(&tls_calls, &key) : NULL;
	if (inner && is_inside(ctx, inner)) {
		inner->depth++;
		return NULL;
	}
	if (tls_is_apart(ctx->di, call, thread->pid, kind)) {
		bpf_map_update_elem(&tls_calls, &key, &empty, 0);
		inner = bpf_map_lookup_elem(&tls_calls, &key);
		if (inner) {
			call->has_inner = true;
			return inner;
		}
	}
	call->depth++;
	return NULL;
}

INLINE void tls_enter(const struct pt_regs *ctx, u32 kind, u64 buffer, u64 length, u64 moved_at)
{
	struct thread thread;
	struct tls_call *call;

	read_thread(&thread);
	if (!task_passes(thread.pid))
		kind = tls_left_out_kind(ctx->di, thread.pid, kind);
	if (kind == TLS_NO_CALL)
		return;
	call = tls_call_create(&thread);
	if (call && is_inside(ctx, call))
		call = tls_call_inside(ctx, &thread, call, kind);
	if (!call)
		return;
	call->session = ctx->di;
	call->sp = ctx->sp;
	call->buffer = buffer;
	call->moved_at = moved_at;
	call->requested = MIN(length, REQUESTED_UNKNOWN);
	call->depth = 0;
	call->carried = 0;
	call->reading = 0;
	call->has_inner = false;
	call->start_ns = bpf_ktime_get_ns();
	call->kind = kind;
}

struct tls_caller {
	struct connection connection;
	struct owner current;
	u64 socket;
	u32 source;
	u32 bytes;
	u32 encrypted, seq;
	u32 flags;
	u32 missed;
	u64 stream_offset;
	u32 sampling;
	u32 pid;
};

/* The connection of a session, all zero where it is not known, and the records whose plaintext has been moved. */
INLINE void tls_find(struct tls_caller *caller, const struct tls_call *call)
{
	struct tls_session_key key = { .session = call->session, .pid = caller->pid };
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);
	u32 direction = call->kind == KIND_TLS_RECV;
	struct tls_stream *stream;

	caller->flags = MESSAGE_SEQ_UNKNOWN;
	caller->missed = BYTES_UNKNOWN;
	if (!session)
		return;
	stream = &session->streams[direction];
	session->messages = true;
	caller->socket = session->socket;
	caller->connection = session->connection;
	caller->source = session->source;
	caller->stream_offset = stream->plaintext;
	stream->plaintext += caller->bytes;
	if (stream->from_hello)
		caller->missed = stream->missed;
	caller->encrypted = stream_take(stream, !direction, &caller->seq);
	if (!caller->encrypted && session->source == SOCKET_CALL)
		caller->source = SOCKET_SESSION;
	if (!caller->encrypted || !stream->known)
		caller->seq = 0;
	else
		caller->flags = 0;
}

INLINE bool tls_passes(const struct tls_caller *caller)
{
	if (caller->source == SOCKET_NONE)
		return !FILTERS_BY_PORT() && !FILTERS_BY_CONNECTION();
	return ports_pass(caller->connection.local_port, caller->connection.remote_port) &&
	       connection_passes(&caller->connection);
}

INLINE void tls_fill(struct tls_message *m, const struct tls_caller *caller, const struct tls_call *call, u64 now_ns,
		     u32 payload_length)
{
	event_at(&m->event, now_ns, call->kind, &caller->connection, &caller->current);
	m->event.socket = caller->socket;
	m->event.bytes = caller->bytes;
	m->event.error = 0;
	m->event.seq = caller->seq;
	m->event.flags = caller->flags;
	m->event.sampling = caller->sampling;
	m->session = call->session;
	m->duration_ns = now_ns - call->start_ns;
	m->requested = call->requested < caller->bytes ? REQUESTED_UNKNOWN : call->requested; /* of several buffers */
	m->encrypted_bytes = caller->encrypted;
	m->stream_offset = caller->stream_offset;
	m->missed_bytes = caller->missed;
	m->payload_length = payload_length;
	m->payload_unavailable = payload_length || !config.payload_limit ? PAYLOAD_AVAILABLE :
				 call->buffer ? PAYLOAD_FAULT : PAYLOAD_SPLICED;
	m->socket_source = caller->source;
}

/* Plaintext is in the process's memory, or has waited or been gathered in ours. */
INLINE long read_plaintext(void *to, u32 size, u64 from, bool waited)
{
	return waited ? bpf_probe_read_kernel(to, size, (void *)from) : bpf_probe_read_user(to, size, (void *)from);
}

/* As SUBMIT_CLASS() of messages. */
#define SUBMIT_TLS_CLASS(size)                                                                     \
	if (config.payload_limit <= size || length <= size) {                                      \
		SUBMIT(tls_##size, struct tls_message, counters, {                                 \
			u64 bounded = length;                                                      \
                                                                                                   \
			AT_MOST(bounded, size);                                                    \
			if (read_plaintext(record + 1, bounded, call->buffer, waited))             \
				bounded = 0;                                                       \
			tls_fill(record, caller, call, now_ns, bounded);                           \
		});                                                                                \
		return;                                                                            \
	}

INLINE void tls_submit(const struct tls_caller *caller, const struct tls_call *call, struct counters *counters, bool waited)
{
	u64 now_ns = bpf_ktime_get_ns();
	u32 length = config.payload_limit && call->buffer ? payload_wanted(caller->bytes, BUFFER_FLAT, config.payload_limit) : 0;

	length = MIN(length, call->requested);
	if (config.payload_limit && length < caller->bytes)
		COUNT(counters->payload_cut, caller->bytes - length);
	if (!length) {
		SUBMIT(tls_0, struct tls_message, counters, tls_fill(record, caller, call, now_ns, 0));
		return;
	}
	PAYLOAD_CLASSES(SUBMIT_TLS_CLASS)
}

/* Returns whether a message is to be shown. */
INLINE bool tls_wanted(struct tls_caller *caller, const struct thread *thread, const struct tls_call *call,
		       struct counters *counters)
{
	COUNT(counters->seen, 1);
	tls_find(caller, call);
	if (!tls_passes(caller)) {
		COUNT(counters->filtered, 1);
		return false;
	}
	if (caller->source != SOCKET_NONE)
		caller->sampling = sample(counters, &caller->connection, false);
	if (caller->sampling == LEFT_OUT)
		return false;
	read_current(&caller->current, thread, true);
	return true;
}

INLINE void tls_record(const struct thread *thread, const struct tls_call *call, u32 bytes, bool waited)
{
	struct tls_caller caller = { .pid = thread->pid, .bytes = bytes };
	struct counters *counters = counters_of(call->kind);

	if (counters && tls_wanted(&caller, thread, call, counters))
		tls_submit(&caller, call, counters, waited);
}

INLINE struct tls_call *tls_ending(struct thread *thread)
{
	struct tls_call *call;

	read_thread(thread);
	call = tls_call_of(thread);
	if (!call || call->kind == TLS_NO_CALL)
		return NULL;
	if (call->depth) {
		call->depth--;
		return NULL;
	}
	return call;
}

/* SSL_do_handshake() says 1 in the end, gnutls_handshake() 0. */
INLINE void tls_handshaken(const struct thread *thread, const struct tls_call *call)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_session *session = call->carried ? bpf_map_lookup_elem(&tls_sessions, &key) : NULL;

	if (!session)
		return;
	for (u32 i = 0; i < 2; i++)
		stream_handshaken(&session->streams[i], session->streams[0].is_client);
}

/* The records of a call whose plaintext is not shown. */
INLINE void tls_missed(const struct thread *thread, const struct tls_call *call)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);
	u32 direction = call->kind == TLS_RECV_LEFT_OUT, seq;
	struct tls_stream *stream;

	if (!session)
		return;
	stream = &session->streams[direction];
	stream->missed += stream_take(stream, !direction, &seq);
}

INLINE void tls_leave(const struct thread *thread, struct tls_call *call, s32 bytes)
{
	if (call->kind == TLS_HANDSHAKE) {
		if (bytes >= 0)
			tls_handshaken(thread, call);
	} else if (call->kind == TLS_SEND_LEFT_OUT || call->kind == TLS_RECV_LEFT_OUT) {
		if (bytes > 0)
			tls_missed(thread, call);
	} else if (call->kind != TLS_OTHER && bytes > 0 && kind_wanted(call->kind)) {
		if (call->kind == KIND_TLS_SEND && !call->carried) /* it is in the program's own memory */
			tls_set(&tls_sent_unseen);
		tls_record(thread, call, bytes, false);
	}
	call->kind = TLS_NO_CALL;
}

#endif
