/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* tls_send and tls_recv by uprobes of TLS libraries. User space knows which function each program is for. */
#include "tcprism/tls_message.h"

/* int SSL_write(ssl, buffer, length), ssize_t gnutls_record_send(session, data, size) */
UPROBE(tls_write)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, 0);
	return 0;
}

UPROBE(tls_read)
{
	tls_enter(ctx, KIND_TLS_RECV, ctx->si, ctx->dx, 0);
	return 0;
}

/* int SSL_write_ex(ssl, buffer, length, &written), SSL_read_early_data() */
UPROBE(tls_write_ex)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, ctx->cx);
	return 0;
}

UPROBE(tls_read_ex)
{
	tls_enter(ctx, KIND_TLS_RECV, ctx->si, ctx->dx, ctx->cx);
	return 0;
}

/* int SSL_write_ex2(ssl, buffer, length, flags, &written) */
UPROBE(tls_write_ex2)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, ctx->r8);
	return 0;
}

/* ssize_t SSL_sendfile(ssl, file, offset, size, flags): the kernel reads the file, and encrypts it. */
UPROBE(tls_sendfile)
{
	tls_enter(ctx, KIND_TLS_SEND, 0, ctx->cx, 0);
	return 0;
}

/* SSL_do_handshake(ssl): it tells the connection before there is plaintext. */
UPROBE(tls_handshake)
{
	tls_enter(ctx, TLS_HANDSHAKE, 0, 0, 0);
	return 0;
}

/* SSL_shutdown(ssl), SSL_peek(ssl, buffer, length): records are moved, but what is peeked at will be read. */
UPROBE(tls_other)
{
	tls_enter(ctx, TLS_OTHER, 0, 0, 0);
	return 0;
}

/* The bytes moved are the result, which is an int, or a small ssize_t. */
URETPROBE(tls_returned)
{
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (call)
		tls_leave(&thread, call, (s32)ctx->ax);
	return 0;
}

/* The result is 1 where any were moved. */
URETPROBE(tls_returned_ex)
{
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);
	u64 moved = 0;

	if (!call)
		return 0;
	if ((s32)ctx->ax == 1 && call->moved_at)
		bpf_probe_read_user(&moved, sizeof(moved), (void *)call->moved_at);
	tls_leave(&thread, call, MIN(moved, 0x7fffffff));
	return 0;
}

/* void SSL_free(ssl): its address may become another's. */
UPROBE(tls_free)
{
	struct tls_session_key key = { .session = ctx->di };
	struct thread thread;

	read_thread(&thread);
	key.pid = thread.pid;
	bpf_map_delete_elem(&tls_sessions, &key);
	return 0;
}
