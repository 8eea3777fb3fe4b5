/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A call into TCP from entry to exit, by fentry and fexit or by kprobe and kretprobe. */
#ifndef TCPRISM_CALL_HOOKS_H
#define TCPRISM_CALL_HOOKS_H

#include "message.h"

/* fentry and kprobe: the entry has the time, and the iterator before it advances. */
INLINE void call_enter(struct sock *sk, const struct msghdr *msg, u64 size, u32 flags, u32 kind, enum reads reads)
{
	struct thread thread;
	bool wanted = call_wanted(sk, kind, &thread, reads);
	struct call *call;

	/* A kretprobe learns only from here which socket it is about, which it needs to count what is filtered. */
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
	if (call->kind != kind || call->sk != (u64)sk || (call->start_ns && call->start_ns < on_since()))
		call_unseen(call, flags);
	message_returned(&caller, call, sk, kind, result, reads);
	call->sk = 0;
}

INLINE u32 send_flags(const struct msghdr *msg, enum reads reads)
{
	u32 flags = 0;

	READ(reads, flags, msg->msg_flags);
	return flags;
}

#endif
