/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* tls_send and tls_recv by uprobes of TLS libraries. User space knows which function each program is for. */
#include "tcprism/tls_message.h"

/* int SSL_write(ssl, buffer, length), ssize_t gnutls_record_send(session, data, size) */
SEC("uprobe") int tls_write(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, 0);
	return 0;
}

SEC("uprobe") int tls_read(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_RECV, ctx->si, ctx->dx, 0);
	return 0;
}

/* int SSL_write_ex(ssl, buffer, length, &written), SSL_read_early_data() */
SEC("uprobe") int tls_write_ex(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, ctx->cx);
	return 0;
}

SEC("uprobe") int tls_read_ex(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_RECV, ctx->si, ctx->dx, ctx->cx);
	return 0;
}

/* int SSL_write_ex2(ssl, buffer, length, flags, &written) */
SEC("uprobe") int tls_write_ex2(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, ctx->dx, ctx->r8);
	return 0;
}

/* ssize_t SSL_sendfile(ssl, file, offset, size, flags): the kernel reads the file, and encrypts it. */
SEC("uprobe") int tls_sendfile(struct pt_regs *ctx)
{
	tls_enter(ctx, KIND_TLS_SEND, 0, ctx->cx, 0);
	return 0;
}

/* SSL_do_handshake(ssl): it tells the connection before there is plaintext. */
SEC("uprobe") int tls_handshake(struct pt_regs *ctx)
{
	tls_enter(ctx, TLS_HANDSHAKE, 0, 0, 0);
	return 0;
}

/* SSL_shutdown(ssl), SSL_peek(ssl, buffer, length): records are moved, but what is peeked at will be read. */
SEC("uprobe") int tls_other(struct pt_regs *ctx)
{
	tls_enter(ctx, TLS_OTHER, 0, 0, 0);
	return 0;
}

/* The bytes moved are the result, which is an int, or a small ssize_t. */
SEC("uretprobe") int tls_returned(struct pt_regs *ctx)
{
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (call)
		tls_leave(&thread, call, (s32)ctx->ax);
	return 0;
}

/* The result is 1 where any were moved. */
SEC("uretprobe") int tls_returned_ex(struct pt_regs *ctx)
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
SEC("uprobe") int tls_free(struct pt_regs *ctx)
{
	struct tls_session_key key = { .session = ctx->di };
	struct thread thread;

	read_thread(&thread);
	key.pid = thread.pid;
	bpf_map_delete_elem(&tls_sessions, &key);
	return 0;
}
