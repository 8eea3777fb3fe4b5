/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What a process id of user space's pid namespace is in the initial one, whose ids filters and events have. */
#include "tcprism/drift.h"

struct pid_pair {
	u32 here, initial;
};

/* struct pid has a number for each namespace down to the process's own, at its level. */
INLINE u32 read_number(const struct pid *pid, u32 level)
{
	u64 at = untyped(pid) + bpf_core_field_offset(pid->numbers) + level * bpf_core_type_size(struct upid);
	u32 number = 0;

	READ(READS_PROBED, number, ((struct upid *)at)->nr);
	return number;
}

/* The kernel iterates the tasks of the reader's pid namespace. */
SEC("iter/task") int iterate_pids(struct bpf_iter__task *ctx)
{
	const struct task_struct *task = ctx->task, *reader = (void *)bpf_get_current_task();
	const struct pid *pid = NULL, *own = NULL;
	struct pid_pair pair = {};
	u32 level = 0;

	if (!task || task->pid != task->tgid)
		return 0;
	READ(READS_PROBED, own, reader->thread_pid);
	READ(READS_PROBED, level, own->level);
	READ(READS_PROBED, pid, task->thread_pid);
	pair.here = read_number(pid, level);
	pair.initial = task->tgid;
	bpf_seq_write(ctx->meta->seq, &pair, sizeof(pair));
	return 0;
}
