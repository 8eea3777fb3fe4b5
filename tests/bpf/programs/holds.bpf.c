/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Looks at each TCP socket for a while. The kernel holds it meanwhile, for whoever reads the iterator. */
#include "tcprism/helpers.h"

#define LOOK_NS 300000

struct bpf_iter__tcp {
	struct sock_common *sk_common;
} CORE;

static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

static long look(u32 turn, const u64 *began)
{
	return bpf_ktime_get_ns() - *began > LOOK_NS;
}

SEC("iter/tcp") int hold_sockets(struct bpf_iter__tcp *ctx)
{
	u64 began = bpf_ktime_get_ns();

	if (ctx->sk_common)
		bpf_loop(1 << 20, look, &began, 0);
	return 0;
}
