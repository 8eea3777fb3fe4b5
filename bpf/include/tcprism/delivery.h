/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * How long the last byte of a message waited: a sent one until it left and until it was acknowledged, a received
 * one from its arrival until it was read. Each socket has a short queue for either; what does not fit is counted
 * or unknown.
 */
#ifndef TCPRISM_DELIVERY_H
#define TCPRISM_DELIVERY_H

#include "emit.h"

#define QUEUED 16 /* of each kind and socket; a power of two */
#define AT(position) ((position) & (QUEUED - 1))

struct outstanding {
	u64 send_ts_ns;
	u64 left_ts_ns; /* 0: still in the send queue */
	u32 seq, end_seq;
};

#define ARRIVAL_NS_UNKNOWN 0xffffffffffffffffULL /* several segments share the entry */

struct arrival {
	u64 ts_ns;
	u32 end_seq;
	u32 reserved;
};

struct deliveries {
	u32 acked, left, sent;   /* positions: acked <= left <= sent <= acked + QUEUED */
	u32 read, arrived;
	u32 reserved;
	u64 latest_ns;           /* for delivery_unread() alone: in registers it costs the verifier dear */
	struct outstanding outstanding[QUEUED];
	struct arrival arrivals[QUEUED];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct deliveries);
} deliveries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct deliveries);
} deliveries_by_address SEC(".maps");

/* A new entry for the table: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct deliveries);
} no_deliveries SEC(".maps");

INLINE struct deliveries *deliveries_of(struct sock *sk, enum reads reads)
{
	u64 key;

	if (has_storage(reads))
		return bpf_sk_storage_get(&deliveries, sk, NULL, 0);
	key = (u64)sk;
	return bpf_map_lookup_elem(&deliveries_by_address, &key);
}

INLINE struct deliveries *deliveries_create(struct sock *sk, enum reads reads)
{
	struct deliveries *d, *none;
	u32 zero = 0;
	u64 key;

	if (has_storage(reads))
		return storage_create(&deliveries, sk, NULL);
	d = deliveries_of(sk, reads);
	none = bpf_map_lookup_elem(&no_deliveries, &zero);
	if (d || !none)
		return d;
	key = (u64)sk;
	bpf_map_update_elem(&deliveries_by_address, &key, none, 0);
	return bpf_map_lookup_elem(&deliveries_by_address, &key);
}

INLINE void deliveries_forget(struct sock *sk)
{
	u64 key = (u64)sk;

	if (!config.local_storage)
		bpf_map_delete_elem(&deliveries_by_address, &key);
}

/* What a call has moved. */
struct moved {
	u64 ts_ns; /* when it returned */
	u64 duration_ns;
	u64 socket;
	u32 seq, bytes;
	u32 unread_us;
	s32 error;
	u32 flags; /* message_flag */
	u32 payload_limit; /* how much payload is wanted */
};

INLINE u32 elapsed_us(u64 from, u64 to)
{
	u64 us = from < to ? (to - from) / 1000 : 0;

	return MIN(us, MICROSECONDS_UNKNOWN - 1);
}

/* An acknowledgement that came before the call returned. */
INLINE void delivery_at_once(struct delivery *to, const struct moved *send, const struct connection *c,
			     const struct owner *owner)
{
	event_begin(&to->event, KIND_ACKED, c, owner);
	to->event.socket = send->socket;
	to->event.flags = 0;
	to->event.error = 0;
	to->event.seq = send->seq;
	to->event.bytes = send->bytes;
	to->send_ts_ns = send->ts_ns;
	to->unsent_us = 0;
	to->unacked_us = 0;
}

/*
 * A send has returned; its bytes are in the send queue, or have left, or have even been acknowledged: over loopback
 * that comes during the call, and no later segment would tell when.
 */
