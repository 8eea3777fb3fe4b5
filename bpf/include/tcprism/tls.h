/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What TCP moves inside a call into a TLS library tells the connection of its session, if it is TLS records. Never the
 * descriptor that the library holds: a program may move the records itself.
 */
#ifndef TCPRISM_TLS_H
#define TCPRISM_TLS_H

#include "tls_cipher.h"

/* NSPR's functions may pass what a program gave them to TCP, or the other way round: that is no plaintext. */
INLINE bool tls_passes_on(const struct tls_call *call, u64 bytes)
{
	return bytes >= call->buffer && bytes - call->buffer < call->requested;
}

/* Written to for each hello that no known library sends: user space looks at once for new ones. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} tls_hellos SEC(".maps");

INLINE void tls_tell_hello(void)
{
	u64 hello = 1;

	bpf_ringbuf_output(&tls_hellos, &hello, sizeof(hello), BPF_RB_FORCE_WAKEUP);
}

/* What tls_moved() returns. */
#define TLS_CARRIES MESSAGE_ENCRYPTED
#define TLS_PAYLOAD_OF_NO_USE 0x10000
#define TLS_ELSEWHERE 0x20000

/* Shows what has waited for a record that this socket has sent. Defined where messages are. */
__noinline int tls_show_waiting(u64 sk);

/* TCP has moved bytes outside of a TLS library. A global function; not called by tls_moved(), as stacks are small. */
__noinline int tls_moved_elsewhere(u64 sk, u64 bytes, u32 length, u32 seq, u64 how)
{
	if (how & MOVED_RECV) {
		tls_received_elsewhere(sk, bytes, length, seq, how);
		return 0;
	}
	if (tls_sent_elsewhere((struct sock *)sk, bytes, length, seq, how))
		return TLS_CARRIES;
	if (length > RECORD_HEADER && is_hello(bytes))
		tls_tell_hello();
	return 0;
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
	if (!call)
		return TLS_ELSEWHERE;
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

/* A filter leaves out what was sent. If a TLS library did, it is on its way all the same: not in the program's memory. */
__noinline int tls_left_out(void)
{
	struct tls_call *call;
	struct thread thread;

	read_thread(&thread);
	call = tls_call_now(&thread);
	if (call)
		call->carried++;
	return 0;
}

/* Records that a cipher has made, or will open. `kind` is known to the compiler: each has only the half that it needs. */
INLINE u32 tls_cipher_moved(u64 sk, u64 bytes, const struct moved *moved, u32 kind, u64 how)
{
	if (kind == KIND_RECV) {
		tls_cipher_receives(sk, bytes, moved->bytes, moved->seq, how);
		return 0;
	}
	if (!tls_cipher_sent(sk, bytes, moved->bytes, moved->seq, how))
		return 0;
	tls_show_waiting(sk);
	return TLS_CARRIES;
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
	if (result & TLS_ELSEWHERE) {
		result = tls_moved_elsewhere(untyped(sk), bytes, moved->bytes, moved->seq, how);
		if (READ_ONCE(tls_has_ciphers))
			result |= tls_cipher_moved(untyped(sk), bytes, moved, kind, how);
	}
	moved->flags |= result & TLS_CARRIES;
	return result & TLS_PAYLOAD_OF_NO_USE;
}

#endif
