/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which connection a socket is: namespace, addresses and ports. */
#ifndef TCPRISM_CONNECTION_H
#define TCPRISM_CONNECTION_H

#include "drift.h"

struct connection {
	struct address local, remote; /* IPv4 as mapped IPv6 */
	u32 netns;
	u32 scope_id; /* of link-local addresses, which each link has anew; of others whatever a socket is bound to */
	u16 local_port, remote_port;
	u8 family;
};

/* fe80::/10 */
INLINE bool is_link_local(const struct address *address)
{
	return (address->word[0] & bpf_ntohl(0xffc00000)) == bpf_ntohl(0xfe800000);
}

INLINE u32 scope_of(const struct connection *c, u32 interface)
{
	return c->family == 6 && (is_link_local(&c->local) || is_link_local(&c->remote)) ? interface : 0;
}

#define MAPPED_PREFIX 0xffff0000U /* ::ffff:0:0/96, its third word in network order */

INLINE bool is_mapped(const struct address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == MAPPED_PREFIX;
}

INLINE void map_ipv4(struct address *to, u32 address)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_PREFIX;
	to->word[3] = address;
}

#define READ_ADDRESS(reads, to, from)                                                              \
	do {                                                                                       \
		READ(reads, (to).word[0], (from).in6_u.u6_addr32[0]);                              \
		READ(reads, (to).word[1], (from).in6_u.u6_addr32[1]);                              \
		READ(reads, (to).word[2], (from).in6_u.u6_addr32[2]);                              \
		READ(reads, (to).word[3], (from).in6_u.u6_addr32[3]);                              \
	} while (0)

INLINE void read_addresses(struct connection *to, const struct sock_common *sk, u16 family, enum reads reads)
{
	u32 local = 0, remote = 0;

	if (family == AF_INET6) {
		READ_ADDRESS(reads, to->local, sk->skc_v6_rcv_saddr);
		READ_ADDRESS(reads, to->remote, sk->skc_v6_daddr);
		to->family = is_mapped(&to->remote) ? 4 : 6;
		return;
	}
	READ(reads, local, sk->skc_rcv_saddr);
	READ(reads, remote, sk->skc_daddr);
	map_ipv4(&to->local, local);
	map_ipv4(&to->remote, remote);
	to->family = 4;
}

INLINE u32 read_netns(const struct sock_common *sk, enum reads reads)
{
	struct net *net = NULL;
	u32 inum = 0;

	if (reads == READS_BTF)
		sk = READABLE(struct sock_common, sk);
	READ(reads, net, sk->skc_net.net);
	READ(reads, inum, net->ns.inum);
	return inum;
}

/* A socket whose connection has ended (by a reset, say) has given up skc_num, but still has its source port. */
INLINE u16 local_port_of(const struct sock_common *sk, enum reads reads)
{
	struct tcp_sock *tp;
	u16 port = 0;

	READ(reads, port, sk->skc_num);
	if (port)
		return port;
	tp = tcp_sock_of((struct sock *)sk, reads);
	if (tp)
		READ(reads, port, tp->inet_conn.icsk_inet.inet_sport);
	return bpf_ntohs(port);
}

INLINE void read_connection(struct connection *to, const struct sock_common *sk, enum reads reads)
{
	u16 family = 0, remote_port = 0;
	u32 interface = 0;

	to->netns = read_netns(sk, reads);
	READ(reads, family, sk->skc_family);
	READ(reads, remote_port, sk->skc_dport);
	to->local_port = local_port_of(sk, reads);
	to->remote_port = bpf_ntohs(remote_port);
	read_addresses(to, sk, family, reads);
	READ(reads, interface, sk->skc_bound_dev_if); /* which the kernel sets where an address is link-local */
	to->scope_id = interface; /* not scope_of(): that doubles what the verifier has to follow in all that comes after */
}

#endif
