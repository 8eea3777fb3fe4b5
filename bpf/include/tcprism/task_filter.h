/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The filters by process: pid, name and cgroup. */
#ifndef TCPRISM_TASK_FILTER_H
#define TCPRISM_TASK_FILTER_H

#include "drift.h"
#include "maps.h"

INLINE bool in_cgroups(void)
{
	for (u32 i = 0; i < CGROUPS_MAX; i++) {
		if (i >= config.cgroups)
			break;
		if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
			return true;
	}
	return false;
}

#define CGROUP_DEPTH 32

/* Whether a cgroup is a chosen one, or below one. */
INLINE bool cgroup_chosen(const struct cgroup *cgroup)
{
	for (u32 depth = 0; depth < CGROUP_DEPTH && cgroup; depth++) {
		const struct cgroup_subsys_state *parent = cgroup->self.parent;
		u64 id = cgroup->kn->id;

		for (u32 i = 0; i < CGROUPS_MAX; i++) {
			if (i < config.cgroups && config.cgroup_ids[i] == id)
				return true;
		}
		cgroup = parent ? parent->cgroup : NULL;
	}
	return false;
}

#define FILTERS_BY_THREAD() (config.by_comm || config.cgroups) /* of a process, some may pass */
#define FILTERS_BY_TASK() (config.by_pid || FILTERS_BY_THREAD())

/* The byte that says whether a process is chosen. */
INLINE u8 *pid_chosen(u32 pid)
{
	u32 index = pid / PIDS_A_ROW;
	struct pid_row *row = bpf_map_lookup_elem(&pids, &index);

	return row ? &row->chosen[pid % PIDS_A_ROW] : NULL;
}

/* The kernel names io_uring workers itself. */
INLINE const struct task_struct *named_thread(const struct task_struct *task)
{
	return task->flags & PF_IO_WORKER ? task->group_leader : task;
}

/* task->comm has old bytes after its NUL. */
INLINE void read_current_comm(struct comm *to)
{
	const struct task_struct *task;

	if (HAS_TASK_BTF()) {
		task = bpf_get_current_task_btf();
		bpf_probe_read_kernel_str(to, sizeof(*to), named_thread(task)->comm);
	} else {
		bpf_get_current_comm(to, sizeof(*to));
	}
}

/* Process context only. */
INLINE bool task_passes(u32 pid)
{
	if (config.self_pid == pid)
		return false;
	if (config.by_pid) {
		const u8 *chosen = pid_chosen(pid);

		if (!chosen || !*chosen)
			return false;
	}
	if (config.by_comm) {
		struct comm comm = {};

		read_current_comm(&comm);
		if (!bpf_map_lookup_elem(&comms, &comm))
			return false;
	}
	return !config.cgroups || in_cgroups();
}

/* As task_passes(), for a task that is not the current one. */
INLINE bool other_task_passes(const struct task_struct *task)
{
	const struct task_struct *readable = READABLE(struct task_struct, task);
	const struct cgroup *cgroup = readable->cgroups->dfl_cgrp;
	struct comm comm = {};

	if (config.self_pid == (u32)task->tgid)
		return false;
	if (config.by_pid) {
		const u8 *chosen = pid_chosen(task->tgid);

		if (!chosen || !*chosen)
			return false;
	}
	if (config.by_comm) {
		bpf_probe_read_kernel_str(&comm, sizeof(comm), task->comm);
		if (!bpf_map_lookup_elem(&comms, &comm))
			return false;
	}
	return !config.cgroups || cgroup_chosen(cgroup);
}

#endif
