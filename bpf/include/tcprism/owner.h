/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What is remembered of a socket, above all whose it is. Written in process context (connect, listen, send,
 * recv, close), read where segments leave, which is often softirq on behalf of somebody else. Socket storage
 * where tracing programs may use it (5.11+) and no kprobe is in play; an accepted socket inherits its
 * listener's (MAP_CLONE). Else a table by socket address, emptied as sockets close. Listeners are in one of their
 * own, too, for accepted sockets that could not inherit.
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

struct note {
	struct owner owner;
	u64 began_ns;      /* SYN sent, then established; 0: not seen */
	u32 first_seq;     /* write_seq as the connection was established */
	u32 undo_marker;   /* the kernel's, as of the first retransmission that it may undo; 0: none */
	u32 undo_end;      /* end of what has been sent again since */
	u32 undo_segs;
	u8 established;    /* first_seq is known */
	u8 active;         /* this end connected */
	u8 reset;          /* ending: ENDING_RESET_SENT, ENDING_RESET_RECEIVED */
	u8 reserved[5];
};

struct {
	MAP_UINT(type, MAP_SK_STORAGE);
	MAP_UINT(map_flags, MAP_NO_PREALLOC | MAP_CLONE);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct note);
} notes SEC(".maps");

/* Its size is --max-connections where it is used. Not LRU: what finds no room is counted. */
struct {
	MAP_UINT(type, MAP_HASH);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct note);
} notes_by_address SEC(".maps");

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} unremembered SEC(".maps");

struct listener {
	u32 netns;
	u32 port;
};

struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, 4096);
	MAP_TYPE(key, struct listener);
	MAP_TYPE(value, struct owner);
} listeners SEC(".maps");

INLINE bool has_storage(enum reads reads)
{
	return reads == READS_BTF && config.local_storage;
}

/* A load, where the helper costs 20 ns. */
INLINE bool may_have_storage(const struct sock *sk)
{
	const struct sock *readable;

	if (!config.can_cast)
		return true;
	readable = bpf_rdonly_cast(sk, kernel_type(struct sock)); /* a packet's is of another type */
	return readable->sk_bpf_storage;
}

INLINE struct note *note_of(struct sock *sk, enum reads reads)
{
	u64 key;

	if (has_storage(reads))
		return may_have_storage(sk) ? bpf_sk_storage_get(&notes, sk, NULL, 0) : NULL;
	key = (u64)sk;
	return bpf_map_lookup_elem(&notes_by_address, &key);
}

INLINE struct owner *owner_of(struct sock *sk, enum reads reads)
{
	struct note *note = note_of(sk, reads);

	return note ? &note->owner : NULL;
}

INLINE struct note *note_insert(struct sock *sk, struct note *empty, enum reads reads)
{
	u64 key;

	if (has_storage(reads))
		return bpf_sk_storage_get(&notes, sk, empty, STORAGE_CREATE);
	key = (u64)sk;
	bpf_map_update_elem(&notes_by_address, &key, empty, 0);
	return bpf_map_lookup_elem(&notes_by_address, &key);
}

INLINE struct note *note_create(struct sock *sk, enum reads reads)
{
	struct note *note = note_of(sk, reads), empty = {};
	u32 zero = 0;
	u64 *failed;

	if (note)
		return note;
	empty.owner.passes = !FILTERS_BY_TASK();
	note = note_insert(sk, &empty, reads);
	failed = note ? NULL : bpf_map_lookup_elem(&unremembered, &zero);
	if (failed)
		COUNT(*failed, 1);
	return note;
}

INLINE void note_delete(struct sock *sk, enum reads reads)
{
	u64 key = (u64)sk;

	if (has_storage(reads))
		bpf_sk_storage_delete(&notes, sk);
	else
		bpf_map_delete_elem(&notes_by_address, &key);
}

/* A socket is closed; storage goes with it. */
INLINE void note_forget(struct sock *sk)
{
	if (!config.local_storage)
		note_delete(sk, READS_BTF);
}

INLINE void read_task(struct owner *to, const struct task_struct *task)
{
	const u64 *comm = (const void *)task->comm;

	to->uid = task->cred->uid.val;
	to->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	to->comm.word[0] = comm[0];
	to->comm.word[1] = comm[1];
}

