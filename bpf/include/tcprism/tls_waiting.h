/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Messages of rustls that wait until it is known which socket sends their records. */
#ifndef TCPRISM_TLS_WAITING_H
#define TCPRISM_TLS_WAITING_H

#include "tcprism/tls_rustls.h"

#define WAITING_SLOTS 64

/* A message that waits for its record to be sent, with its plaintext. Like a lane, it admits one program at a time. */
struct tls_waiting {
	u32 writers;
	u32 number; /* of those that wait for this cipher */
	struct tls_session_key key;
	struct tls_caller caller;
	struct tls_call call;
	u32 at, size; /* of its record */
	u32 waits;
	u32 reserved;
	u8 payload[PAYLOAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tls_waiting);
} tls_waiting SEC(".maps");

INLINE u32 waiting_slot(u64 object, u32 number)
{
	return ((u32)((object * 0x9e3779b97f4a7c15ULL) >> 40) + number) & (WAITING_SLOTS - 1);
}

INLINE void waiting_leave(struct tls_waiting *slot)
{
	barrier();
	__atomic_fetch_add(&slot->writers, -1, __ATOMIC_RELAXED);
}

INLINE struct tls_waiting *waiting_enter(u64 object, u32 number)
{
	u32 index = waiting_slot(object, number);
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);

	if (!slot)
		return NULL;
	__atomic_fetch_add(&slot->writers, 1, __ATOMIC_RELAXED);
	if (READ_ONCE(slot->writers) == 1)
		return slot;
	waiting_leave(slot);
	return NULL;
}

/* A message has to wait until it is known which socket sends it. */
INLINE void rustls_wait(const struct tls_session_key *key, struct tls_cipher *cipher, const struct tls_call *call,
			u32 at, u32 size)
{
	struct tls_waiting *slot = cipher->waiting < WAITING_MAX ? waiting_enter(key->session, cipher->waiting) : NULL;
	u32 length = MIN(call->requested, config.payload_limit);

	if (!slot) {
		cipher->whole = false;
		count_unproven(KIND_TLS_SEND);
		return;
	}
	if (slot->waits)
		count_unproven(KIND_TLS_SEND);
	slot->key = *key;
	slot->number = cipher->waiting++;
	slot->call = *call;
	slot->at = at;
	slot->size = size;
	slot->waits = true;
	barrier_var(length);
	if (length > PAYLOAD_MAX)
		length = PAYLOAD_MAX;
	slot->call.buffer = read_plaintext(slot->payload, length, call->buffer, call->segments) ? 0 : 1;
	waiting_leave(slot);
}

const struct tls_caller tls_caller_new = {};

/* A record of a cipher with a socket becomes what the session's stream has moved. Returns whether there is such a session. */
INLINE bool rustls_moves(const struct tls_cipher *cipher, u32 pid, u32 direction, u32 at, u32 size)
{
	struct tls_session_key key = { .session = cipher->socket, .pid = pid };
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);
	struct tls_stream *stream;

	if (!session)
		return false;
	stream = &session->streams[direction];
	stream->begin = cipher->base + at;
	stream->whole = stream->next = stream->begin + size;
	stream->known = cipher->placed;
	stream->from_hello = cipher->whole && (stream->from_hello || !stream->begun);
	stream->begun = true;
	return true;
}

/*
 * To show what has waited takes three global functions, each of which the verifier checks once. They take only numbers,
 * and keep what is large in the slot: programs of TCP leave them little stack.
 */
__noinline int tls_submit_slot(u32 index)
{
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);
	struct counters *counters = counters_of(KIND_TLS_SEND);

	if (slot && counters)
		tls_submit(&slot->caller, &slot->call, counters, true);
	return 0;
}

/* Returns whether a slot has a message that is to be shown. */
__noinline int tls_slot_wanted(u64 object, u32 pid, u32 number, u32 index)
{
	struct tls_session_key key = { .session = object, .pid = pid };
	struct tls_cipher *cipher = bpf_map_lookup_elem(&tls_ciphers, &key);
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);
	struct counters *counters = counters_of(KIND_TLS_SEND);
	struct thread thread;

	if (!slot || !cipher || !counters || !slot->waits || slot->number != number || slot->key.session != object ||
	    slot->key.pid != pid || !rustls_moves(cipher, pid, 0, slot->at, slot->size))
		return 0;
	slot->waits = false;
	slot->call.session = cipher->socket;
	if (slot->call.buffer)
		slot->call.buffer = (u64)slot->payload;
	slot->caller = tls_caller_new;
	slot->caller.bytes = slot->call.requested;
	slot->caller.pid = pid;
	read_thread(&thread);
	return tls_wanted(&slot->caller, &thread, &slot->call, counters);
}

__noinline int tls_show_waiting(u64 sk)
{
	struct tls_session_key *key = bpf_map_lookup_elem(&tls_sessions_by_socket, &sk);
	struct tls_cipher *cipher = key ? bpf_map_lookup_elem(&tls_ciphers, key) : NULL;
	u32 count;

	if (!cipher)
		return 0;
	count = cipher->waiting;
	cipher->waiting = 0;
	for (u32 i = 0; i < WAITING_MAX && i < count; i++) {
		struct tls_waiting *slot = waiting_enter(key->session, i);
		u32 index = waiting_slot(key->session, i);

		if (!slot)
			continue;
		if (tls_slot_wanted(key->session, key->pid, i, index))
			tls_submit_slot(index);
		waiting_leave(slot);
	}
	return 0;
}

#endif
