/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * send and recv by tracepoints. sock_send_length and sock_recv_length (6.3+) fire as the call returns, with its
 * result alone; where the bytes are is in the registers of the system call. tcp_sendmsg_locked (6.16+) has the
 * iterator, for io_uring.
 */
#include "tcprism/message.h"
#include "tcprism/syscall.h"

/* Whether anybody has made an io_uring: until then nobody needs to watch how sends begin. */
struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(map_flags, MAP_MMAPABLE);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} io_uring_seen SEC(".maps");

INLINE void see_io_uring(void)
{
	u32 zero = 0;
	u64 *seen = bpf_map_lookup_elem(&io_uring_seen, &zero);

	if (seen)
		*seen = true;
}

SEC("tp_btf/io_uring_create") int tracepoint_io_uring(u64 *ctx)
{
	see_io_uring();
	return 0;
}

/* Once, at the start: what would have to be asked at each message. */
SEC("iter/task") int iterate_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	if (field_exists(task->io_uring) && task->io_uring)
		see_io_uring();
	if (!registers_offset)
		registers_offset = untyped(bpf_task_pt_regs(task)) - (u64)task->stack;
	return 0;
}

/* The registers of such a task may be those of another request. */
INLINE bool uses_io_uring(const struct task_struct *task)
{
	return field_exists(task->io_uring) && (task->io_uring || task->flags & PF_IO_WORKER);
}

INLINE bool is_user_memory(const struct iov_iter *iter)
{
	u32 type = iter_type_of(iter, READS_BTF);

	return iter_is_flat(type) || type == enum_value(enum iter_type, ITER_IOVEC);
}

/* What the registers of a system call do not tell at its end: io_uring's buffers, and what is in no user memory. */
SEC("tp_btf/tcp_sendmsg_locked") int tracepoint_send_buffer(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct msghdr *msg = (void *)ctx[1];
	struct thread thread;
	struct call *call;

	if (is_user_memory(&msg->msg_iter) && !uses_io_uring(bpf_get_current_task_btf()))
		return 0;
	if (has_upper_layer(sk, READS_BTF) || !call_wanted(sk, KIND_SEND, &thread, READS_BTF))
		return 0;
	call = current_call(&thread, true);
	if (!call || call->sk == (u64)sk) /* the loop inside one call comes round again */
		return 0;
	call_open(call, sk, KIND_SEND, msg->msg_flags, msg->msg_iter.count, READS_BTF);
	call->start_ns = 0; /* the call began earlier */
	buffer_from_iter(&call->buffer, &msg->msg_iter, READS_BTF);
	return 0;
}

/* A system call may have the kernel send on a socket of its own, such as that of a network file system. */
INLINE void find_buffer(struct call *call, const struct sock *sk, struct task_struct *task, int result, u32 flags,
			u32 kind)
{
	call_unseen(call, flags);
	if (READ_BITS(READS_BTF, sk, sk_kern_sock)) {
		buffer_none(&call->buffer, PAYLOAD_KERNEL);
		return;
	}
	buffer_from_syscall(&call->buffer, task, &call->requested, kind == KIND_SEND ? &call->flags : NULL, result < 0);
	if (kind == KIND_RECV && flags & MSG_TRUNC)
		buffer_none(&call->buffer, PAYLOAD_DISCARDED);
}

/* A send that took only a part ends a sendmmsg, as an error does. */
INLINE void end_partial_batch(int result)
{
	u32 direction = KIND_SEND;
	struct gathering *state = bpf_map_lookup_elem(&gathering, &direction);

	if (state && (u32)result < state->requested)
		batch_end();
}

INLINE bool is_traced(struct sock *sk, u32 kind)
{
	return sk && (kind_wanted(kind) || config.owners_from_messages) && is_tcp(sk, READS_BTF);
}

SEC("tp_btf/sock_recv_length") int tracepoint_recv(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int result = ctx[1];
	u32 flags = ctx[2];
	struct caller caller;
	struct call call;

	if (!is_traced(sk, KIND_RECV))
		return 0;
	if (!is_message(KIND_RECV, result, flags)) {
		batch_end();
		return 0;
	}
	if (!message_admit(&caller, sk, KIND_RECV, READS_BTF))
		return 0;
	find_buffer(&call, sk, caller.thread.task, result, flags, KIND_RECV);
	message_record(&caller, &call, sk, KIND_RECV, result, READS_BTF);
	return 0;
}

/* A send that blocks no more, or is made again, has left what its entry knew. */
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

/* What the entry of this call has noted, if it had to. */
INLINE struct call *noted_call(const struct thread *thread, struct sock *sk, const struct call *at_end)
{
	struct call *call;

	if (at_end->buffer.shape != BUFFER_NONE && !uses_io_uring(thread->task))
		return NULL;
	call = current_call(thread, false);
	return call && call->sk == (u64)sk ? call : NULL;
}

SEC("tp_btf/sock_send_length") int tracepoint_send(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct call call, *noted;
	int result = ctx[1];
	struct caller caller;
	bool by_vector;

	if (!is_traced(sk, KIND_SEND))
		return 0;
	if (!is_message(KIND_SEND, result, 0)) {
		send_abandoned();
		return 0;
	}
	if (!message_admit(&caller, sk, KIND_SEND, READS_BTF))
		return 0;
	find_buffer(&call, sk, caller.thread.task, result, 0, KIND_SEND);
	by_vector = call.buffer.shape != BUFFER_FLAT;
	noted = noted_call(&caller.thread, sk, &call);
	if (noted && (result < 0 || noted->requested >= (u32)result)) /* else the hook came with a part sent already */
		call = *noted; /* to go on with either pointer would take the verifier twice as long */
	if (noted)
		noted->sk = 0;
	message_record(&caller, &call, sk, KIND_SEND, result, READS_BTF);
	if (by_vector)
		end_partial_batch(result);
	return 0;
}