INLINE void delivery_sent(struct sock *sk, const struct moved *send, const struct connection *c,
			  const struct owner *owner, enum reads reads)
{
	struct counters *counters = counters_of(KIND_ACKED);
	struct deliveries *d = deliveries_create(sk, reads);
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	u32 snd_nxt = 0, snd_una = 0, end_seq = send->seq + send->bytes;
	struct outstanding *o;

	if (!counters || !tp)
		return;
	if (!d || d->sent - d->acked >= QUEUED || send->flags & MESSAGE_SEQ_UNKNOWN) {
		COUNT(counters->seen, 1);
		COUNT(counters->map_full, 1);
		return;
	}
	READ(reads, snd_nxt, tp->snd_nxt);
	READ(reads, snd_una, tp->snd_una);
	if (!after(end_seq, snd_una)) {
		COUNT(counters->seen, 1);
		SUBMIT(delivery, struct delivery, counters, delivery_at_once(record, send, c, owner));
		return;
	}
	o = &d->outstanding[AT(d->sent)];
	o->send_ts_ns = send->ts_ns;
	o->seq = send->seq;
	o->end_seq = end_seq;
	o->left_ts_ns = after(end_seq, snd_nxt) ? 0 : send->ts_ns;
	if (o->left_ts_ns && d->left == d->sent)
		d->left++;
	d->sent++;
}

/* A segment that ends at `end_seq` leaves. */
INLINE void delivery_left(struct sock *sk, u32 end_seq, enum reads reads)
{
	struct deliveries *d = deliveries_of(sk, reads);
	u64 now;

	if (!d || d->left == d->sent)
		return;
	now = bpf_ktime_get_ns();
	for (u32 i = 0; i < QUEUED && d->left != d->sent; i++) {
		struct outstanding *o = &d->outstanding[AT(d->left)];

		if (after(o->end_seq, end_seq))
			break;
		o->left_ts_ns = now;
		d->left++;
	}
}

/* A segment arrived that TCP will put into the receive queue. */
INLINE void delivery_arrived(struct sock *sk, u32 end_seq)
{
	struct deliveries *d = deliveries_create(sk, READS_BTF);
	struct arrival *last;

	if (!d)
		return;
	if (d->arrived - d->read >= QUEUED) {
		last = &d->arrivals[AT(d->arrived - 1)];
		last->ts_ns = ARRIVAL_NS_UNKNOWN;
		last->end_seq = end_seq;
		return;
	}
	last = &d->arrivals[AT(d->arrived)];
	last->ts_ns = bpf_ktime_get_ns();
	last->end_seq = end_seq;
	d->arrived++;
}

/* Takes the oldest arrival as far as it has been read. Returns whether the byte before `end` came with it. */
static __noinline int arrival_read(struct deliveries *d, u32 end)
{
	const struct arrival *a = &d->arrivals[AT(d->read)];
	u32 left = a->end_seq - end;

	if (a->ts_ns < on_since())
		d->latest_ns = ARRIVAL_NS_UNKNOWN;
	else if (d->latest_ns < a->ts_ns)
		d->latest_ns = a->ts_ns;
	if (!left || after(end, a->end_seq))
		d->read++; /* else a part of it is still unread */
	return !after(end, a->end_seq);
}

/*
 * How long the byte before `end` could have been read: since its segment arrived, or a later one that filled a gap
 * before it.
 */
INLINE u32 delivery_unread(struct sock *sk, u32 end, u64 now, enum reads reads)
{
	struct deliveries *d = deliveries_of(sk, reads);

	if (!d)
		return MICROSECONDS_UNKNOWN;
	d->latest_ns = 0;
	for (u32 i = 0; i < QUEUED && d->read != d->arrived; i++) {
		if (arrival_read(d, end))
			return d->latest_ns == ARRIVAL_NS_UNKNOWN ? MICROSECONDS_UNKNOWN : elapsed_us(d->latest_ns, now);
	}
	return MICROSECONDS_UNKNOWN;
}

#endif
