/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Fills rings that look like tcprism's until they are full: messages of some payload classes, segments. */
#include "tcprism/helpers.h"

#define RING_BYTES (64 << 20)

static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

/* What user space passes in, and gets back. */
struct task {
	u32 records;   /* to attempt */
	u32 submitted;
};

#define FILLED_RING(name, record_type, head)                                                       \
	struct {                                                                                   \
		MAP_UINT(type, MAP_RINGBUF);                                                       \
		MAP_UINT(max_entries, RING_BYTES);                                                 \
	} name SEC(".maps");                                                                       \
	static long submit_##name(u32 index, struct task *task)                                    \
	{                                                                                          \
		record_type *record = bpf_ringbuf_reserve(&name, sizeof(*record), 0);              \
		if (!record)                                                                       \
			return 1;                                                                  \
		__builtin_memset(record, 0, sizeof(record->head));                                 \
		record->head.event.ts_ns = bpf_ktime_get_ns();                                     \
		record->head.event.kind = index & 1;                                               \
		record->head.event.bytes = index;                                                  \
		bpf_ringbuf_submit(record, RING_NO_WAKEUP);                                        \
		task->submitted++;                                                                 \
		return 0;                                                                          \
	}                                                                                          \
	SEC("syscall") int fill_##name(struct task *task)                                          \
	{                                                                                          \
		struct task local = { .records = task->records };                                  \
		bpf_loop(local.records, submit_##name, &local, 0);                                 \
		task->submitted = local.submitted;                                                 \
		return 0;                                                                          \
	}

#define MESSAGES(size)                                                                             \
	struct message_record_##size {                                                             \
		struct message head;                                                               \
		u8 payload[size];                                                                  \
	};                                                                                         \
	FILLED_RING(message_##size, struct message_record_##size, head)

struct segment_record {
	struct segment head;
};

MESSAGES(0)
MESSAGES(64)
MESSAGES(256)
MESSAGES(2048)
FILLED_RING(segment, struct segment_record, head)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
