/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The owners of sockets that are accepted or older than the trace, and which processes are followed. */
#include "tcprism/emit.h"

SEC("tp_btf/sched_process_fork") int tracepoint_fork(u64 *ctx)
{
	const struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	u8 *from = pid_chosen(parent->tgid), *to = pid_chosen(child->tgid);

	if (from && to && *from)
		*to = 1;
	return 0;
}

/* The process is gone, and its pid may be used again. It has closed its sockets after sched_process_exit. */
SEC("tp_btf/sched_process_free") int tracepoint_free(u64 *ctx)
{
	const struct task_struct *task = (void *)ctx[0];
	u8 *chosen = pid_chosen(task->tgid);

	if (chosen && task->signal->live.counter == 0)
		*chosen = 0;
	return 0;
}

/*
 * The process that accepts a connection owns it. inet_csk_accept() has two parameters since 6.10 (92ef0fd55ac8),
 * four before.
 */
SEC("fexit/inet_csk_accept") int fexit_accept(u64 *ctx)
{
	struct sock *sk = config.accept_arguments == 4 ? (void *)SLOT(ctx, 4) : (void *)SLOT(ctx, 2);

	if (is_there(sk) && ports_may_pass(&sk->__sk_common, READS_BTF))
		owner_is_current(sk, READS_BTF);
	return 0;
}

SEC("kretprobe/inet_csk_accept") int kretprobe_accept(struct pt_regs *ctx)
{
	struct sock *sk = (void *)ctx->ax;

	if (is_there(sk) && ports_may_pass(&sk->__sk_common, READS_PROBED))
		owner_is_current(sk, READS_PROBED);
	return 0;
}

#define INIT 1 /* the first process: it holds listeners for the services that it starts */

/* Of several that hold a listener, the first has it, whether it passes or not: with filters as without. */
INLINE bool is_free(const struct owner *owner)
{
	return !owner || !owner->pid || (owner->pid == INIT && owner->source == OWNER_ITERATOR);
}

INLINE void label(struct sock *sk, const struct task_struct *task, enum reads reads)
{
	struct owner owner = { .source = OWNER_ITERATOR, .passes = other_task_passes(task) };
	struct note *note;
	u16 protocol = 0;
	u8 state = 0;

	READ(reads, protocol, sk->sk_protocol);
	READ(reads, state, sk->__sk_common.skc_state);
	if (protocol != IPPROTO_TCP || (!owner.passes && FILTERS_BY_TASK() && state != TCP_LISTEN))
		return;
	owner.pid = task->tgid;
	owner.tid = task->pid;
	if (owner.passes)
		read_task(&owner, task);
	if (state == TCP_LISTEN && is_free(listener_owner(sk)))
		listener_remember(sk, &owner);
	if (!ports_may_pass(&sk->__sk_common, reads))
		return;
	note = note_create(sk, reads);
	if (note && is_free(&note->owner))
		note->owner = owner;
}

/* Once, at the start: a process that has a socket open owns it, unless a hook has seen a user already. */
SEC("iter/task_file") int iterate_owners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk = NULL;

	if (!task || !file)
		return 0;
	if (HAS_SOCK_FROM_FILE()) {
		socket = bpf_sock_from_file(file);
		sk = socket ? socket->sk : NULL;
		if (sk)
			label(sk, task, READS_BTF);
	} else {
		sk = sock_of_file(file);
		if (sk)
			label(sk, task, READS_PROBED);
	}
	return 0;
}
