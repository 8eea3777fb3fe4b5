/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What a send's end no longer tells by tracepoints: the buffers of io_uring, and bytes that lie in no user memory.
 * tcp_sendmsg_locked (6.16+) has the iterator.
 */
#include "tcprism/message.h"
#include "tcprism/syscall.h"

/* Whether anybody has created an io_uring: before that no hook is needed at the beginning of a send. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
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

/* Once, at the start: facts that each message would have to find out otherwise. */
SEC("iter/task") int iterate_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	if (bpf_core_field_exists(task->io_uring) && task->io_uring)
		see_io_uring();
	if (!registers_offset)
		registers_offset = untyped(bpf_task_pt_regs(task)) - (u64)task->stack;
	return 0;
}

INLINE bool is_user_memory(const struct iov_iter *iter)
{
	u32 type = iter_type_of(iter, READS_BTF);

	return iter_is_flat(type) || type == bpf_core_enum_value(enum iter_type, ITER_IOVEC);
}

SEC("tp_btf/tcp_sendmsg_locked") int tracepoint_send_buffer(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct msghdr *msg = (void *)ctx[1];
	struct tcp_sock *tp = tcp_sock_of(sk, READS_BTF);
	struct thread thread;
	struct call *call;

	if (is_user_memory(&msg->msg_iter) && !uses_io_uring(bpf_get_current_task_btf()))
		return 0;
	if (!tp || has_upper_layer(tp, READS_BTF) || !call_wanted(sk, KIND_SEND, &thread, READS_BTF))
		return 0;
	call = current_call(&thread, true);
	if (!call || call->sk == (u64)sk) /* the same call, at a later turn of its loop */
		return 0;
	call_open(call, sk, KIND_SEND, msg->msg_flags, msg->msg_iter.count, READS_BTF);
	call->start_ns = 0; /* the call began earlier */
	buffer_from_iter(&call->buffer, &msg->msg_iter, READS_BTF);
	return 0;
}
