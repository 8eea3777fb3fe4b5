/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Every map: what user space writes (config, filters), what it reads (rings, ledger). */
#ifndef TCPRISM_MAPS_H
#define TCPRISM_MAPS_H

#include "helpers.h"

/* User space sets the sizes before it loads; a ring that this run does not use gets one page. */
#define RING(name)                                                                                 \
	struct {                                                                                   \
		MAP_UINT(type, MAP_RINGBUF);                                                       \
		MAP_UINT(max_entries, 4096);                                                       \
	} name SEC(".maps")

const volatile struct config config = {};

/* Messages: one ring a payload class. Losses and connections have rings that no flood can fill. */
RING(message_0);
#define MESSAGE_RING(size) RING(message_##size);
PAYLOAD_CLASSES(MESSAGE_RING)
RING(delivery);
RING(segment);
RING(loss);
RING(connection);

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
