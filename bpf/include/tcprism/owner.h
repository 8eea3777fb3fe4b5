/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What is remembered about a socket, above all its owner. Written in process context (connect, listen, send, recv,
 * close), read where segments leave, often in softirq while an unrelated process is current. It is in socket
 * storage if tracing programs may use that (5.11+) and no kprobe is in use; an accepted socket inherits its
 * listener's (BPF_F_CLONE). Otherwise it is in a table by socket address, from which sockets are removed as they
 * close. Another table has the owners of listeners, for accepted sockets that cannot inherit.
 */
#ifndef TCPRISM_OWNER_H
#define TCPRISM_OWNER_H

#include "filter.h"
#include "task_filter.h"

struct owner {
	u64 cgroup_id;
	u32 pid, tid;
	u32 uid;
	u16 passes; /* whether it passes the task filters */
	u16 source; /* owner_source of events that take their owner from here */
	struct comm comm;
};

struct note {
	struct owner owner;
	u64 began_ns;      /* SYN sent, then established; 0: not seen */
	u32 first_seq;     /* write_seq as the connection was established, before it sent anything */
	u32 undo_marker;   /* the kernel's, at the first retransmission that it may undo; 0: none */
	u32 undo_end;      /* end of what has been retransmitted since */
	u32 undo_segs;
	u8 established;    /* first_seq is known */
	u8 active;         /* this end connected */
	u8 reset;          /* ending: ENDING_RESET_SENT, ENDING_RESET_RECEIVED */
	u8 reserved;
	u16 data_segs_in;  /* the kernel's count as this end closed, modulo 2 ** 16 */
	u16 error;         /* that a router or firewall has told while this end connected */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct note);
} notes SEC(".maps");

/* Its size is --max-connections if it is used. Not LRU: sockets that find no room are counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct note);
} notes_by_address SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} unremembered SEC(".maps");

/* By socket address: listeners, and accepted sockets until they are established. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct owner);
} listeners SEC(".maps");

INLINE bool has_storage(enum reads reads)
{
	return reads == READS_BTF && config.local_storage;
}

/* A load; the helper costs 20 ns. */
INLINE bool may_have_storage(const struct sock *sk)
{
	const struct sock *readable;

	if (!config.can_cast)
		return true;
	readable = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct sock)); /* the socket of a packet has another type */
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

/* All zero where there is none. */
INLINE void read_owner(struct owner *to, struct sock *sk, enum reads reads)
{
	const struct owner unknown = {}, *owner = owner_of(sk, reads);

	*to = owner ? *owner : unknown;
}

/*
 * Of two programs that create the first storage of one socket at the same moment, one gets none
 * (bpf_local_storage_alloc() returns -EAGAIN): tracers that are started together meet at their iterators.
 */
