/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* send and recv by fentry and fexit. */
#include "tcprism/call_hooks.h"

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

/* tcp_recvmsg lost `nonblock` in 5.19 (ec095263a965) and `addr_len` in 7.x, which moved the result each time. */
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
