/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Sessions that encrypt into memory, as under asyncio and in Node: which socket sends what they have written, and where
 * in its stream. The library's functions for memory show all records, in order; the first bytes of one, found again in
 * what a socket sends or receives, tell the sequence number of all others.
 */
#ifndef TCPRISM_TLS_MEMORY_H
#define TCPRISM_TLS_MEMORY_H

#include "tls_session.h"

#define CIPHERTEXT_NS 1000000000ULL /* it is not looked for any longer */
#define FINGERPRINT_WORDS 4
#define FINGERPRINT_END (RECORD_HEADER + FINGERPRINT_WORDS * 8)
#define SHORT_RECORDS 3 /* before one that is long enough: a change_cipher_spec, an alert */

/* Some bytes of a session, by their hash: they will be sent, by any thread. */
struct tls_ciphertext {
	struct tls_session_key key;
	u64 since_ns; /* the session's */
	u32 at;       /* where they are in what it has written */
	u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct tls_ciphertext);
} tls_ciphertexts SEC(".maps");

u64 tls_ciphertext_ns; /* when the latest of them was put there */

/* By socket: the session whose ciphertext it has sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct tls_session_key);
} tls_sessions_by_socket SEC(".maps");

#define HELLO_RETRY 0x1dbe11619ae574adULL /* bytes 2 to 9 of its constant, RFC 8446, 4.1.3 */

/*
 * Multiplicative hashing of bytes behind a record's header: random in a hello, encrypted in what follows. 0: unreadable,
 * or a HelloRetryRequest, which is the same in all sessions.
 */
INLINE u64 fingerprint(u64 bytes)
{
	u64 words[FINGERPRINT_WORDS] = {}, hash = 0;

	if (!bytes || bpf_probe_read_user(words, sizeof(words), (void *)(bytes + RECORD_HEADER)))
		return 0;
	if (words[1] == HELLO_RETRY)
		return 0;
	for (u32 i = 0; i < FINGERPRINT_WORDS; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
	return hash;
}

/*
 * Whether a session begins with these bytes: a hello, with a version of its own (RFC 8446, 4.1.2). Encrypted, as in TLS
 * 1.2's renegotiation, it looks otherwise. At the object's address there may have been another session: SSL_clear() ended
 * it, or its process did, whose pid is used again.
 */
INLINE bool is_begin(u64 bytes)
{
	u8 hello[RECORD_HEADER + 6] = {};

	return !bpf_probe_read_user(hello, sizeof(hello), (void *)bytes) && is_header(hello) &&
	       hello[0] == RECORD_HANDSHAKE && (hello[5] == CLIENT_HELLO || hello[5] == SERVER_HELLO) && !hello[6] &&
	       hello[9] == 3 && hello[10] <= 3;
}

/* The session of a call that moves bytes to or from memory, NULL where it has a socket. `begins`: a new one does. */
INLINE struct tls_session *tls_session_in_memory(const struct tls_session_key *key, bool begins)
{
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, key);

	if (session && !(begins && session->messages))
		return session->source == SOCKET_CALL ? NULL : session;
	bpf_map_update_elem(&tls_sessions, key, &tls_session_new, 0);
	session = bpf_map_lookup_elem(&tls_sessions, key);
	if (session)
		session->since_ns = bpf_ktime_get_ns();
	return session;
}

/*
 * Whether bytes at a BIO are the session's records. A library may have a BIO before the one that leads to the socket, and
 * a callback one of its own: the one counts whose bytes were found at a socket, until then the latest with records.
 */
INLINE bool tls_bio_counts(struct tls_session *session, u32 direction, u64 bio, u64 bytes)
{
	struct tls_stream *stream = &session->streams[direction];

	if (bio == session->bios[direction])
		return true;
	if (stream->known || !is_record(bytes))
		return false;
	session->bios[direction] = bio;
	session->bio_since[direction] = stream->next;
	stream_restart(stream, stream->next);
	return true;
}

/*
 * The same of a write. One into the library's own memory is seen twice where BIO_write() has a probe for the sake of
 * others: there, and then in the function behind it. The latter counts, or its bytes would be counted twice.
 */
INLINE bool tls_write_counts(struct tls_session *session, u64 bio, u64 bytes, bool behind)
{
	bool elsewhere = session->by_memory != behind;

	if (bio == session->bios[0]) {
		session->by_memory |= behind; /* only this write has been counted at BIO_write() */
		return !elsewhere;
	}
	if (!tls_bio_counts(session, 0, bio, bytes))
		return false;
	session->by_memory = behind;
	return true;
}

/* A session has written records into memory, as is seen at BIO_write() or `behind` it. */
INLINE void tls_wrote(const struct tls_session_key *key, u64 bio, u64 bytes, u32 length, bool behind)
{
	struct tls_session *session = tls_session_in_memory(key, is_begin(bytes));
	struct tls_ciphertext ciphertext = { .key = *key };
	u64 hash;

	if (!session || !tls_write_counts(session, bio, bytes, behind))
		return;
	ciphertext.since_ns = session->since_ns;
	ciphertext.at = session->streams[0].next;
	tls_stream_moves(key, session, bytes, length, 0, MOVED_SEQ_UNKNOWN);
	if (session->streams[0].known || length < FINGERPRINT_END)
		return;
	hash = fingerprint(bytes);
	if (!hash)
		return;
	bpf_map_update_elem(&tls_ciphertexts, &hash, &ciphertext, 0);
	WRITE_ONCE(tls_ciphertext_ns, bpf_ktime_get_ns());
}

