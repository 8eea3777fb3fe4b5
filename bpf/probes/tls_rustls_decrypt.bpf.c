/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* tls_recv of rustls 0.20 to 0.23: what its MessageDecrypter decrypts, as tls_rustls_encrypt.bpf.c says. */
#include "tcprism/tls_waiting.h"

/* A cipher opens its next record: where a socket has received it, or behind the one before. */
INLINE void rustls_opens(const struct tls_session_key *key, struct tls_call *call, const struct rustls_bytes *sealed)
{
	struct tls_cipher *cipher = tls_cipher_of(key, call->moved_at);
	u64 hash = record_fingerprint(sealed->at, sealed->length);
	struct tls_received *found = hash ? bpf_map_lookup_elem(&tls_received, &hash) : NULL;
	u32 size = RECORD_HEADER + sealed->length;

	if (!cipher)
		return;
	if (found && found->socket && found->size == size && found->pid == key->pid &&
	    tls_session_of_socket(found->socket, key->pid, found->sk, &found->connection))
		tls_cipher_placed(cipher, found->socket, cipher->at, found->seq, true);
	call->reading_from = cipher->at;
	call->carried = size;
	cipher->at += size;
	cipher->next++;
}

INLINE int rustls_decrypt(struct pt_regs *ctx, bool inbound)
{
	struct tls_session_key key = { .session = ctx->si };
	struct rustls_bytes sealed;
	struct thread thread;
	struct tls_call *call = rustls_enter(ctx, &thread);
	u64 words[4] = {};

	if (!call)
		return 0;
	if (bpf_probe_read_user(words, sizeof(words), (void *)ctx->dx) ||
	    !(inbound ? rustls_borrowed(words, &sealed) : rustls_owned(words, &sealed))) {
		count_unproven(KIND_TLS_RECV);
		return 0;
	}
	key.pid = thread.pid;
	call->buffer = sealed.at;
	call->requested = sealed.length;
	call->kind = KIND_TLS_RECV;
	rustls_opens(&key, call, &sealed);
	return 0;
}

/* fn decrypt(&self, OpaqueMessage, seq: u64) -> Result<PlainMessage, Error>, in place */
UPROBE(tls_rustls_decrypt)
{
	return rustls_decrypt(ctx, false);
}

/* fn decrypt(&mut self, InboundOpaqueMessage, seq: u64) -> Result<InboundPlainMessage, Error>, in place */
UPROBE(tls_rustls_decrypt_inbound)
{
	return rustls_decrypt(ctx, true);
}

INLINE void rustls_opened(const struct thread *thread, struct tls_call *call, const struct rustls_bytes *plain)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_cipher *cipher = bpf_map_lookup_elem(&tls_ciphers, &key);

	if (!cipher || plain->type != RUSTLS_DATA || !plain->length)
		return;
	if (!cipher->has_socket || !rustls_moves(cipher, thread->pid, 1, call->reading_from, call->carried)) {
		cipher->whole = false;
		count_unproven(KIND_TLS_RECV);
		return;
	}
	call->session = cipher->socket;
	call->buffer = plain->at;
	tls_record(thread, call, plain->length, false);
}

URETPROBE(tls_rustls_decrypted)
{
	struct rustls_bytes plain;
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (!call)
		return 0;
	if (call->carried && rustls_result(ctx->ax, &plain) && plain.at == call->buffer &&
	    plain.length + TAG <= call->requested && kind_wanted(KIND_TLS_RECV))
		rustls_opened(&thread, call, &plain);
	call->kind = TLS_NO_CALL;
	return 0;
}

URETPROBE(tls_rustls_decrypted_inbound)
{
	struct rustls_bytes plain;
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (!call)
		return 0;
	if (call->carried && rustls_inbound(ctx->ax, &plain) && rustls_in_place(call, &plain) && kind_wanted(KIND_TLS_RECV))
		rustls_opened(&thread, call, &plain);
	call->kind = TLS_NO_CALL;
	return 0;
}
