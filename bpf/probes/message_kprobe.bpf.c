/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* send and recv by kprobe and kretprobe, where a kernel has no trampolines for fentry. */
#include "tcprism/call_hooks.h"

/* A kretprobe has no arguments: the entry has noted the socket. */
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

	barrier_var(fourth); /* two loads at constant offsets, then a choice */
	barrier_var(fifth);
	call_enter((void *)ctx->di, (void *)ctx->si, ctx->dx, config.recvmsg_arguments == 6 ? fifth : fourth, KIND_RECV,
		   READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_recvmsg") int kretprobe_recv(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_RECV);
	return 0;
}
