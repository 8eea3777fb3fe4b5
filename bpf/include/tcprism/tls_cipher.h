/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Libraries that encrypt record by record, with an object for the keys of each direction, and leave it to the program to
 * send and receive, as rustls. A program moves the session around in memory; the object stays where it is, until keys
 * change. Which socket it serves, and where in its stream, is proven by ciphertext alone: the first bytes of a record.
 */
#ifndef TCPRISM_TLS_CIPHER_H
#define TCPRISM_TLS_CIPHER_H

#include "tls_memory.h"

#define TAG 16 /* the shortest record: bytes of an AEAD's tag (RFC 8446, 5.2) */
#define RECEIVED_RECORDS 8 /* of a read that are remembered */
#define WAITING_MAX 8	   /* messages of a cipher whose socket is not known yet */

struct tls_cipher {
	u64 socket; /* 0: not known */
	u64 next;   /* the number of its next record: a new object begins with 0 */
	u64 since_ns;
	u32 at;	    /* bytes of its records so far */
	u32 base;   /* sequence number of the first of them */
	u8 has_socket;
	u8 placed; /* `base` is known */
	u8 whole;  /* all its plaintext was seen */
	u8 waiting;
	u32 reserved;
};

/* By object and process. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct tls_session_key);
	__type(value, struct tls_cipher);
} tls_ciphers SEC(".maps");

/* By the hash of its ciphertext: a record that a cipher has made, and that will be sent. */
struct tls_sealed {
	struct tls_session_key key;
	u64 since_ns; /* the cipher's */
	u32 at;	      /* where it is in what the cipher has made */
	u32 size;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct tls_sealed);
} tls_sealed SEC(".maps");

/* By the hash of its ciphertext: a record that a socket has received, and that a cipher of the process will open. */
struct tls_received {
	u64 sk;
	u64 socket;
	struct connection connection;
	u32 seq, size;
	u32 pid;
	u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct tls_received);
} tls_received SEC(".maps");

const struct tls_received tls_received_new = {};

u32 tls_has_ciphers; /* any have been used */
u64 tls_sealed_ns;   /* when the latest record was made whose socket is not known */

/* As fingerprint(), of a record's length, which may be short. `bytes` is behind the header. */
INLINE u64 record_fingerprint(u64 bytes, u32 length)
{
	u64 words[2] = {};

	if (length >= FINGERPRINT_WORDS * 8)
		return fingerprint(bytes - RECORD_HEADER);
	if (length < TAG || bpf_probe_read_user(words, sizeof(words), (void *)bytes))
		return 0;
	return ((words[0] * 0x9e3779b97f4a7c15ULL) ^ words[1]) * 0x9e3779b97f4a7c15ULL;
}

/* The cipher that an object is. At an address there may be another one than before: its records begin anew. */
INLINE struct tls_cipher *tls_cipher_of(const struct tls_session_key *key, u64 number)
{
	struct tls_cipher *cipher = bpf_map_lookup_elem(&tls_ciphers, key);
	struct tls_cipher new = {};

	WRITE_ONCE(tls_has_ciphers, true);
	if (cipher && cipher->next == number)
		return cipher;
	new.next = number;
	new.since_ns = bpf_ktime_get_ns();
	new.whole = !number;
	bpf_map_update_elem(&tls_ciphers, key, &new, 0);
	return bpf_map_lookup_elem(&tls_ciphers, key);
}

/* A cipher's session is the socket's: keys change, and there is one for each direction. */
INLINE struct tls_session *tls_session_of_socket(u64 socket, u32 pid, u64 sk, const struct connection *connection)
{
	struct tls_session_key key = { .session = socket, .pid = pid };
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);

	if (session)
		return session;
	bpf_map_update_elem(&tls_sessions, &key, &tls_session_new, 0);
	session = bpf_map_lookup_elem(&tls_sessions, &key);
	if (!session)
		return NULL;
	session->sk = sk;
	session->socket = socket;
	session->source = SOCKET_CIPHERTEXT;
	session->connection = *connection;
	return session;
}

