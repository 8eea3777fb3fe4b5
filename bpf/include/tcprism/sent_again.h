/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The header of a retransmission, its flags, window and options: the tracepoint fires when the packet has left, with
 * its header gone, but while the socket is still locked. So what the packet's hook saw last of the socket is the same
 * packet.
 */
#ifndef TCPRISM_SENT_AGAIN_H
#define TCPRISM_SENT_AGAIN_H

#include "ring.h"

struct sent_again {
	u32 seq;
	u16 flags; /* as a segment has them */
	u16 length;
	u16 window;
	u8 options[OPTIONS_MAX];
};

/* By socket address: a connection's, or for a SYN-ACK the listener's. User space gives it room if it is used. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct sent_again);
} sent_again SEC(".maps");

INLINE void sent_again_into(struct loss_40 *to, const struct sock *sk)
{
	u64 key = (u64)sk;
	const struct sent_again *found = bpf_map_lookup_elem(&sent_again, &key);
	struct segment *s = &to->loss.segment;

	if (!found || found->seq != s->event.seq)
		return;
	s->event.flags = found->flags;
	s->window = found->window;
	s->options_length = found->length;
	__builtin_memcpy(to->options, found->options, OPTIONS_MAX);
}

#endif
