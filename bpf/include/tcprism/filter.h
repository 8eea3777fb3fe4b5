/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What a user may filter by: ports, addresses and the like; processes are in task_filter.h. The switches are
 * read-only constants, so the verifier removes disabled filters. An event must match every filter, and any one of
 * the values of each.
 */
#ifndef TCPRISM_FILTER_H
#define TCPRISM_FILTER_H

#include "connection.h"
#include "maps.h"

INLINE bool has_port(const volatile u64 *bits, u16 port)
{
	u32 word = port >> 6;

	barrier_var(word); /* 5.10 and 6.1 lose the bounds of a u16 */
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

/* The cheapest check, made before anything else is read. */
INLINE bool socket_ports_pass(const struct sock_common *sk, enum reads reads)
{
	u16 remote = 0;

	if (!FILTERS_BY_PORT())
		return true;
	READ(reads, remote, sk->skc_dport);
	return ports_pass(local_port_of(sk, reads), bpf_ntohs(remote));
}

/* Whether the kernel may choose one of the filter's ports for a socket that has none yet. */
INLINE bool may_get_chosen_port(const struct sock_common *sk, enum reads reads)
{
	struct port_range range = local_port_range(sk, reads);

	return range.low <= config.highest_port && range.high >= config.lowest_port;
}

/*
 * As socket_ports_pass(), for a socket that may not have its ports yet. For a listener its own port decides: a
 * connection that passes by its remote port is rare, and finds the listener in a table. A socket in state CLOSE is
 * about to connect, and its old source port means nothing.
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
	remote = bpf_ntohs(remote);
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

INLINE bool in_prefixes(void *map, const struct connection *c, const struct address *address)
{
	struct prefix key = { .length = PREFIX_BITS, .family = c->family, .address = *address, .scope_id = c->scope_id };

	return bpf_map_lookup_elem(map, &key);
}

#define FILTERS_BY_CONNECTION()                                                                    \
	(config.family || config.netns || config.by_netns || config.by_host || config.by_remote_host)

/* All filters by connection except the ports. */
INLINE bool connection_passes(const struct connection *c)
{
	u32 netns = c->netns; /* a copy on the stack, for the helper takes its address */

	if (config.family && config.family != c->family)
		return false;
	if (config.netns && config.netns != netns)
		return false;
	if (config.by_netns && !bpf_map_lookup_elem(&network_namespaces, &netns))
		return false;
	if (config.by_remote_host && !in_prefixes(&remote_hosts, c, &c->remote))
		return false;
	return !config.by_host || in_prefixes(&hosts, c, &c->remote) || in_prefixes(&hosts, c, &c->local);
}

/* The same for a socket; reads only what the filters need. */
INLINE bool socket_connection_passes(const struct sock_common *sk, enum reads reads)
{
	struct connection connection;

	if (!FILTERS_BY_CONNECTION())
		return true;
	read_connection(&connection, sk, reads);
	return connection_passes(&connection);
}

#endif
