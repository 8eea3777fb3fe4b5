/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * tls_send of rustls 0.20 to 0.23: what its MessageEncrypter encrypts (tls_rustls_decrypt.bpf.c: what is decrypted), one
 * record a call, through tables, so that no compiler merges them with others. Rust fixes neither the order of fields nor
 * that of versions, so all that is read here must agree with itself and with a record of a socket: else nothing is shown.
 * The types of arguments and results are others since 0.23, and begin with Outbound and Inbound.
 */
#include "tcprism/tls_waiting.h"

/* fn encrypt(&self, BorrowedPlainMessage, seq: u64) -> Result<OpaqueMessage, Error>, which goes to what DI has */
UPROBE(tls_rustls_encrypt)
{
	u64 words[3] = {};
	struct thread thread;
	struct tls_call *call = rustls_enter(ctx, &thread);
	int type;

	if (!call)
		return 0;
	type = bpf_probe_read_user(words, sizeof(words), (void *)ctx->dx) ? -1 : rustls_type(words[2]);
	if (type < 0 || words[1] > PLAINTEXT_MAX) {
		count_unproven(KIND_TLS_SEND);
		return 0;
	}
	call->buffer = words[0];
	call->requested = words[1];
	call->carried = true;
	if (type == RUSTLS_DATA)
		call->kind = KIND_TLS_SEND;
	return 0;
}

/* fn encrypt(&mut self, OutboundPlainMessage, seq: u64) -> Result<OutboundOpaqueMessage, Error> */
UPROBE(tls_rustls_encrypt_outbound)
{
	u64 words[RUSTLS_WORDS] = {};
	struct thread thread;
	struct tls_call *call = rustls_enter(ctx, &thread);
	int type;

	if (!call)
		return 0;
	if (bpf_probe_read_user(words, sizeof(words), (void *)ctx->dx) || !rustls_chunks(words, call, &type)) {
		count_unproven(KIND_TLS_SEND);
		return 0;
	}
	call->carried = true;
	if (type == RUSTLS_DATA)
		call->kind = KIND_TLS_SEND;
	return 0;
}

INLINE void rustls_sealed(const struct thread *thread, struct tls_call *call, const struct rustls_bytes *sealed)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_cipher *cipher = tls_cipher_of(&key, call->moved_at);
	struct tls_sealed record = { .key = key, .size = RECORD_HEADER + sealed->length };
	u64 hash;

	if (!cipher)
		return;
	record.at = cipher->at;
	record.since_ns = cipher->since_ns;
	cipher->at += record.size;
	cipher->next++;
	if (cipher->has_socket) {
		if (call->kind != KIND_TLS_SEND)
			return;
		if (!rustls_moves(cipher, thread->pid, 0, record.at, record.size)) {
			cipher->has_socket = cipher->whole = false;
			count_unproven(KIND_TLS_SEND);
			return;
		}
		call->session = cipher->socket;
		tls_record(thread, call, call->requested, call->segments);
		return;
	}
	if (call->kind == KIND_TLS_SEND && kind_wanted(KIND_TLS_SEND))
		rustls_wait(&key, cipher, call, record.at, record.size);
	hash = record_fingerprint(sealed->at, sealed->length);
	if (hash)
		bpf_map_update_elem(&tls_sealed, &hash, &record, 0);
	WRITE_ONCE(tls_sealed_ns, bpf_ktime_get_ns());
}

INLINE int rustls_encrypted(struct pt_regs *ctx, bool outbound)
{
	struct gathering *gathering = NULL;
	struct rustls_bytes sealed;
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (!call)
		return 0;
	if (call->carried && (outbound ? rustls_outbound(ctx->ax, &sealed) : rustls_result(ctx->ax, &sealed)) &&
	    sealed.length >= call->requested + TAG && sealed.length <= call->requested + OVERHEAD_MAX) {
		if (outbound && call->segments && call->kind == KIND_TLS_SEND && config.payload_limit)
			gathering = rustls_gather(call);
		rustls_sealed(&thread, call, &sealed);
		if (gathering)
			gathering_leave(gathering);
	} else if (call->kind == KIND_TLS_SEND) {
		count_unproven(KIND_TLS_SEND);
	}
	call->kind = TLS_NO_CALL;
	return 0;
}

URETPROBE(tls_rustls_encrypted)
{
	return rustls_encrypted(ctx, false);
}

URETPROBE(tls_rustls_encrypted_outbound)
{
	return rustls_encrypted(ctx, true);
}
