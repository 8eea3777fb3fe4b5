/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Submitting records, and counting each event in the ledger. */
#ifndef TCPRISM_EMIT_H
#define TCPRISM_EMIT_H

#include "effort.h"
#include "owner.h"

INLINE struct counters *counters_of(u32 kind)
{
	return bpf_map_lookup_elem(&ledger, &kind);
}

INLINE bool kind_wanted(u32 kind)
{
	return config.kinds >> kind & 1;
}

INLINE void event_owner(struct event *event, const struct owner *owner)
{
	struct comm *comm = (void *)event->comm;

	event->pid = owner->pid;
	event->tid = owner->tid;
	event->owner_source = owner->source;
	event->uid = owner->uid;
	event->cgroup_id = owner->cgroup_id;
	*comm = owner->comm;
}

/* Sets all but socket, flags, bytes, seq and error; nothing is sampled. The room still holds an older record: every field must be set. */
INLINE void event_at(struct event *event, u64 ts_ns, u32 kind, const struct connection *c, const struct owner *owner)
{
	const struct owner unknown = {};

	event->ts_ns = ts_ns;
	event->kind = kind;
	event->family = c->family;
	event->sampling = 0;
	event->netns = c->netns;
	event->scope_id = c->scope_id;
	event->local_port = c->local_port;
	event->remote_port = c->remote_port;
	*(struct address *)event->local_ip = c->local;
	*(struct address *)event->remote_ip = c->remote;
	if (owner)
		event_owner(event, owner);
	else
		event_owner(event, &unknown);
}

INLINE void event_begin(struct event *event, u32 kind, const struct connection *c, const struct owner *owner)
{
	event_at(event, bpf_ktime_get_ns(), kind, c, owner);
}

/* The cookie is made when first asked for. If no helper may ask (kprobes, tracing before 5.12), it can be 0: null. */
INLINE u64 cookie_of(struct sock *sk, enum reads reads)
{
	u64 cookie = 0;

	READ(reads, cookie, sk->__sk_common.skc_cookie.counter);
	if (!cookie && reads == READS_BTF && config.local_storage)
		cookie = bpf_get_socket_cookie(sk);
	return cookie;
}

/*
 * `fill` sets all fields of `record` in place. No wake-up: it would cost more than the record, so user space reads
 * on a timer.
 */
#define SUBMIT(ring, record_type, counters, fill)                                                  \
	do {                                                                                       \
		struct lane *lane;                                                                 \
		record_type *record = RESERVE(ring, &lane, counters);                              \
		if (!record)                                                                       \
			break;                                                                     \
		fill;                                                                              \
		ring_submit(lane);                                                                 \
		COUNT((counters)->submitted, 1);                                                   \
	} while (0)

#endif
