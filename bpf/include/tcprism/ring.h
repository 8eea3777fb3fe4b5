/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Rings of records, in arrays that user space maps. A ring is split into lanes, and a lane admits one writer at a
 * time: a record needs no header, it is complete once it is counted. The kernel's own ring buffer needs a lock
 * that all CPUs share and two helper calls per record, 40 ns more than this.
 */
#ifndef TCPRISM_RING_H
#define TCPRISM_RING_H

#include "maps.h"

/* barrier() orders the compiler's stores; x86 orders its own. Other architectures need memory barriers here. */
#ifndef __TARGET_ARCH_x86
#error "the rings have no memory barriers, so they work on x86-64 only (-D__TARGET_ARCH_x86)"
#endif

/* Instead of the index of a lane: why there is none. */
#define LANES_BUSY 0xfffffffeU /* other writers were in all of them */
#define LANES_FULL 0xffffffffU /* at least one had no room */

enum admission {
	ADMITTED,
	LANE_BUSY,
	LANE_FULL,
};

INLINE bool lane_has_room(const struct lane *lane)
{
	return READ_ONCE(lane->written) - READ_ONCE(lane->read) < lane->slots;
}

INLINE void lane_leave(struct lane *lane)
{
	barrier();
	__atomic_fetch_add(&lane->writers, -1, __ATOMIC_RELAXED);
}

/* If two writers come at once, both may leave again, but never do both stay. Addition is the only atomic in 5.10. */
INLINE enum admission lane_enter(struct lane *lane)
{
	enum admission refused = LANE_FULL;

	if (!lane_has_room(lane))
		return LANE_FULL;
	__atomic_fetch_add(&lane->writers, 1, __ATOMIC_RELAXED);
	if (READ_ONCE(lane->writers) != 1)
		refused = LANE_BUSY;
	else if (lane_has_room(lane))
		return ADMITTED;
	lane_leave(lane);
	return refused;
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
	__noinline u32 name##_other_lane(u32 first, u32 none)                                      \
	{                                                                                          \
		for (u32 i = 1; i < LANES_TRIED; i++) {                                            \
			u32 index = (first + i) & config.last_lane;                                \
			struct lane *lane = bpf_map_lookup_elem(&name##_lanes, &index);            \
			enum admission answer = lane ? lane_enter(lane) : LANE_BUSY;               \
                                                                                                   \
			if (answer == ADMITTED)                                                    \
				return index;                                                      \
			if (answer == LANE_FULL)                                                   \
				none = LANES_FULL;                                                 \
		}                                                                                  \
		return none;                                                                       \
	}

/* Messages: one ring for each payload class. Losses and connections have their own rings, which user space empties first. */
#define PAYLOAD_RING(name, record_type, size)                                                      \
	struct name##_##size {                                                                     \
		record_type message;                                                               \
		u8 payload[size];                                                                  \
	};                                                                                         \
	RING(name##_##size, struct name##_##size)

/* A segment with its options and payload, for those who ask: the ring's name has the bytes behind the record. */
struct segment_40 {
	struct segment segment;
	u8 options[OPTIONS_MAX];
};
struct loss_40 {
	struct loss loss;
	u8 options[OPTIONS_MAX];
};

#define SEGMENT_RING(size)                                                                         \
	struct segment_40_##size {                                                                 \
		struct segment_40 head;                                                            \
		u8 payload[size];                                                                  \
	};                                                                                         \
	RING(segment_40_##size, struct segment_40_##size)

#define MESSAGE_RING(size) PAYLOAD_RING(message, struct message, size)
#define TLS_RING(size) PAYLOAD_RING(tls, struct tls_message, size)

RING(message_0, struct message)
PAYLOAD_CLASSES(MESSAGE_RING)
RING(tls_0, struct tls_message)
PAYLOAD_CLASSES(TLS_RING)
RING(delivery, struct delivery)
RING(segment, struct segment)
RING(segment_40, struct segment_40)
PAYLOAD_CLASSES(SEGMENT_RING)
RING(loss, struct loss)
RING(loss_40, struct loss_40)
RING(connection, struct connection_event)
RING(translation, struct translation)

typedef u32 (*other_lane_function)(u32 first, u32 none);

/* Counts the record as lost if there is no lane for it. */
INLINE struct lane *lane_claim(void *lanes, other_lane_function other_lane, struct counters *counters)
{
	u32 index = LANES_A_CPU * bpf_get_smp_processor_id() & config.last_lane;
	struct lane *lane = bpf_map_lookup_elem(lanes, &index);
	enum admission answer;

	if (!lane)
		return NULL;
	answer = lane_enter(lane);
	if (answer == ADMITTED)
		return lane;
	index = other_lane(index, answer == LANE_FULL ? LANES_FULL : LANES_BUSY);
	lane = bpf_map_lookup_elem(lanes, &index);
	if (lane)
		return lane;
	if (index == LANES_BUSY)
		COUNT(counters->ring_busy, 1);
	else
		COUNT(counters->ring_full, 1);
	return NULL;
}

INLINE void *ring_reserve(void *records, void *lanes, other_lane_function other_lane, struct lane **lane,
			  struct counters *counters)
{
	void *record;
	u32 index;

	*lane = lane_claim(lanes, other_lane, counters);
	if (!*lane)
		return NULL;
	index = (*lane)->first + (*lane)->next;
	record = bpf_map_lookup_elem(records, &index);
	if (!record) {
		lane_leave(*lane);
		COUNT(counters->ring_full, 1);
	}
	return record;
}

/* Returns room for a record, in `*lane` until ring_submit(), or NULL when there is none, which is then counted. */
#define RESERVE(ring, lane, counters) ring_reserve(&(ring), &(ring##_lanes), ring##_other_lane, lane, counters)

INLINE void ring_submit(struct lane *lane)
{
	u32 next = lane->next + 1;

	lane->next = next < lane->slots ? next : 0;
	barrier();
	WRITE_ONCE(lane->written, lane->written + 1);
	lane_leave(lane);
}

#endif
