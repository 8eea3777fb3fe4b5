/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * tls_send and tls_recv of Go programs: crypto/tls. Arguments and results are in registers (Go's ABIInternal, since
 * 1.17): the receiver in AX, the slice in BX, CX, DI, the goroutine in R14; the number of bytes comes back in AX. A
 * return probe would break a stack that Go moves, so user space finds all places where the functions return.
 */
#include "tcprism/tls_message.h"

/* Twice for one call if the stack has to grow first. */
INLINE void go_enter(const struct pt_regs *ctx, u32 kind, u64 buffer, u64 length)
{
	struct tls_call call = {
		.session = ctx->ax, .buffer = buffer, .requested = MIN(length, REQUESTED_UNKNOWN), .kind = kind,
	};
	struct tls_goroutine key = { .g = ctx->r14 };
	struct thread thread;

	read_thread(&thread);
	if (!task_passes(thread.pid))
		return;
	key.pid = thread.pid;
	call.start_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&tls_calls_of_goroutines, &key, &call, 0);
	WRITE_ONCE(tls_has_goroutines, true);
}

UPROBE(tls_go_write)
{
	go_enter(ctx, KIND_TLS_SEND, ctx->bx, ctx->cx);
	return 0;
}

UPROBE(tls_go_read)
{
	go_enter(ctx, KIND_TLS_RECV, ctx->bx, ctx->cx);
	return 0;
}

INLINE struct tls_call *go_call(const struct pt_regs *ctx, struct thread *thread)
{
	struct tls_goroutine key = { .g = ctx->r14 };

	read_thread(thread);
	key.pid = thread->pid;
	return bpf_map_lookup_elem(&tls_calls_of_goroutines, &key);
}

UPROBE(tls_go_returned)
{
	struct thread thread;
	struct tls_call *call = go_call(ctx, &thread);

	if (call && call->kind != TLS_NO_CALL)
		tls_leave(&thread, call, ctx->ax);
	return 0;
}

/*
 * func (c *Conn) handshakeContext(context): what it reads may have the first plaintext in it, so that no later call reads
 * from TCP. Inside Read and Write, where it is called, too, the call is theirs.
 */
UPROBE(tls_go_handshake)
{
	struct thread thread;
	struct tls_call *call = go_call(ctx, &thread);
	u64 session = READ_ONCE(ctx->ax); /* or a compiler makes one load of this and the next */

	if (!call || call->kind == TLS_NO_CALL || call->session != session)
		go_enter(ctx, TLS_HANDSHAKE, 0, 0);
	return 0;
}

/* It returns an error, or nil. */
UPROBE(tls_go_handshaken)
{
	struct thread thread;
	struct tls_call *call = go_call(ctx, &thread);

	if (call && call->kind == TLS_HANDSHAKE)
		tls_leave(&thread, call, ctx->ax ? -1 : 0);
	return 0;
}

/* func (c *Conn) Close(): its address may become another's. */
UPROBE(tls_go_close)
{
	struct tls_session_key key = { .session = ctx->ax };
	struct thread thread;

	read_thread(&thread);
	key.pid = thread.pid;
	bpf_map_delete_elem(&tls_sessions, &key);
	return 0;
}
