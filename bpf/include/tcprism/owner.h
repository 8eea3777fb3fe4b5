/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Whose socket it is. Written in process context (connect, send, recv), read where segments leave,
 * which is often softirq on behalf of somebody else. Socket storage where tracing programs may use
 * it (5.11+) and no kprobe is in play; else a table by socket address, emptied as sockets close.
 */
#ifndef TCPRISM_OWNER_H
#define TCPRISM_OWNER_H

#include "filter.h"

struct owner {
	u64 cgroup_id;
	u32 pid, tid;
	u32 uid;
	u16 passes; /* the task filters' verdict */
	u16 source; /* owner_source, for whoever reads this */
	struct comm comm;
};

struct {
	MAP_UINT(type, MAP_SK_STORAGE);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct owner);
} owners SEC(".maps");

struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, 65536);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct owner);
} owners_by_address SEC(".maps");

INLINE struct owner *owner_of(struct sock *sk, enum reads reads)
{
	u64 key;

	if (reads == READS_BTF && config.local_storage) /* the helper costs more than to see that there is nothing */
		return sk->sk_bpf_storage ? bpf_sk_storage_get(&owners, sk, NULL, 0) : NULL;
	key = (u64)sk;
	return bpf_map_lookup_elem(&owners_by_address, &key);
}

INLINE struct owner *owner_create(struct sock *sk, enum reads reads)
{
	struct owner *owner, empty = {};
	u64 key;

	if (reads == READS_BTF && config.local_storage)
		return bpf_sk_storage_get(&owners, sk, NULL, STORAGE_CREATE);
	key = (u64)sk;
	owner = bpf_map_lookup_elem(&owners_by_address, &key);
	if (owner)
		return owner;
	bpf_map_update_elem(&owners_by_address, &key, &empty, 0);
	return bpf_map_lookup_elem(&owners_by_address, &key);
}

INLINE void owner_forget(struct sock *sk)
{
	u64 key;

	if (config.local_storage)
		return;
	key = (u64)sk;
	bpf_map_delete_elem(&owners_by_address, &key);
}

INLINE void read_current(struct owner *to, u64 thread, u32 passes)
{
	to->pid = HIGH32(thread);
	to->tid = LOW32(thread);
	to->passes = passes;
	to->source = OWNER_TASK;
	if (HAS_TASK_BTF()) { /* loads of a nanosecond or two; the helpers cost 56 to 85 ns each */
		struct task_struct *task = bpf_get_current_task_btf();
		const u64 *comm = (const void *)task->comm;

		to->uid = task->cred->uid.val;
		to->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
		to->comm.word[0] = comm[0];
		to->comm.word[1] = comm[1];
	} else {
		to->uid = LOW32(bpf_get_current_uid_gid());
		to->cgroup_id = bpf_get_current_cgroup_id();
		bpf_get_current_comm(&to->comm, sizeof(to->comm));
	}
}

/* The last user of a socket owns it. */
INLINE void owner_remember(struct sock *sk, const struct owner *current, enum reads reads)
{
	struct owner *owner = owner_create(sk, reads);

	if (!owner)
		return;
	*owner = *current;
	owner->source = OWNER_SOCKET;
}

/* A user whom the task filters turn away takes a socket over, but none is remembered for its sake. */
INLINE void owner_turn_away(struct sock *sk, u64 thread, enum reads reads)
{
	struct owner *owner = owner_of(sk, reads);

	if (!owner && !FILTERS_BY_TASK()) /* tcprism itself */
		owner = owner_create(sk, reads);
	if (!owner)
		return;
	read_current(owner, thread, false);
	owner->source = OWNER_SOCKET;
}

/* In any context: does the socket's owner, as far as known, pass the task filters? */
INLINE bool owner_passes(const struct owner *owner)
{
	return owner ? owner->passes : !FILTERS_BY_TASK();
}

#endif
