/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The options of a retransmission: the tracepoint fires when the packet has left, with its header gone, but while the
 * socket is still locked. So what the packet's hook saw last of the socket is the same packet.
 */
#ifndef TCPRISM_SENT_AGAIN_H
#define TCPRISM_SENT_AGAIN_H

#include "maps.h"

struct sent_again {
	u32 seq;
	u32 length;
	u8 options[OPTIONS_MAX];
};

/* By socket address: a connection's, or for a SYN-ACK the listener's. User space gives it room if it is used. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct sent_again);
} sent_again SEC(".maps");

INLINE const struct sent_again *find_sent_again(const struct sock *sk, u32 seq)
{
	u64 key = (u64)sk;
	const struct sent_again *found = config.options ? bpf_map_lookup_elem(&sent_again, &key) : NULL;

	return found && found->seq == seq ? found : NULL;
}

#endif
