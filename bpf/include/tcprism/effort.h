/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Less than everything, where all of it would cost too much: of many connections some, which stand for the others. */
#ifndef TCPRISM_EFFORT_H
#define TCPRISM_EFFORT_H

#include "connection.h"
#include "ring.h"

MAPPED_ARRAY(effort, struct effort);

#define LEFT_OUT 0xff /* instead of event.sampling */

/* The ends' exclusive or: both ends of a connection have the same. */
INLINE u32 ends_of(const struct connection *c)
{
	const struct address *a = &c->local, *b = &c->remote;

	return a->word[0] ^ a->word[1] ^ a->word[2] ^ a->word[3] ^ b->word[0] ^ b->word[1] ^ b->word[2] ^ b->word[3] ^
	       (c->local_port ^ c->remote_port) << 8;
}

/*
 * event.sampling of a connection, or LEFT_OUT. In the sample of one in 2^(n+1) is only who is in that of one in 2^n. A
 * global function, which the verifier checks once; user space has the same in stages/sampling.py.
 */
__noinline u32 sampling_of(u32 ends, u32 segments)
{
	u32 zero = 0, n;
	const struct effort *now = bpf_map_lookup_elem(&effort, &zero);

	if (!now)
		return 0;
	n = segments ? READ_ONCE(now->segment_sampling) : READ_ONCE(now->message_sampling);
	if (!n)
		return 0;
	if (n > 31)
		return LEFT_OUT;
	ends *= 0x9e3779b1;
	ends ^= ends >> 15;
	ends *= 0x85ebca77;
	ends ^= ends >> 13;
	return ends & ((1U << n) - 1) ? LEFT_OUT : n;
}

/* Returns event.sampling of a message or a segment, or counts it and returns LEFT_OUT. */
INLINE u32 sample(struct counters *counters, const struct connection *c, bool segment)
{
	u32 sampling = sampling_of(ends_of(c), segment);

	if (sampling == LEFT_OUT)
		COUNT(counters->sampled_out, 1);
	return sampling;
}

/* Since when all hooks have been on; 0: since they were attached. */
__noinline u64 on_since(void)
{
	u32 zero = 0;
	const struct effort *now = bpf_map_lookup_elem(&effort, &zero);

	return now ? READ_ONCE(now->since_ns) : 0;
}

/* Whether no segment is recorded, and no message whose segments are followed. */
__noinline u32 segments_rest(void)
{
	u32 zero = 0;
	const struct effort *now = bpf_map_lookup_elem(&effort, &zero);

	if (!now || READ_ONCE(now->message_sampling) < 32)
		return false;
	return READ_ONCE(now->segment_sampling) > 31 || !(config.kinds & (1 << KIND_TRANSMIT | 1 << KIND_PROBE));
}

/* How many bytes of payload are to be recorded at most. */
__noinline u32 payload_limit(void)
{
	u32 zero = 0;
	const struct effort *now = bpf_map_lookup_elem(&effort, &zero);

	return now ? config.payload_limit >> (READ_ONCE(now->payload_shift) & 31) : config.payload_limit;
}

#endif
