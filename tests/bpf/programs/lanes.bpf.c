/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Submits records that show whether they are whole, and accounts for them in the ledger. */
#include "tcprism/emit.h"

static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

#define WORDS (sizeof(struct segment) / sizeof(u64))

struct task {
	u32 writer;
	u32 records; /* to attempt */
	u32 pause;   /* rounds to stay in the lane with each */
};

static long nothing(u32 index, void *context)
{
	return 0;
}

/* Each word tells the record that it belongs to: none of another record can be among them. */
INLINE void fill(struct segment *record, const struct task *task, u32 index)
{
	u64 *word = (void *)record;

	for (u32 i = 0; i < WORDS; i++)
		WRITE_ONCE(word[i], (u64)task->writer << 40 | (u64)index << 8 | i);
	if (task->pause)
		bpf_loop(task->pause, nothing, NULL, 0);
}

static long submit(u32 index, struct task *task)
{
	struct counters *counters = counters_of(KIND_TRANSMIT);

	if (!counters)
		return 1;
	COUNT(counters->seen, 1);
	SUBMIT(segment, struct segment, counters, fill(record, task, index));
	return 0;
}

SEC("syscall") int write_records(struct task *task)
{
	struct task local = *task;

	bpf_loop(local.records, submit, &local, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
