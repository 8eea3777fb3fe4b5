/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What user space writes (config, filters), and the ledger, which it reads. */
#ifndef TCPRISM_MAPS_H
#define TCPRISM_MAPS_H

#include "helpers.h"

const volatile struct config config = {};

struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, KIND_COUNT);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} ledger SEC(".maps");

#define SET(name, key_type, entries)                                                               \
	struct {                                                                                   \
		MAP_UINT(type, MAP_HASH);                                                          \
		MAP_UINT(max_entries, entries);                                                    \
		MAP_UINT(map_flags, MAP_NO_PREALLOC);                                              \
		MAP_TYPE(key, key_type);                                                           \
		MAP_TYPE(value, u8);                                                               \
	} name SEC(".maps")

struct comm {
	u64 word[2];
};

/* One byte a pid: a look-up is a load, where a hash costs 44 ns, and 5.10 can set a byte but no bit. */
struct pid_row {
	u8 chosen[PIDS_A_ROW];
};

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, PID_ROWS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct pid_row);
} pids SEC(".maps");

SET(comms, struct comm, COMMS_MAX);
SET(network_namespaces, u32, NETNS_MAX);

struct address {
	u32 word[4];
};

#define PREFIX_BITS 160

/* The family comes first: without it ::/0 would hold the mapped IPv4 addresses too. */
struct prefix {
	u32 length; /* bits, the family's 32 counted */
	u32 family; /* 4 or 6 */
	struct address address;
};

#define PREFIXES(name)                                                                             \
	struct {                                                                                   \
		MAP_UINT(type, MAP_LPM_TRIE);                                                      \
		MAP_UINT(max_entries, PREFIXES_MAX);                                               \
		MAP_UINT(map_flags, MAP_NO_PREALLOC);                                              \
		MAP_TYPE(key, struct prefix);                                                      \
		MAP_TYPE(value, u8);                                                               \
	} name SEC(".maps")

PREFIXES(hosts);
PREFIXES(remote_hosts);

struct {
	MAP_UINT(type, MAP_CGROUP_ARRAY);
	MAP_UINT(max_entries, CGROUPS_MAX);
	MAP_UINT(key_size, 4);
	MAP_UINT(value_size, 4);
} cgroups SEC(".maps");

#endif
