/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The call into a TLS library that the current thread is in, and the sessions of libraries with their records. */
#ifndef TCPRISM_TLS_SESSION_H
#define TCPRISM_TLS_SESSION_H

#include "buffer.h"
#include "delivery.h"
#include "tls_stream.h"
#include "uprobe.h"

enum tls_kind {
	TLS_NO_CALL = 0,
	TLS_HANDSHAKE = KIND_COUNT, /* else the event's kind */
	TLS_OTHER,                  /* what else moves records, but no plaintext */
	TLS_SEND_LEFT_OUT, /* of a thread that no filter lets through, in a session that is followed */
	TLS_RECV_LEFT_OUT,
};

struct tls_call {
	u64 session;
	u64 sp; /* stack pointer at its entry */
	u64 start_ns;
	u64 buffer;   /* the plaintext */
	u64 moved_at; /* where the library says how many bytes it moved; 0: in its result */
	u32 requested;
	u32 kind;
	u32 depth;   /* of calls that the library makes of itself */
	u32 carried; /* bytes that TCP has moved inside, or that memory took or gave */
	u64 reading; /* a read from memory has not returned yet: to this address, from this BIO */
	u64 reading_from;
	u32 segments; /* of a buffer in pieces, an iovec */
	u32 offset;   /* into them */
	u32 has_inner; /* a call of another connection, by a callback, perhaps ended */
	u32 reserved;
};

/*
 * A thread and the program that it runs. Killed inside a library, or by another's exec(), it leaves its call behind: to
 * whom the kernel gives its number next.
 */
struct tls_thread {
	u64 ids; /* with TLS_INNER: its call inside another */
	u64 program;
};

#define TLS_INNER (1ULL << 63)

/* By thread. Uprobes can be preempted, and a call into TCP comes inside: neither a per-CPU buffer nor calls would do. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* user space says how many, if it traces TLS */
	__type(key, struct tls_thread);
	__type(value, struct tls_call);
} tls_calls SEC(".maps");

/* An address means something in its process only. */
struct tls_session_key {
	u64 session;
	u32 pid;
	u32 reserved;
};

struct tls_session {
	u64 sk;
	u64 socket;
	struct connection connection;
	u32 source;
	u32 messages; /* whether it has moved plaintext */
	struct tls_stream streams[2]; /* sent, received: by sequence number, or by offset while that is not known */
	/* Of a session in memory: */
	u64 since_ns;
	u64 bios[2];      /* where its records go, and come from, */
	u32 bio_since[2]; /* from these offsets on */
	u64 awaited;      /* fingerprint of a record that its socket has received, */
	u32 awaited_seq;  /* and where that was */
	u32 by_memory;    /* its records were seen to be written by the memory's own function */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct tls_session_key);
	__type(value, struct tls_session);
} tls_sessions SEC(".maps");

/* Whether any library has sent plaintext that neither TCP nor the library's own memory took. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} tls_sent_unseen SEC(".maps");

/* Whether any session was found to encrypt into memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} tls_in_memory SEC(".maps");

/* User space will see it soon. */
INLINE void tls_set(void *map)
{
	u32 zero = 0;
	u64 *value = bpf_map_lookup_elem(map, &zero);

	if (value)
		WRITE_ONCE(*value, true);
}

INLINE struct tls_thread tls_thread_of(const struct thread *thread)
{
	return (struct tls_thread){ .ids = (u64)thread->pid << 32 | thread->tid, .program = program_of(thread) };
}

INLINE struct tls_call *tls_call_of(const struct thread *thread)
{
	struct tls_thread key = tls_thread_of(thread);
	struct tls_call *call = bpf_map_lookup_elem(&tls_calls, &key), *inner;

	if (!call || !call->has_inner)
		return call;
	key.ids |= TLS_INNER;
	inner = bpf_map_lookup_elem(&tls_calls, &key);
	if (inner && inner->kind != TLS_NO_CALL)
		return inner;
	call->has_inner = false;
	return call;
}

INLINE struct tls_call *tls_call_create(const struct thread *thread)
{
	struct tls_thread key = tls_thread_of(thread);
	struct tls_call empty = {}, *call = bpf_map_lookup_elem(&tls_calls, &key);

	if (call)
		return call;
	bpf_map_update_elem(&tls_calls, &key, &empty, 0);
	return bpf_map_lookup_elem(&tls_calls, &key);
}

