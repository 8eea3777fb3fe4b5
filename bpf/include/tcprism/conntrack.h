/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The addresses and ports that NAT has overwritten: connection tracking keeps those that this host gave the packet. */
#ifndef TCPRISM_CONNTRACK_H
#define TCPRISM_CONNTRACK_H

#include "connection.h"

#define NFCT_INFOMASK 7UL /* include/linux/netfilter/nf_conntrack_common.h */
#define IP_CT_IS_REPLY 3

INLINE void read_end(struct address *to, u32 family, const union nf_inet_addr *from)
{
	struct address address = {};

	bpf_probe_read_kernel(&address, sizeof(address), &from->all);
	if (family == 4)
		map_ipv4(to, address.word[0]);
	else
		*to = address;
}

/* `tracked` is a packet's _nfct: where the entry is, and in the low bits whether this is its reply. */
INLINE void read_tracked(struct connection *to, unsigned long tracked)
{
	u32 direction = (tracked & NFCT_INFOMASK) >= IP_CT_IS_REPLY;
	const struct nf_conn *entry = (void *)(tracked & ~NFCT_INFOMASK);
	const struct nf_conntrack_tuple *made = &entry->tuplehash[0].tuple, *reply = &entry->tuplehash[1].tuple;
	u16 local = 0, remote = 0;

	if (direction)
		made = reply;
	read_end(&to->local, to->family, &made->src.u3);
	read_end(&to->remote, to->family, &made->dst.u3);
	READ(READS_PROBED, local, made->src.u.all);
	READ(READS_PROBED, remote, made->dst.u.all);
	to->local_port = bpf_ntohs(local);
	to->remote_port = bpf_ntohs(remote);
}

/* Of a packet that leaves, as a cgroup_skb program has it; untouched where nothing is tracked. */
INLINE void undo_translation(struct connection *c, const struct __sk_buff *ctx)
{
	const struct sk_buff *skb = (void *)untyped(ctx);
	const struct nf_conn *any = NULL;
	unsigned long tracked = 0;

	if (!bpf_core_field_exists(skb->_nfct) || !bpf_core_field_exists(any->tuplehash))
		return;
	READ(READS_PROBED, tracked, skb->_nfct);
	if (tracked & ~NFCT_INFOMASK)
		read_tracked(c, tracked);
}

#endif
