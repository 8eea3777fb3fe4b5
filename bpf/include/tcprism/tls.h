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

enum tls_kind {
	TLS_NO_CALL = 0,
	TLS_HANDSHAKE = KIND_COUNT, /* what moves no plaintext; else the event's kind */
};

struct tls_call {
	u64 session;
	u64 start_ns;
	u64 buffer;   /* the plaintext */
	u64 moved_at; /* where the library says how many bytes it moved; 0: in its result */
	u32 requested;
	u32 kind;
	u32 depth; /* of calls that the library makes of itself */
	u32 seq;   /* of the first of its records */
	u32 encrypted;
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

#define CIPHERTEXT_NS 1000000000ULL /* it is not looked for any longer */
#define RECORD_HEADER 5
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

/* RFC 8446, 5.1: a type from change_cipher_spec to heartbeat, and the version 3.x. */
INLINE bool is_record(u64 bytes)
{
	u8 header[2] = {};

	if (!bytes || bpf_probe_read_user(header, sizeof(header), (void *)bytes))
		return false;
	return header[0] >= 20 && header[0] <= 24 && header[1] == 3;
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

INLINE void tls_session_uses(const struct tls_session_key *key, struct sock *sk, u64 socket,
			     const struct connection *connection, u32 source)
{
	struct tls_session session = {
		.sk = (u64)sk, .socket = socket, .connection = *connection, .source = source,
	};

	bpf_map_update_elem(&tls_sessions, key, &session, 0);
}

INLINE bool tls_session_has(const struct tls_session *session, const struct sock *sk, const struct connection *connection)
{
	return session && session->sk == (u64)sk && session->connection.local_port == connection->local_port &&
	       session->connection.remote_port == connection->remote_port;
}

/* Something is sent outside of a TLS library: perhaps what one has encrypted into memory. */
INLINE void tls_sent_elsewhere(struct sock *sk, const struct moved *moved, const struct connection *connection, u64 bytes)
{
	struct tls_session_key *found, key;
	u64 hash;

	if (moved->bytes < FINGERPRINT_END || moved->ts_ns - READ_ONCE(tls_ciphertext_ns) > CIPHERTEXT_NS)
		return;
	hash = fingerprint(bytes);
	found = hash ? bpf_map_lookup_elem(&tls_ciphertexts, &hash) : NULL;
	if (!found)
		return;
	key = *found;
	bpf_map_delete_elem(&tls_ciphertexts, &hash);
	tls_session_uses(&key, sk, moved->socket, connection, SOCKET_CIPHERTEXT);
}

/*
 * A call into TCP has returned. If the thread is in a TLS library, this is what the library encrypted or will decrypt:
 * say so in the message. Returns whether its payload is of no use.
 */
INLINE bool tls_carried(const struct thread *thread, struct sock *sk, struct moved *moved,
			const struct connection *connection, u32 kind, const struct buffer *buffer)
{
	struct tls_call *call = tls_call_of(thread);
	u64 bytes = buffer_begin(buffer->base, buffer->shape, buffer->offset);
	struct tls_session_key key = { .pid = thread->pid };
	struct tls_session *session;

	if (!moved->bytes || moved->flags & MESSAGE_PEEK)
		return false;
	if (!call || call->kind == TLS_NO_CALL) {
		if (kind == KIND_SEND)
			tls_sent_elsewhere(sk, moved, connection, bytes);
		return false;
	}
	key.session = call->session;
	session = bpf_map_lookup_elem(&tls_sessions, &key);
	if (!tls_session_has(session, sk, connection)) {
		if (!is_record(bytes))
			return false;
		tls_session_uses(&key, sk, moved->socket, connection, SOCKET_CALL);
	}
	moved->flags |= MESSAGE_ENCRYPTED;
	if (call->kind == (kind == KIND_SEND ? KIND_TLS_SEND : KIND_TLS_RECV)) {
		/* A header by itself: what was read before was of another record, such as a session ticket. */
		if (kind == KIND_RECV && moved->bytes == RECORD_HEADER && is_record(bytes))
			call->encrypted = 0;
		if (!call->encrypted)
			call->seq = moved->flags & MESSAGE_SEQ_UNKNOWN ? 0 : moved->seq;
		call->encrypted += moved->bytes;
	}
	return session && session->messages;
}

#endif