/* Go runs a call of the library on one thread after the other: these are by goroutine. */
struct tls_goroutine {
	u64 g;
	u32 pid;
	u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct tls_goroutine);
	__type(value, struct tls_call);
} tls_calls_of_goroutines SEC(".maps");

u32 tls_has_goroutines; /* any have been in it */

/* The call of the goroutine that the thread runs: Go keeps it in R14, in system calls, too (its ABIInternal). */
INLINE struct tls_call *tls_call_of_goroutine(const struct thread *thread)
{
	struct tls_goroutine key = { .pid = thread->pid };

	if (!READ_ONCE(tls_has_goroutines) || !HAS_TASK_PT_REGS())
		return NULL;
	key.g = bpf_task_pt_regs(thread->task)->r14;
	return bpf_map_lookup_elem(&tls_calls_of_goroutines, &key);
}

/* The call that the thread is in, if any. */
INLINE struct tls_call *tls_call_now(const struct thread *thread)
{
	struct tls_call *call = tls_call_of(thread);

	if (!call || call->kind == TLS_NO_CALL)
		call = tls_call_of_goroutine(thread);
	return call && call->kind != TLS_NO_CALL ? call : NULL;
}

/* Where the bytes of a buffer begin. A global function, as in buffer.h: it takes only numbers. */
__noinline u64 buffer_begin(u64 base, u32 shape, u32 offset)
{
	struct iovec segment = {};

	if (shape == BUFFER_NONE)
		return 0;
	if (shape == BUFFER_FLAT)
		return base + offset;
	return read_segment(&segment, base, shape, 0) ? 0 : (u64)segment.iov_base + offset;
}

INLINE u32 ports_of(const struct connection *connection)
{
	return (u32)connection->local_port << 16 | connection->remote_port;
}

const struct tls_session tls_session_new = {};

INLINE struct tls_session *tls_session_uses(const struct tls_session_key *key, struct sock *sk, u32 source)
{
	struct tls_session *session;

	bpf_map_update_elem(&tls_sessions, key, &tls_session_new, 0);
	session = bpf_map_lookup_elem(&tls_sessions, key);
	if (!session)
		return NULL;
	session->sk = (u64)sk;
	session->socket = cookie_of(sk, READS_PROBED);
	session->source = source;
	read_connection(&session->connection, &sk->__sk_common, READS_PROBED);
	return session;
}

/* How bytes were moved, in the lower half; the upper one has ports_of() the connection. */
#define MOVED_SEQ_UNKNOWN MESSAGE_SEQ_UNKNOWN
#define MOVED_RECV 1
#define MOVED_SCATTERED 2 /* only the first of them are at the address */

/* A step through records. A global function, which the verifier checks once; in 5.10 these take only numbers. */
__noinline int tls_step(u64 session, u64 pid_and_direction, u64 bytes, u32 length, u32 seq)
{
	struct tls_session_key key = { .session = session, .pid = pid_and_direction >> 32 };
	struct tls_session *found = bpf_map_lookup_elem(&tls_sessions, &key);

	return found ? stream_step(&found->streams[pid_and_direction & 1], bytes, length, seq) : 0;
}

INLINE void tls_stream_moves(const struct tls_session_key *key, struct tls_session *session, u64 bytes, u32 length,
			     u32 seq, u64 how)
{
	struct tls_stream *stream = &session->streams[how & MOVED_RECV];
	u32 at = 0, taken;

	seq = stream_moves(stream, bytes, seq, how & MOVED_RECV, how & MOVED_SEQ_UNKNOWN);
	if (bytes && !(how & MOVED_SCATTERED)) {
		/* Mostly it is one record, or a part of one: a header and what follows. No need to look the session up again. */
		taken = at = stream_step(stream, bytes, length, seq);
		if (taken && at < length) {
			taken = stream_step(stream, bytes + at, length - at, seq + at);
			at += taken;
		}
		for (u32 i = 0; taken && at < length && i < STEPS_MAX; i++) {
			taken = tls_step(key->session, (u64)key->pid << 32 | (how & MOVED_RECV), bytes + at,
					 length - at, seq + at);
			at += taken;
		}
	}
	stream_moved(stream, seq + length, at >= length);
}

#endif
