/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What user space writes (configuration and filters), and the ledger, which it reads. */
#ifndef TCPRISM_MAPS_H
#define TCPRISM_MAPS_H

#include "helpers.h"

const volatile struct config config = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KIND_COUNT);
	__type(key, u32);
	__type(value, struct counters);
} ledger SEC(".maps");

#define SET(name, key_type, entries)                                                               \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, key_type);                                                             \
		__type(value, u8);                                                                 \
	} name SEC(".maps")

struct comm {
	u64 word[2];
};

/* A byte for each pid: looking it up is a load, where a hash costs 44 ns. 5.10 has no atomic to set a bit. */
struct pid_row {
	u8 chosen[PIDS_A_ROW];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PID_ROWS);
	__type(key, u32);
	__type(value, struct pid_row);
} pids SEC(".maps");

SET(comms, struct comm, COMMS_MAX);
SET(network_namespaces, u32, NETNS_MAX);

struct address {
	u32 word[4];
};

#define PREFIX_BITS 192

/*
 * The family comes first: without it ::/0 would match the mapped IPv4 addresses too. The scope comes last: a prefix
 * without one matches on any link.
 */
struct prefix {
	u32 length; /* bits, the 32 of the family included */
	u32 family; /* 4 or 6 */
	struct address address;
	u32 scope_id;
};

#define PREFIXES(name)                                                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);                                               \
		__uint(max_entries, PREFIXES_MAX);                                                 \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, struct prefix);                                                        \
		__type(value, u8);                                                                 \
	} name SEC(".maps")

PREFIXES(hosts);
PREFIXES(remote_hosts);

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, CGROUPS_MAX);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroups SEC(".maps");

#endif
