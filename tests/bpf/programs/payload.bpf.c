/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Records messages whose bytes lie in the caller's memory, as the hooks do, without any socket. */
#include "tcprism/message.h"

static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

struct task {
	u64 base;
	u32 segments;
	u32 offset;
	u32 shape;
	u32 bytes; /* that the call moved */
	u32 times;
};

struct iovec_copy {
	struct iovec segment[SEGMENTS_MAX];
};

/* What stands for the kernel's own copy of an iovec. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct iovec_copy);
} kernel_memory SEC(".maps");

INLINE u64 copied_iovec(const struct task *task)
{
	u32 zero = 0, size = task->segments * sizeof(struct iovec);
	struct iovec_copy *copy = bpf_map_lookup_elem(&kernel_memory, &zero);

	if (!copy || size > sizeof(*copy))
		return 0;
	bpf_probe_read_user(copy, size, (void *)task->base);
	return untyped(copy);
}

INLINE void record(struct task *task, struct counters *counters)
{
	struct call call = { .requested = REQUESTED_UNKNOWN };
	struct caller caller = { .counters = counters };
	struct moved moved = { .bytes = task->bytes, .payload_limit = config.payload_limit };

	COUNT(counters->seen, 1);
	call.buffer.base = task->shape == BUFFER_IOVEC ? copied_iovec(task) : task->base;
	call.buffer.segments = task->segments;
	call.buffer.offset = task->offset;
	call.buffer.shape = task->shape;
	message_record(&caller, &moved, &call, KIND_SEND);
}

static long record_one(u32 index, struct task *task)
{
	struct counters *counters = counters_of(KIND_SEND);

	if (counters)
		record(task, counters);
	return 0;
}

SEC("syscall") int record_messages(struct task *task)
{
	struct task local = *task;

	bpf_loop(local.times, record_one, &local, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
