/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The call into TCP that the current thread is in: what its end needs from its entry. */
#ifndef TCPRISM_CALL_H
#define TCPRISM_CALL_H

#include "buffer.h"
#include "emit.h"

struct call {
	u64 start_ns; /* 0: unknown */
	u64 sk;       /* 0: its entry was not seen */
	struct buffer buffer;
	u32 requested;
	u32 seq;
	u32 flags; /* the caller's MSG_ flags */
	u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct call);
} calls SEC(".maps");

/* By thread, where the kernel has no task storage. A thread is in one call at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct call);
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

INLINE bool is_tcp(struct sock *sk, enum reads reads)
{
	u16 protocol = 0;

	READ(reads, protocol, sk->sk_protocol);
	return protocol == IPPROTO_TCP;
}

/* Of the next byte to write or to read. */
INLINE u32 next_sequence(struct tcp_sock *tp, u32 kind, enum reads reads)
{
	u32 seq = 0;

	if (kind == KIND_SEND)
		READ(reads, seq, tp->write_seq);
	else
		READ(reads, seq, tp->copied_seq);
	return seq;
}

/* 0: unknown. The numbers of MPTCP have 64 bits, and are in no header that segments show. */
INLINE u32 sequence_of(struct sock *sk, u32 kind, enum reads reads)
{
	struct tcp_sock *tp = is_tcp(sk, reads) ? tcp_sock_of(sk, reads) : NULL;

	return tp ? next_sequence(tp, kind, reads) : 0;
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