/* A socket sends what a session has written: they belong together from now on. */
INLINE void tls_session_joins(const struct tls_ciphertext *found, struct sock *sk, u32 seq, u64 how)
{
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &found->key);
	u64 address = (u64)sk;

	if (!session || session->since_ns != found->since_ns || session->source == SOCKET_CALL)
		return;
	if (session->sk != address) {
		session->sk = address;
		session->socket = cookie_of(sk, READS_PROBED);
		session->source = SOCKET_CIPHERTEXT;
		read_connection(&session->connection, &sk->__sk_common, READS_PROBED);
		for (u32 i = 0; i < 2; i++)
			stream_joins(&session->streams[i], session->messages);
	}
	if (!(how & MOVED_SEQ_UNKNOWN) && !after(session->bio_since[0], found->at))
		stream_place(&session->streams[0], found->at, seq);
	bpf_map_update_elem(&tls_sessions_by_socket, &address, &found->key, 0);
	tls_set(&tls_in_memory);
}

/*
 * Something is sent outside of a TLS library: perhaps what one has encrypted into memory. Returns whether it is. Another
 * process passes on what it has received: the connection on which this one sent it is left out by a filter.
 */
INLINE bool tls_sent_elsewhere(struct sock *sk, u64 bytes, u32 length, u32 seq, u64 how)
{
	struct tls_ciphertext *found, ciphertext;
	struct thread thread;
	u64 hash;

	if (length < FINGERPRINT_END || bpf_ktime_get_ns() - READ_ONCE(tls_ciphertext_ns) > CIPHERTEXT_NS)
		return false;
	hash = fingerprint(bytes);
	found = hash ? bpf_map_lookup_elem(&tls_ciphertexts, &hash) : NULL;
	if (!found)
		return false;
	read_thread(&thread);
	if (found->key.pid != thread.pid)
		return false;
	ciphertext = *found;
	bpf_map_delete_elem(&tls_ciphertexts, &hash);
	tls_session_joins(&ciphertext, sk, seq, how);
	return true;
}

/* The session in memory whose records a socket receives, while it is not known where they are in its stream. */
INLINE struct tls_session *tls_session_to_place(u64 sk, u64 how)
{
	struct tls_session_key *key = bpf_map_lookup_elem(&tls_sessions_by_socket, &sk);
	struct tls_session *session = key ? bpf_map_lookup_elem(&tls_sessions, key) : NULL;

	if (!session || session->sk != sk || ports_of(&session->connection) != how >> 32 || session->streams[1].known) {
		if (key)
			bpf_map_delete_elem(&tls_sessions_by_socket, &sk);
		return NULL;
	}
	return session;
}

/* Something is received outside of a TLS library, perhaps by a session in memory: to be found when the library reads it. */
INLINE void tls_received_elsewhere(u64 sk, u64 bytes, u32 length, u32 seq, u64 how)
{
	struct tls_session *session;
	u32 size = 0;

	if (how & (MOVED_SEQ_UNKNOWN | MOVED_SCATTERED) || !READ_ONCE(tls_ciphertext_ns))
		return;
	session = tls_session_to_place(sk, how);
	if (!session)
		return;
	session->awaited = 0;
	for (u32 i = 0; i <= SHORT_RECORDS; i++) {
		u8 header[RECORD_HEADER] = {};

		if (length < FINGERPRINT_END || bpf_probe_read_user(header, sizeof(header), (void *)bytes) ||
		    !is_header(header))
			return;
		size = RECORD_HEADER + (header[3] << 8 | header[4]);
		if (size >= FINGERPRINT_END)
			break;
		bytes += size;
		seq += size;
		length = length > size ? length - size : 0;
	}
	session->awaited = fingerprint(bytes);
	session->awaited_seq = seq;
}

/* A session has read bytes from memory. */
INLINE void tls_took(const struct tls_session_key *key, u64 bio, u64 bytes, u32 length)
{
	struct tls_session *session = tls_session_in_memory(key, false);
	struct tls_stream *stream;

	if (!session || !tls_bio_counts(session, 1, bio, bytes))
		return;
	stream = &session->streams[1];
	if (session->awaited && !stream->known && length >= FINGERPRINT_END - RECORD_HEADER) {
		/* A library reads headers by themselves, and then what follows. */
		u32 header = stream_after_header(stream) ? RECORD_HEADER : 0;

		if (fingerprint(bytes - header) == session->awaited) {
			stream_place(stream, stream->next - header, session->awaited_seq);
			session->awaited = 0;
		}
	}
	tls_stream_moves(key, session, bytes, length, 0, MOVED_RECV | MOVED_SEQ_UNKNOWN);
}

#endif
