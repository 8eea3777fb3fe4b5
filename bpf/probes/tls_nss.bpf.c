/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * tls_send and tls_recv of NSS. Its users call NSPR's functions, which serve files and sockets without TLS as well: what
 * has moved TLS records inside such a call, or in an earlier one, is a session.
 */
#include "tcprism/tls_message.h"

#define PR_MSG_PEEK 2 /* prio.h */

/* PRInt32 PR_Write(fd, buffer, amount), PR_Send(fd, buffer, amount, flags, timeout) */
UPROBE(tls_nspr_write)
{
	tls_enter(ctx, KIND_TLS_SEND, ctx->si, (u32)ctx->dx, 0);
	return 0;
}

struct PRIOVec {
	u64 iov_base;
	int iov_len;
};

/* PRInt32 PR_Writev(fd, buffers, count, timeout): of its payload, what is in the first of them. */
UPROBE(tls_nspr_writev)
{
	struct PRIOVec first = {};

	if (bpf_probe_read_user(&first, sizeof(first), (void *)ctx->si))
		first.iov_base = first.iov_len = 0;
	tls_enter(ctx, KIND_TLS_SEND, first.iov_base, (u32)first.iov_len, 0);
	return 0;
}

/* PRInt32 PR_Read(fd, buffer, amount) */
UPROBE(tls_nspr_read)
{
	tls_enter(ctx, KIND_TLS_RECV, ctx->si, (u32)ctx->dx, 0);
	return 0;
}

/* PRInt32 PR_Recv(fd, buffer, amount, flags, timeout) */
UPROBE(tls_nspr_recv)
{
	tls_enter(ctx, ctx->cx & PR_MSG_PEEK ? TLS_OTHER : KIND_TLS_RECV, ctx->si, (u32)ctx->dx, 0);
	return 0;
}

URETPROBE(tls_nspr_returned)
{
	struct tls_session_key key = {};
	struct tls_session *session;
	struct tls_call *call;
	struct thread thread;

	call = tls_ending(&thread);
	if (!call)
		return 0;
	key.session = call->session;
	key.pid = thread.pid;
	session = bpf_map_lookup_elem(&tls_sessions, &key);
	if (!session) {
		call->kind = TLS_NO_CALL;
		return 0;
	}
	if (call->kind == KIND_TLS_RECV) /* what it sends is a handshake's, and carries no plaintext */
		session->streams[0].begin = session->streams[0].next;
	tls_leave(&thread, call, (s32)ctx->ax);
	return 0;
}