INLINE void read_current(struct owner *to, const struct thread *thread, u32 passes)
{
	to->pid = thread->pid;
	to->tid = thread->tid;
	to->passes = passes;
	to->source = OWNER_TASK;
	if (HAS_TASK_BTF()) { /* loads of a nanosecond or two; the helpers cost 56 to 85 ns each */
		read_task(to, thread->task);
	} else {
		to->uid = LOW32(bpf_get_current_uid_gid());
		to->cgroup_id = bpf_get_current_cgroup_id();
		bpf_get_current_comm(&to->comm, sizeof(to->comm));
	}
}

/* The last user of a socket owns it. */
INLINE struct note *owner_remember(struct sock *sk, const struct owner *current, enum reads reads)
{
	struct note *note = note_create(sk, reads);

	if (!note)
		return NULL;
	note->owner = *current;
	note->owner.source = OWNER_SOCKET;
	return note;
}

/* A user whom the task filters turn away takes a socket over, but none is remembered for its sake. */
INLINE struct note *owner_turn_away(struct sock *sk, const struct thread *thread, enum reads reads)
{
	struct note *note = note_of(sk, reads);

	if (!note && !FILTERS_BY_TASK()) /* tcprism itself */
		note = note_create(sk, reads);
	if (!note)
		return NULL;
	note->owner.pid = thread->pid; /* known, and never shown: no more is needed */
	note->owner.tid = thread->tid;
	note->owner.passes = false;
	note->owner.source = OWNER_SOCKET;
	return note;
}

/*
 * The same at a message. Who sends or receives is no acceptor who hands the connection on: if nobody who passes has
 * had it, the note goes, and the next message finds none at the cost of a load.
 */
INLINE void owner_turn_away_for_good(struct sock *sk, const struct thread *thread, enum reads reads)
{
	struct note *note = FILTERS_BY_TASK() ? note_of(sk, reads) : NULL;

	if (note && !note->owner.cgroup_id) /* known of all who pass */
		note_delete(sk, reads);
	else
		owner_turn_away(sk, thread, reads);
}

/* A process is at work on the socket, at this moment. */
INLINE bool is_held(const struct sock *sk, enum reads reads)
{
	int owned = 0;

	READ(reads, owned, sk->sk_lock.owned);
	return owned;
}

/* In the context of the process that uses the socket now; returns the note. */
INLINE struct note *owner_is_current(struct sock *sk, enum reads reads)
{
	struct owner current = {};
	struct thread thread;

	read_thread(&thread);
	if (!task_passes(thread.pid))
		return owner_turn_away(sk, &thread, reads);
	read_current(&current, &thread, true);
	return owner_remember(sk, &current, reads);
}

INLINE struct listener listener_key(struct sock *sk, enum reads reads)
{
	struct listener key = {};
	u16 port = 0;

	READ(reads, port, sk->__sk_common.skc_num);
	key.netns = read_netns(&sk->__sk_common, reads);
	key.port = port;
	return key;
}

/* Whether an accepted socket has its listener's note, if that one has any: the table knows no address. */
INLINE bool inherits_note(void)
{
	return config.local_storage && !FILTERS_BY_PORT();
}

INLINE struct owner *listener_owner(struct sock *sk, enum reads reads)
{
	struct listener key = listener_key(sk, reads);

	return bpf_map_lookup_elem(&listeners, &key);
}

INLINE void listener_remember(struct sock *sk, const struct owner *owner, enum reads reads)
{
	struct listener key = listener_key(sk, reads);

	bpf_map_update_elem(&listeners, &key, owner, 0);
}

INLINE void listener_is_current(struct sock *sk)
{
	struct owner current = {};
	struct thread thread;

	read_thread(&thread);
	read_current(&current, &thread, task_passes(thread.pid));
	current.source = OWNER_SOCKET;
	listener_remember(sk, &current, READS_BTF);
}

/* In any context: does the socket's owner, as far as known, pass the task filters? */
INLINE bool owner_passes(const struct owner *owner)
{
	return owner ? owner->passes : !FILTERS_BY_TASK();
}

#endif
