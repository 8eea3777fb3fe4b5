/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Rings of records, in arrays that user space maps. A ring is cut into lanes, and one writer at a time is in a
 * lane: a record needs no header, it is there when it is counted. The kernel's own ring buffer takes a lock that
 * all CPUs share and two calls of helpers a record, 40 ns more than this.
 */
#ifndef TCPRISM_RING_H
#define TCPRISM_RING_H

#include "maps.h"

#define NO_LANE 0xffffffffU

#define NOW(field) (*(volatile typeof(field) *)&(field))

/* Keeps the compiler's stores in order; x86 keeps its own. Another architecture needs more here. */
#define IN_ORDER() asm volatile("" ::: "memory")

INLINE bool lane_has_room(const struct lane *lane)
{
	return NOW(lane->written) - NOW(lane->read) < lane->slots;
}

INLINE void lane_leave(struct lane *lane)
{
	IN_ORDER();
	__atomic_fetch_add(&lane->writers, -1, __ATOMIC_RELAXED);
}

/* Two that come at once may both go away again, but never both stay. 5.10 has no other atomic than the addition. */
INLINE bool lane_enter(struct lane *lane)
{
	if (!lane_has_room(lane))
		return false;
	__atomic_fetch_add(&lane->writers, 1, __ATOMIC_RELAXED);
	if (NOW(lane->writers) == 1 && lane_has_room(lane))
		return true;
	lane_leave(lane);
	return false;
}

#define MAPPED_ARRAY(name, value_type)                                                             \
	struct {                                                                                   \
		MAP_UINT(type, MAP_ARRAY);                                                         \
		MAP_UINT(max_entries, 1);                                                          \
		MAP_UINT(map_flags, MAP_MMAPABLE);                                                 \
		MAP_TYPE(key, u32);                                                                \
		MAP_TYPE(value, value_type);                                                       \
	} name SEC(".maps")

/*
 * User space sets the sizes before it loads; a ring that this run does not use has room for one record. To enter
 * another lane than the first is a global function: the verifier checks it once, and not with all that follows.
 */
#define RING(name, record_type)                                                                    \
	MAPPED_ARRAY(name, record_type);                                                           \
	MAPPED_ARRAY(name##_lanes, struct lane);                                                   \
	__attribute__((noinline)) u32 name##_other_lane(u32 first)                                 \
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

/* Messages: one ring a payload class. Losses and connections have rings that no flood can fill. */
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

/* Room for a record of the ring, in `*lane` until ring_submit(); NULL when there is none. */
#define RESERVE(ring, lane) ring_reserve(&(ring), &(ring##_lanes), ring##_other_lane, lane)

INLINE void ring_submit(struct lane *lane)
{
	u32 next = lane->next + 1;

	lane->next = next < lane->slots ? next : 0;
	IN_ORDER();
	NOW(lane->written) = lane->written + 1;
	lane_leave(lane);
}

#endif
