/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The call into a TLS library that the current thread is in, and the connection of each session of a library. A call
 * into TCP inside a call of the library tells it, if it moves TLS records. Never the descriptor that the library
 * holds: a program may move the records itself.
 */
#ifndef TCPRISM_TLS_H
#define TCPRISM_TLS_H

#include "buffer.h"
#include "delivery.h"
#include "tls_stream.h"

enum tls_kind {
	TLS_NO_CALL = 0,
	TLS_HANDSHAKE = KIND_COUNT, /* else the event's kind */
	TLS_OTHER,                  /* what else moves records, but no plaintext */
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
	u32 carried; /* bytes that TCP has moved inside, or that memory took */
};

/* By thread. Uprobes can be preempted, and a call into TCP comes inside: neither a per-CPU buffer nor calls would do. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* user space says how many, if it traces TLS */
	__type(key, u64);
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
	struct tls_stream streams[2]; /* sent, received */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct tls_session_key);
	__type(value, struct tls_session);
} tls_sessions SEC(".maps");

/* What sessions encrypted into memory, by a hash of some of the bytes: it will be sent, by any thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct tls_session_key);
} tls_ciphertexts SEC(".maps");

u64 tls_ciphertext_ns; /* when the latest of them was put there */

/* Whether any library has sent plaintext that neither TCP nor the library's own memory took. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} tls_sent_unseen SEC(".maps");

#define CIPHERTEXT_NS 1000000000ULL /* it is not looked for any longer */
#define FINGERPRINT_WORDS 4

INLINE struct tls_call *tls_call_of(const struct thread *thread)
{
	u64 key = (u64)thread->pid << 32 | thread->tid;

	return bpf_map_lookup_elem(&tls_calls, &key);
}

INLINE struct tls_call *tls_call_create(const struct thread *thread)
{
	u64 key = (u64)thread->pid << 32 | thread->tid;
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

/* Multiplicative hashing of bytes behind a record's header: random in a hello, encrypted in what follows. 0: unreadable. */
INLINE u64 fingerprint(u64 bytes)
{
	u64 words[FINGERPRINT_WORDS] = {}, hash = 0;

	if (!bytes || bpf_probe_read_user(words, sizeof(words), (void *)(bytes + RECORD_HEADER)))
		return 0;
	for (u32 i = 0; i < FINGERPRINT_WORDS; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
	return hash;
}

#define FINGERPRINT_END (RECORD_HEADER + FINGERPRINT_WORDS * 8)

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

/* Something is sent outside of a TLS library: perhaps what one has encrypted into memory. */
INLINE void tls_sent_elsewhere(struct sock *sk, u64 bytes, u32 length)
{
	struct tls_session_key *found, key;
	u64 hash;

	if (length < FINGERPRINT_END || bpf_ktime_get_ns() - READ_ONCE(tls_ciphertext_ns) > CIPHERTEXT_NS)
		return;
	hash = fingerprint(bytes);
	found = hash ? bpf_map_lookup_elem(&tls_ciphertexts, &hash) : NULL;
	if (!found)
		return;
	key = *found;
	bpf_map_delete_elem(&tls_ciphertexts, &hash);
	tls_session_uses(&key, sk, SOCKET_CIPHERTEXT);
}

/* NSPR's functions may pass what a program gave them to TCP, or the other way round: that is no plaintext. */
INLINE bool tls_passes_on(const struct tls_call *call, u64 bytes)
{
	return bytes >= call->buffer && bytes - call->buffer < call->requested;
}

/* What tls_moved() returns. */
#define TLS_CARRIES MESSAGE_ENCRYPTED
#define TLS_PAYLOAD_OF_NO_USE 0x10000

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
		/* Mostly it is one record, or a part of one: no need to look the session up again. */
		taken = at = stream_step(stream, bytes, length, seq);
		for (u32 i = 0; taken && at < length && i < STEPS_MAX; i++) {
			taken = tls_step(key->session, (u64)key->pid << 32 | (how & MOVED_RECV), bytes + at,
					 length - at, seq + at);
			at += taken;
		}
	}
	stream_moved(stream, seq + length, at >= length);
}

/*
 * TCP has moved bytes. If the thread is in a TLS library, this is what the library encrypted or will decrypt. A global
 * function, as tls_step() is.
 */
__noinline int tls_moved(u64 sk, u64 bytes, u32 length, u32 seq, u64 how)
{
	struct tls_session_key key = {};
	struct tls_session *session;
	struct tls_call *call;
	struct thread thread;

	read_thread(&thread);
	call = tls_call_now(&thread);
	if (!call) {
		if (!(how & MOVED_RECV))
			tls_sent_elsewhere((struct sock *)sk, bytes, length);
		return 0;
	}
	key.session = call->session;
	key.pid = thread.pid;
	session = bpf_map_lookup_elem(&tls_sessions, &key);
	if (!session || session->sk != sk || ports_of(&session->connection) != how >> 32) {
		if (!is_record(bytes) || tls_passes_on(call, bytes))
			return 0;
		session = tls_session_uses(&key, (struct sock *)sk, SOCKET_CALL);
		if (!session)
			return 0;
	}
	call->carried += length;
	tls_stream_moves(&key, session, bytes, length, seq, how);
	return session->messages ? TLS_CARRIES | TLS_PAYLOAD_OF_NO_USE : TLS_CARRIES;
}

/* A call into TCP has returned: say so in the message, if it carries TLS. Returns whether its payload is of no use. */
INLINE bool tls_carried(struct sock *sk, const struct connection *connection, struct moved *moved, u32 kind,
			const struct buffer *buffer)
{
	u64 bytes = buffer_begin(buffer->base, buffer->shape, buffer->offset);
	u64 how = (u64)ports_of(connection) << 32 | (moved->flags & MESSAGE_SEQ_UNKNOWN);
	u32 result;

	if (!moved->bytes || moved->flags & MESSAGE_PEEK)
		return false;
	how |= kind == KIND_RECV ? MOVED_RECV : 0;
	how |= buffer->shape != BUFFER_FLAT && buffer->segments != 1 ? MOVED_SCATTERED : 0;
	result = tls_moved(untyped(sk), bytes, moved->bytes, moved->seq, how);
	moved->flags |= result & TLS_CARRIES;
	return result & TLS_PAYLOAD_OF_NO_USE;
}

#endif
