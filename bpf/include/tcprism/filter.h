/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What a user may filter by. The switches are read-only constants, so the verifier removes the
 * filters that are off. Values of one filter are alternatives; filters combine with and.
 */
#ifndef TCPRISM_FILTER_H
#define TCPRISM_FILTER_H

#include "drift.h"
#include "maps.h"

struct connection {
	struct address local, remote; /* IPv4 as mapped IPv6 */
	u32 netns;
	u16 local_port, remote_port;
	u8 family;
};

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

	READ(reads, net, sk->skc_net.net);
	READ(reads, inum, net->ns.inum);
	return inum;
}

/* A connection that is over (reset, say) has given its number back, but still knows its source port. */
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
	return __builtin_bswap16(port);
}

INLINE void read_connection(struct connection *to, const struct sock_common *sk, enum reads reads)
{
	u16 family = 0, remote_port = 0;

	to->netns = read_netns(sk, reads); /* first: the verifier takes long over it, on each way that leads there */
	READ(reads, family, sk->skc_family);
	READ(reads, remote_port, sk->skc_dport);
	to->local_port = local_port_of(sk, reads);
	to->remote_port = __builtin_bswap16(remote_port);
	read_addresses(to, sk, family, reads);
}

INLINE bool has_port(const volatile u64 *bits, u16 port)
{
	u32 word = port >> 6;

	asm volatile("" : "+r"(word)); /* 5.10 and 6.1 lose the bounds of a u16 */
	return bits[word & (PORT_WORDS - 1)] >> (port & 63) & 1;
}

INLINE bool ports_pass(u16 local, u16 remote)
{
	if (config.by_port && !has_port(config.port, local) && !has_port(config.port, remote))
		return false;
	if (config.by_local_port && !has_port(config.local_port, local))
		return false;
	return !config.by_remote_port || has_port(config.remote_port, remote);
}

#define FILTERS_BY_PORT() (config.by_port || config.by_local_port || config.by_remote_port)

/* The cheapest question, asked before anything else is read. */
INLINE bool socket_ports_pass(const struct sock_common *sk, enum reads reads)
{
	u16 remote = 0;

	if (!FILTERS_BY_PORT())
		return true;
	READ(reads, remote, sk->skc_dport);
	return ports_pass(local_port_of(sk, reads), __builtin_bswap16(remote));
}

/* Whether one of the ports that the filter is about may be chosen for a socket that has none yet. */
INLINE bool may_get_chosen_port(const struct sock_common *sk, enum reads reads)
{
	struct port_range range = local_port_range(sk, reads);

	return range.low <= config.highest_port && range.high >= config.lowest_port;
}

/*
 * As socket_ports_pass(), of a socket that may lack a port yet. Of one that listens its own decides: a connection
 * that passes by the other end's is rare, and finds its listener in a table. One that begins to connect, in state
 * CLOSE so far, may have had another port before.
 */
INLINE bool ports_may_pass(const struct sock_common *sk, enum reads reads)
{
	u16 local = 0, remote = 0;
	u8 state = 0;

	if (!FILTERS_BY_PORT())
		return true;
	READ(reads, state, sk->skc_state);
	READ(reads, local, sk->skc_num);
	if (!local && state != TCP_CLOSE)
		local = local_port_of(sk, reads);
	READ(reads, remote, sk->skc_dport);
	remote = __builtin_bswap16(remote);
	if (local && remote)
		return ports_pass(local, remote);
	if (local)
		return (!config.by_port || has_port(config.port, local)) &&
		       (!config.by_local_port || has_port(config.local_port, local));
	if (config.by_remote_port && !has_port(config.remote_port, remote))
		return false;
	if (!config.by_local_port && (!config.by_port || has_port(config.port, remote)))
		return true;
	return may_get_chosen_port(sk, reads);
}

INLINE bool in_prefixes(void *map, u32 family, const struct address *address)
{
	struct prefix key = { .length = PREFIX_BITS, .family = family, .address = *address };

	return bpf_map_lookup_elem(map, &key);
}

#define FILTERS_BY_CONNECTION()                                                                    \
	(config.family || config.netns || config.by_netns || config.by_host || config.by_remote_host)

/* All but the ports. */
INLINE bool connection_passes(const struct connection *c)
{
	u32 netns = c->netns; /* a copy: what a helper is given the address of must lie on the stack */

	if (config.family && config.family != c->family)
		return false;
	if (config.netns && config.netns != netns)
		return false;
	if (config.by_netns && !bpf_map_lookup_elem(&network_namespaces, &netns))
		return false;
	if (config.by_remote_host && !in_prefixes(&remote_hosts, c->family, &c->remote))
		return false;
	return !config.by_host || in_prefixes(&hosts, c->family, &c->remote) || in_prefixes(&hosts, c->family, &c->local);
}

/* The same of a socket, of which nothing is read that no filter asks for. */
INLINE bool socket_connection_passes(const struct sock_common *sk, enum reads reads)
{
	struct connection connection;

	if (!FILTERS_BY_CONNECTION())
		return true;
	read_connection(&connection, sk, reads);
	return connection_passes(&connection);
}

INLINE bool in_cgroups(void)
{
	for (u32 i = 0; i < CGROUPS_MAX; i++) {
		if (i >= config.cgroups)
			break;
		if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
			return true;
	}
	return false;
}

#define CGROUP_DEPTH 32

/* Whether a cgroup is one of the chosen or lies below one. */
INLINE bool cgroup_chosen(const struct cgroup *cgroup)
{
	for (u32 depth = 0; depth < CGROUP_DEPTH && cgroup; depth++) {
		const struct cgroup_subsys_state *parent = cgroup->self.parent;
		u64 id = cgroup->kn->id;

		for (u32 i = 0; i < CGROUPS_MAX; i++) {
			if (i < config.cgroups && config.cgroup_ids[i] == id)
				return true;
		}
		cgroup = parent ? parent->cgroup : NULL;
	}
	return false;
}

#define FILTERS_BY_TASK() (config.by_pid || config.by_comm || config.cgroups)

/* Whether a process is chosen, to be read or set. */
INLINE u8 *pid_chosen(u32 pid)
{
	u32 index = pid / PIDS_A_ROW;
	struct pid_row *row = bpf_map_lookup_elem(&pids, &index);

	return row ? &row->chosen[pid % PIDS_A_ROW] : NULL;
}

/* Process context only. */
INLINE bool task_passes(u32 pid)
{
	if (config.self_pid == pid)
		return false;
	if (config.by_pid) {
		const u8 *chosen = pid_chosen(pid);

		if (!chosen || !*chosen)
			return false;
	}
	if (config.by_comm) {
		struct comm comm = {};

		bpf_get_current_comm(&comm, sizeof(comm)); /* task->comm has old bytes after its NUL */
		if (!bpf_map_lookup_elem(&comms, &comm))
			return false;
	}
	return !config.cgroups || in_cgroups();
}

#endif