INLINE void tls_cipher_placed(struct tls_cipher *cipher, u64 socket, u32 at, u32 seq, bool seq_known)
{
	cipher->socket = socket;
	cipher->has_socket = true;
	cipher->placed = seq_known;
	cipher->base = seq - at;
}

/* How long the record is whose header is at an address, without the header; 0: there is none. A global function. */
__noinline u32 record_length(u64 bytes, u32 room)
{
	u8 header[RECORD_HEADER] = {};

	if (room < RECORD_HEADER + TAG || bpf_probe_read_user(header, sizeof(header), (void *)bytes) || !is_header(header))
		return 0;
	return header[3] << 8 | header[4];
}

/* Something is sent: perhaps a record that a cipher has made. Returns whether its socket is known by that. */
__noinline int tls_cipher_sent(u64 address, u64 bytes, u32 length, u32 seq, u64 how)
{
	struct sock *sk = (struct sock *)address;
	struct tls_session_key key = {};
	struct tls_cipher *cipher;
	struct tls_sealed *found;
	struct thread thread;
	u32 size;
	u64 hash;

	if (bpf_ktime_get_ns() - READ_ONCE(tls_sealed_ns) > CIPHERTEXT_NS)
		return 0;
	size = record_length(bytes, length);
	hash = size ? record_fingerprint(bytes + RECORD_HEADER, size) : 0;
	found = hash ? bpf_map_lookup_elem(&tls_sealed, &hash) : NULL;
	if (!found || found->size != size + RECORD_HEADER)
		return 0;
	read_thread(&thread);
	if (found->key.pid != thread.pid) /* as in tls_sent_elsewhere() */
		return 0;
	cipher = bpf_map_lookup_elem(&tls_ciphers, &found->key);
	key.session = cookie_of(sk, READS_PROBED);
	key.pid = found->key.pid;
	if (!cipher || cipher->since_ns != found->since_ns || cipher->has_socket || !key.session)
		return 0;
	if (!bpf_map_lookup_elem(&tls_sessions, &key) && !tls_session_uses(&key, sk, SOCKET_CIPHERTEXT))
		return 0;
	tls_cipher_placed(cipher, key.session, found->at, seq, !(how & MOVED_SEQ_UNKNOWN));
	bpf_map_update_elem(&tls_sessions_by_socket, &address, &found->key, 0);
	return 1;
}

/* Remembers a record that has been received, if enough of it has come to be known again. */
__noinline int tls_cipher_receives_one(u64 address, u64 bytes, u32 length, u32 seq, u32 room)
{
	struct sock *sk = (struct sock *)address;
	struct tls_received *received;
	struct thread thread;
	u64 hash;

	if (room < RECORD_HEADER + MIN(length, FINGERPRINT_WORDS * 8))
		return 0;
	hash = record_fingerprint(bytes + RECORD_HEADER, length);
	if (!hash)
		return 0;
	bpf_map_update_elem(&tls_received, &hash, &tls_received_new, 0);
	received = bpf_map_lookup_elem(&tls_received, &hash);
	if (!received)
		return 0;
	received->sk = address;
	received->socket = cookie_of(sk, READS_PROBED);
	received->seq = seq;
	read_thread(&thread);
	received->pid = thread.pid;
	read_connection(&received->connection, &sk->__sk_common, READS_PROBED);
	barrier();
	received->size = RECORD_HEADER + length;
	return 0;
}

/* Something is received: remember its records until a cipher opens them. */
__noinline int tls_cipher_receives(u64 address, u64 bytes, u32 length, u32 seq, u64 how)
{
	if (how & (MOVED_SEQ_UNKNOWN | MOVED_SCATTERED))
		return 0;
	for (u32 i = 0; i < RECEIVED_RECORDS; i++) {
		u32 size = record_length(bytes, length);

		if (!size)
			break;
		tls_cipher_receives_one(address, bytes, size, seq, length);
		size += RECORD_HEADER;
		if (size >= length)
			break;
		bytes += size;
		seq += size;
		length -= size;
	}
	return 0;
}

#endif
