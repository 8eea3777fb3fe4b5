/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * send and recv by tracepoints: sock_send_length and sock_recv_length (6.3+) fire as the call returns, and have its
 * result. The registers of the system call tell where the bytes are.
 */
#include "tcprism/message.h"
#include "tcprism/syscall.h"

/* Inside a system call the kernel may send on a socket of its own, such as that of a network file system. */
INLINE void find_buffer(struct call *call, const struct sock *sk, struct task_struct *task, int result, u32 flags,
			u32 kind)
{
	call_unseen(call, flags);
	if (READ_BITS(READS_BTF, sk, sk_kern_sock)) {
		buffer_none(&call->buffer, PAYLOAD_KERNEL);
		return;
	}
	buffer_from_syscall(call, task, result < 0);
	if (kind == KIND_SEND)
		return;
	call->flags = flags;
	if (flags & MSG_TRUNC)
		buffer_none(&call->buffer, PAYLOAD_DISCARDED);
}

/* A partial send ends a sendmmsg, as an error does. */
INLINE void end_partial_batch(const struct call *call, int result)
{
	if (call->requested != REQUESTED_UNKNOWN && (u32)result < call->requested)
		batch_end();
}

INLINE bool is_traced(struct sock *sk, u32 kind)
{
	return sk && (kind_wanted(kind) || config.owners_from_messages) && is_tcp_or_mptcp(sk, READS_BTF);
}

INLINE void record_recv(struct caller *caller, struct sock *sk, int result, u32 flags)
{
	struct call call;

	find_buffer(&call, sk, caller->thread.task, result, flags, KIND_RECV);
	message_returned(caller, &call, sk, KIND_RECV, result, READS_BTF);
}

SEC("tp_btf/sock_recv_length") int tracepoint_recv(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int result = ctx[1];
	u32 flags = ctx[2];
	struct caller caller;

	if (!is_traced(sk, KIND_RECV))
		return 0;
	if (!is_message(KIND_RECV, result, flags)) {
		batch_end();
		return 0;
	}
	if (message_admit(&caller, sk, KIND_RECV, READS_BTF))
		record_recv(&caller, sk, result, flags);
	return 0;
}

/* A send that returns EAGAIN, or is restarted, leaves behind what its entry noted. */
INLINE void send_abandoned(void)
{
	struct thread thread;
	struct call *call;

	read_thread(&thread);
	call = current_call(&thread, false);
	if (call)
		call->sk = 0;
	batch_end();
}

/*
 * What the entry of this call, on the socket in `call`, has noted, if anything: not if the hook saw it after a part was
 * sent. A global function, as buffer_from_other_syscall() is.
 */
__noinline int take_noted(struct call *call, int result)
{
	struct thread thread;
	struct call *noted;
	u64 sk;

	if (!call)
		return 0;
	sk = call->sk;
	call->sk = 0;
	read_thread(&thread);
	noted = current_call(&thread, false);
	if (!noted || noted->sk != sk)
		return 0;
	if (result < 0 || noted->requested >= (u32)result)
		*call = *noted;
	noted->sk = 0;
	return 0;
}

INLINE void record_send(struct caller *caller, struct sock *sk, int result)
{
	struct call call;
	bool by_vector;

	find_buffer(&call, sk, caller->thread.task, result, 0, KIND_SEND);
	by_vector = call.buffer.shape != BUFFER_FLAT;
	if (call.buffer.shape == BUFFER_NONE || uses_io_uring(caller->thread.task)) {
		call.sk = (u64)sk;
		take_noted(&call, result);
	}
	message_returned(caller, &call, sk, KIND_SEND, result, READS_BTF);
	if (by_vector)
		end_partial_batch(&call, result);
}

SEC("tp_btf/sock_send_length") int tracepoint_send(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int result = ctx[1];
	struct caller caller;

	if (!is_traced(sk, KIND_SEND))
		return 0;
	if (!is_message(KIND_SEND, result, 0)) {
		send_abandoned();
		return 0;
	}
	if (message_admit(&caller, sk, KIND_SEND, READS_BTF))
		record_send(&caller, sk, result);
	return 0;
}
