/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A process calls into TCP: send and recv, by fentry and fexit, or by kprobe and kretprobe. The
 * entry has the buffer and the time, the exit the result.
 */
#include "tcprism/message.h"

/* fentry and kprobe: the entry has the iterator before it moves, and the time. */
INLINE void call_enter(struct sock *sk, const struct msghdr *msg, u64 size, u32 flags, u32 kind, enum reads reads)
{
	struct thread thread;
	bool wanted = call_wanted(sk, kind, &thread, reads);
	struct call *call;

	/* A kretprobe learns here alone which socket it is: it counts what is filtered, too. */
	if (!wanted && (reads == READS_BTF || (!kind_wanted(kind) && !config.owners_from_messages)))
		return;
	if (!wanted)
		read_thread(&thread);
	call = current_call(&thread, true);
	if (!call)
		return;
	call_open(call, sk, kind, flags, size, reads);
	call->start_ns = 0;
	buffer_none(&call->buffer, PAYLOAD_SYSCALL);
	if (!wanted)
		return;
	if (!msg)
		buffer_none(&call->buffer, PAYLOAD_SPLICED);
	else if (kind == KIND_RECV && flags & MSG_TRUNC)
		buffer_none(&call->buffer, PAYLOAD_DISCARDED);
	else
		buffer_from_iter(&call->buffer, &msg->msg_iter, reads);
	call->start_ns = bpf_ktime_get_ns();
}

INLINE void call_leave(struct sock *sk, int result, u32 kind, u32 flags, enum reads reads)
{
	struct caller caller;
	struct call *call;

	if (!is_message(kind, result, flags) || !message_admit(&caller, sk, kind, reads))
		return;
	call = current_call(&caller.thread, true);
	if (!call) {
		COUNT(caller.counters->map_full, 1);
		return;
	}
	if (call->kind != kind || call->sk != (u64)sk)
		call_unseen(call, flags);
	message_record(&caller, call, sk, kind, result, reads);
	call->sk = 0;
}

INLINE u32 send_flags(const struct msghdr *msg, enum reads reads)
{
	u32 flags = 0;

	READ(reads, flags, msg->msg_flags);
	return flags;
}

SEC("fentry/tcp_sendmsg") int fentry_send(u64 *ctx)
{
	struct msghdr *msg = (void *)ctx[1];

	call_enter((void *)ctx[0], msg, ctx[2], send_flags(msg, READS_BTF), KIND_SEND, READS_BTF);
	return 0;
}

SEC("fexit/tcp_sendmsg") int fexit_send(u64 *ctx)
{
	call_leave((void *)ctx[0], ctx[3], KIND_SEND, 0, READS_BTF);
	return 0;
}

/* sendfile before 6.5 (dc97391e6610 removed it): one page a call, no user buffer. */
SEC("fentry/tcp_sendpage") int fentry_sendpage(u64 *ctx)
{
	call_enter((void *)ctx[0], NULL, ctx[3], 0, KIND_SEND, READS_BTF);
	return 0;
}

SEC("fexit/tcp_sendpage") int fexit_sendpage(u64 *ctx)
{
	call_leave((void *)ctx[0], ctx[5], KIND_SEND, 0, READS_BTF);
	return 0;
}

/* tcp_recvmsg lost `nonblock` in 5.19 (ec095263a965) and `addr_len` in 7.x: the result moved each time. */
SEC("fentry/tcp_recvmsg") int fentry_recv(u64 *ctx)
{
	u32 flags = config.recvmsg_arguments == 6 ? SLOT(ctx, 4) : SLOT(ctx, 3);

	call_enter((void *)ctx[0], (void *)ctx[1], ctx[2], flags, KIND_RECV, READS_BTF);
	return 0;
}

SEC("fexit/tcp_recvmsg") int fexit_recv(u64 *ctx)
{
	u32 flags = config.recvmsg_arguments == 6 ? SLOT(ctx, 4) : SLOT(ctx, 3);
	int result;

	if (config.recvmsg_arguments == 6)
		result = SLOT(ctx, 6);
	else if (config.recvmsg_arguments == 5)
		result = SLOT(ctx, 5);
	else
		result = SLOT(ctx, 4);
	call_leave((void *)ctx[0], result, KIND_RECV, flags, READS_BTF);
	return 0;
}

/* A kretprobe has no arguments: the socket comes from the entry. */
INLINE void kretprobe_leave(const struct pt_regs *ctx, u32 kind)
{
	struct thread thread;
	struct call *call;

	read_thread(&thread);
	call = current_call(&thread, false);
	if (call && call->sk)
		call_leave((void *)call->sk, ctx->ax, kind, call->flags, READS_PROBED);
}

SEC("kprobe/tcp_sendmsg") int kprobe_send(struct pt_regs *ctx)
{
	struct msghdr *msg = (void *)ctx->si;

	call_enter((void *)ctx->di, msg, ctx->dx, send_flags(msg, READS_PROBED), KIND_SEND, READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_sendmsg") int kretprobe_send(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_SEND);
	return 0;
}

SEC("kprobe/tcp_sendpage") int kprobe_sendpage(struct pt_regs *ctx)
{
	call_enter((void *)ctx->di, NULL, ctx->cx, 0, KIND_SEND, READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_sendpage") int kretprobe_sendpage(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_SEND);
	return 0;
}

SEC("kprobe/tcp_recvmsg") int kprobe_recv(struct pt_regs *ctx)
{
	u64 fourth = ctx->cx, fifth = ctx->r8;

	asm volatile("" : "+r"(fourth), "+r"(fifth)); /* two loads at constant offsets, then a choice */
	call_enter((void *)ctx->di, (void *)ctx->si, ctx->dx, config.recvmsg_arguments == 6 ? fifth : fourth, KIND_RECV,
		   READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_recvmsg") int kretprobe_recv(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_RECV);
	return 0;
}