INLINE void *storage_create(void *map, struct sock *sk, void *value)
{
	void *storage = bpf_sk_storage_get(map, sk, value, BPF_LOCAL_STORAGE_GET_F_CREATE);

	return storage ? storage : bpf_sk_storage_get(map, sk, value, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

INLINE struct note *note_insert(struct sock *sk, struct note *empty, enum reads reads)
{
	u64 key;

	if (has_storage(reads))
		return storage_create(&notes, sk, empty);
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

/* The socket is closed. Socket storage is freed with it. */
INLINE void note_forget(struct sock *sk)
{
	if (!config.local_storage)
		note_delete(sk, READS_BTF);
}

INLINE void read_task(struct owner *to, const struct task_struct *task)
{
	const u64 *comm;

	task = READABLE(struct task_struct, task);
	comm = (const void *)named_thread(task)->comm;
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
		to->uid = lower_32_bits(bpf_get_current_uid_gid());
		to->cgroup_id = bpf_get_current_cgroup_id();
		bpf_get_current_comm(&to->comm, sizeof(to->comm));
	}
}

/* The last process to use a socket owns it. */
INLINE struct note *owner_remember(struct sock *sk, const struct owner *current, enum reads reads)
{
	struct note *note = note_create(sk, reads);

	if (!note)
		return NULL;
	note->owner = *current;
	note->owner.source = OWNER_SOCKET;
	return note;
}

/* A process that the task filters reject takes over a socket that has a note; it gets no new one for that. */
INLINE struct note *owner_turn_away(struct sock *sk, const struct thread *thread, enum reads reads)
{
	struct note *note = note_of(sk, reads);

	if (!note && !FILTERS_BY_TASK()) /* tcprism itself */
		note = note_create(sk, reads);
	if (!note)
		return NULL;
	note->owner.pid = thread->pid; /* enough: such an owner is never shown */
	note->owner.tid = thread->tid;
	note->owner.passes = false;
	note->owner.source = OWNER_SOCKET;
	return note;
}

/*
 * The same at a message. A process that sends or receives will not hand the connection on, as one that accepts may.
 * If no process that passes ever had it, delete the note: the next message then finds out by a load that there is
 * none.
 */
INLINE void owner_turn_away_for_good(struct sock *sk, const struct thread *thread, enum reads reads)
{
	struct note *note = FILTERS_BY_TASK() ? note_of(sk, reads) : NULL;

	if (note && !note->owner.cgroup_id) /* set for every process that passes */
		note_delete(sk, reads);
	else
		owner_turn_away(sk, thread, reads);
}

/* Whether a process holds the socket's lock now. */
INLINE bool is_held(const struct sock *sk, enum reads reads)
{
	int owned = 0;

	READ(reads, owned, sk->sk_lock.owned);
	return owned;
}

/*
 * Kernel threads close what io_uring, MPTCP and Unix sockets leave behind, and send for kernel TLS. They own only
 * sockets that the kernel made for itself, such as those of network file systems.
 */
INLINE bool works_for_owner(const struct thread *thread, struct sock *sk, enum reads reads)
{
	struct tcp_sock *tp = is_kernel_thread(thread) ? tcp_sock_of(sk, reads) : NULL;

	return tp && (!READ_BITS(reads, (struct sock *)tp, sk_kern_sock) || is_below_mptcp(tp, reads));
}

/* The current process uses the socket. Returns the note, if any. */
INLINE struct note *owner_is_current(struct sock *sk, enum reads reads)
{
	struct owner current = {};
	struct thread thread;

	read_thread(&thread);
	if (works_for_owner(&thread, sk, reads))
		return note_of(sk, reads);
	if (!task_passes(thread.pid))
		return owner_turn_away(sk, &thread, reads);
	read_current(&current, &thread, true);
	return owner_remember(sk, &current, reads);
}

INLINE struct owner *listener_owner(struct sock *sk)
{
	u64 key = (u64)sk;

	return bpf_map_lookup_elem(&listeners, &key);
}

INLINE void listener_remember(struct sock *sk, const struct owner *owner)
{
	u64 key = (u64)sk;

	bpf_map_update_elem(&listeners, &key, owner, 0);
}

INLINE void listener_forget(struct sock *sk)
{
	u64 key = (u64)sk;

	bpf_map_delete_elem(&listeners, &key);
}

INLINE void listener_is_current(struct sock *sk)
{
	struct owner current = {};
	struct thread thread;

	read_thread(&thread);
	read_current(&current, &thread, task_passes(thread.pid));
	current.source = OWNER_SOCKET;
	listener_remember(sk, &current);
}

/*
 * A connection comes in: its socket is the listener's copy, byte by byte, as it enters SYN_RECV. The head of a list
 * that is empty at any listener still points to itself, there: tcp_create_openreq_child() sets it right only later.
 */
INLINE void listener_accepts(struct sock *copy)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(copy);
	const struct owner *owner;
	u64 listener;

	if (!tp)
		return;
	listener = untyped(tp->tsorted_sent_queue.next) - bpf_core_field_offset(tp->tsorted_sent_queue);
	owner = bpf_map_lookup_elem(&listeners, &listener);
	if (owner)
		listener_remember(copy, owner);
	else
		listener_forget(copy); /* what an earlier socket at this address has left */
}

/* Whether the socket's owner passes the task filters. For any context. */
INLINE bool owner_passes(const struct owner *owner)
{
	return owner ? owner->passes : !FILTERS_BY_TASK();
}

#endif
