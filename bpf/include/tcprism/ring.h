/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Rings of records, in arrays that user space maps. A ring is split into lanes, and a lane admits one writer at a
 * time: a record needs no header, it is complete once it is counted. The kernel's own ring buffer takes a lock
 * that all CPUs share and two helper calls a record, 40 ns more than this.
 */
#ifndef TCPRISM_RING_H
#define TCPRISM_RING_H

#include "maps.h"

/* barrier() orders the compiler's stores; x86 orders its own. Other architectures need memory barriers here. */
#ifndef __TARGET_ARCH_x86
#error "the rings have no memory barriers, so they work on x86-64 only (-D__TARGET_ARCH_x86)"
#endif

#define NO_LANE 0xffffffffU

INLINE bool lane_has_room(const struct lane *lane)
{
	return READ_ONCE(lane->written) - READ_ONCE(lane->read) < lane->slots;
}

INLINE void lane_leave(struct lane *lane)
{
	barrier();
	__atomic_fetch_add(&lane->writers, -1, __ATOMIC_RELAXED);
}

/* Of two writers that come at once both may leave again, but never both stay. Addition is the only atomic in 5.10. */
INLINE bool lane_enter(struct lane *lane)
{
	if (!lane_has_room(lane))
		return false;
	__atomic_fetch_add(&lane->writers, 1, __ATOMIC_RELAXED);
	if (READ_ONCE(lane->writers) == 1 && lane_has_room(lane))
		return true;
	lane_leave(lane);
	return false;
}

#define MAPPED_ARRAY(name, value_type)                                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, 1);                                                            \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__type(key, u32);                                                                  \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

/*
 * User space sets the sizes before it loads; a ring that this run does not use has room for one record. The
 * search for another lane is a global function: the verifier checks it once, apart from its callers.
 */
#define RING(name, record_type)                                                                    \
	MAPPED_ARRAY(name, record_type);                                                           \
	MAPPED_ARRAY(name##_lanes, struct lane);                                                   \
	__noinline u32 name##_other_lane(u32 first)                                                \
	{                                                                                          \
		for (u32 i = 1; i < LANES_TRIED; i++) {                                            \
			u32 index = (first + i) & config.last_lane;                                \
			struct lane *lane = bpf_map_lookup_elem(&name##_lanes, &index);            \
                                                                                                   \
			if (lane && lane_enter(lane))                                              \
				return index;                                                      \
		}                                                                                  \
		return NO_LANE;                                                                    \
	}

/* Messages: one ring for each payload class. Losses and connections have rings of their own, which no message fills. */
#define MESSAGE_RING(size)                                                                         \
	struct message_##size {                                                                    \
		struct message message;                                                            \
		u8 payload[size];                                                                  \
	};                                                                                         \
	RING(message_##size, struct message_##size)

RING(message_0, struct message)
PAYLOAD_CLASSES(MESSAGE_RING)
RING(delivery, struct delivery)
RING(segment, struct segment)
RING(loss, struct loss)
RING(connection, struct connection_event)

INLINE struct lane *lane_claim(void *lanes, u32 (*other_lane)(u32 first))
{
	u32 index = LANES_A_CPU * bpf_get_smp_processor_id() & config.last_lane;
	struct lane *lane = bpf_map_lookup_elem(lanes, &index);

	if (lane && lane_enter(lane))
		return lane;
	index = other_lane(index);
	return bpf_map_lookup_elem(lanes, &index);
}

INLINE void *ring_reserve(void *records, void *lanes, u32 (*other_lane)(u32 first), struct lane **lane)
{
	void *record;
	u32 index;

	*lane = lane_claim(lanes, other_lane);
	if (!*lane)
		return NULL;
	index = (*lane)->first + (*lane)->next;
	record = bpf_map_lookup_elem(records, &index);
	if (!record)
		lane_leave(*lane);
	return record;
}

/* Returns room for a record, in `*lane` until ring_submit(), or NULL when there is none. */
#define RESERVE(ring, lane) ring_reserve(&(ring), &(ring##_lanes), ring##_other_lane, lane)

INLINE void ring_submit(struct lane *lane)
{
	u32 next = lane->next + 1;

	lane->next = next < lane->slots ? next : 0;
	barrier();
	WRITE_ONCE(lane->written, lane->written + 1);
	lane_leave(lane);
}

#endif
