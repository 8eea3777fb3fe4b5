/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The call into TCP that the current thread is inside: what its entry knows and its end needs. */
#ifndef TCPRISM_CALL_H
#define TCPRISM_CALL_H

#include "buffer.h"
#include "emit.h"

/* What is known of the call that the current thread is inside. */
struct call {
	u64 start_ns; /* 0: unknown */
	u64 sk;       /* 0: nobody saw its entry */
	struct buffer buffer;
	u32 requested;
	u32 seq;
	u32 flags; /* the caller's MSG_ flags */
	u32 kind;
};

struct {
	MAP_UINT(type, MAP_TASK_STORAGE);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct call);
} calls SEC(".maps");

/* Where there is no task storage: by thread. A thread is inside one call at a time. */
struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, 16384);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct call);
} calls_by_thread SEC(".maps");

INLINE struct call *current_call(const struct thread *thread, bool create)
{
	struct call *call, empty = {};
	u64 key;

	if (config.local_storage)
		return bpf_task_storage_get(&calls, thread->task, NULL, create);
	key = thread->tid;
	call = bpf_map_lookup_elem(&calls_by_thread, &key);
	if (call || !create)
		return call;
	bpf_map_update_elem(&calls_by_thread, &key, &empty, 0);
	return bpf_map_lookup_elem(&calls_by_thread, &key);
}

INLINE u32 sequence_of(struct sock *sk, u32 kind, enum reads reads)
{
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	u32 seq = 0;

	if (!tp)
		return 0;
	if (kind == KIND_SEND)
		READ(reads, seq, tp->write_seq);
	else
		READ(reads, seq, tp->copied_seq);
	return seq;
}

INLINE void call_open(struct call *call, struct sock *sk, u32 kind, u32 flags, u64 requested, enum reads reads)
{
	call->sk = (u64)sk;
	call->kind = kind;
	call->flags = flags;
	call->requested = MIN(requested, REQUESTED_UNKNOWN);
	call->seq = sequence_of(sk, kind, reads);
}

#endif
