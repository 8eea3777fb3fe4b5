/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Who owns a socket before its first message, and which processes are followed. */
#include "tcprism/emit.h"

/* connect() enters SYN_SENT in the caller's context: its SYN and the SYN's retransmissions have an owner. */
SEC("tp_btf/inet_sock_set_state") int tracepoint_state(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	u64 thread = bpf_get_current_pid_tgid();
	struct owner current;
	int state = ctx[2];

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (state == TCP_CLOSE)
		owner_forget(sk);
	if (state != TCP_SYN_SENT)
		return 0;
	if (task_passes(HIGH32(thread))) {
		read_current(&current, thread, true);
		owner_remember(sk, &current, READS_BTF);
	} else {
		owner_turn_away(sk, thread, READS_BTF);
	}
	return 0;
}

SEC("tp_btf/sched_process_fork") int tracepoint_fork(u64 *ctx)
{
	const struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	u8 *from = pid_chosen(parent->tgid), *to = pid_chosen(child->tgid);

	if (from && to && *from)
		*to = 1;
	return 0;
}

/* The last thread has gone: the number may soon be somebody else's. */
SEC("tp_btf/sched_process_exit") int tracepoint_exit(u64 *ctx)
{
	const struct task_struct *task = (void *)ctx[0];
	u8 *chosen = pid_chosen(task->tgid);

	if (chosen && task->signal->live.counter == 0)
		*chosen = 0;
	return 0;
}
