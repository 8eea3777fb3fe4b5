/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* TLS sessions in memory: what a library writes there and reads from there, which others send and receive. */
#include "tcprism/tls_message.h"

/* Inside a call of a session without a connection, what is written into memory is what it encrypted. */
INLINE int encrypted(const struct pt_regs *ctx, bool behind)
{
	struct tls_session_key key = {};
	struct tls_call *call;
	struct thread thread;

	read_thread(&thread);
	call = tls_call_of(&thread);
	if (!call || call->kind == TLS_NO_CALL || (s32)ctx->dx <= 0)
		return 0;
	call->carried += ctx->dx;
	key.session = call->session;
	key.pid = thread.pid;
	tls_wrote(&key, ctx->di, ctx->si, ctx->dx, behind);
	return 0;
}

/* int BIO_write(bio, data, length) */
UPROBE(tls_encrypted)
{
	return encrypted(ctx, false);
}

/* A function behind it that writes into memory, with the same arguments. */
UPROBE(tls_encrypted_behind)
{
	return encrypted(ctx, true);
}

/* int BIO_read(bio, data, length), or a function behind it that reads from memory: this is what the session decrypts. */
UPROBE(tls_decrypts)
{
	struct tls_call *call;
	struct thread thread;

	read_thread(&thread);
	call = tls_call_of(&thread);
	if (!call || call->kind == TLS_NO_CALL)
		return 0;
	call->reading_from = ctx->di;
	call->reading = ctx->si;
	return 0;
}

URETPROBE(tls_decrypts_returned)
{
	struct tls_session_key key = {};
	struct tls_call *call;
	struct thread thread;
	u64 bytes;

	read_thread(&thread);
	call = tls_call_of(&thread);
	if (!call || call->kind == TLS_NO_CALL || !call->reading)
		return 0;
	bytes = call->reading;
	call->reading = 0;
	if ((s32)ctx->ax <= 0)
		return 0;
	call->carried += ctx->ax;
	key.session = call->session;
	key.pid = thread.pid;
	tls_took(&key, call->reading_from, bytes, ctx->ax);
	return 0;
}
