/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Fills rings until they are full, tcprism's and the kernel's own, with the same records. */
#include "ringbuf.h"
#include "tcprism/ring.h"

static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

/* What user space passes in, and gets back. */
struct task {
	u32 records; /* to attempt */
	u32 submitted;
};

#define FILL(name)                                                                                 \
	SEC("syscall") int fill_##name(struct task *task)                                          \
	{                                                                                          \
		struct task local = { .records = task->records };                                  \
		bpf_loop(local.records, submit_##name, &local, 0);                                 \
		task->submitted = local.submitted;                                                 \
		return 0;                                                                          \
	}

INLINE void fill_event(struct event *event, u32 index)
{
	event->ts_ns = bpf_ktime_get_ns();
	event->kind = index & 1;
	event->bytes = index;
}

#define FILLED(name, record_type, head_type)                                                       \
	RINGBUF(ringbuf_##name, 64 << 20);                                                         \
	static long submit_ringbuf_##name(u32 index, struct task *task)                            \
	{                                                                                          \
		record_type *record = bpf_ringbuf_reserve(&ringbuf_##name, sizeof(*record), 0);    \
		if (!record)                                                                       \
			return 1;                                                                  \
		__builtin_memset(record, 0, sizeof(head_type));                                    \
		fill_event((void *)record, index);                                                 \
		bpf_ringbuf_submit(record, RINGBUF_NO_WAKEUP);                                     \
		task->submitted++;                                                                 \
		return 0;                                                                          \
	}                                                                                          \
	FILL(ringbuf_##name)                                                                       \
	static long submit_##name(u32 index, struct task *task)                                    \
	{                                                                                          \
		struct counters lost = {};                                                         \
		struct lane *lane;                                                                 \
		record_type *record = RESERVE(name, &lane, &lost);                                 \
		if (!record)                                                                       \
			return 1;                                                                  \
		__builtin_memset(record, 0, sizeof(head_type));                                    \
		fill_event((void *)record, index);                                                 \
		ring_submit(lane);                                                                 \
		task->submitted++;                                                                 \
		return 0;                                                                          \
	}                                                                                          \
	FILL(name)

FILLED(message_0, struct message, struct message)
FILLED(message_64, struct message_64, struct message)
FILLED(message_256, struct message_256, struct message)
FILLED(message_2048, struct message_2048, struct message)
FILLED(segment, struct segment, struct segment)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
