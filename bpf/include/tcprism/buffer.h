/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where a message's bytes lie in the caller's memory, and how to copy the first of them. */
#ifndef TCPRISM_BUFFER_H
#define TCPRISM_BUFFER_H

#include "drift.h"
#include "maps.h"

#define SEGMENTS_MAX 128 /* of an iovec; bytes in later ones count as cut */

enum buffer_shape {
	BUFFER_FLAT,
	BUFFER_IOVEC,        /* the kernel's copy of the iovec */
	BUFFER_USER_IOVEC,   /* the caller's */
	BUFFER_COMPAT_IOVEC, /* a 32-bit caller's */
	BUFFER_NONE,
};

struct buffer {
	u64 base;
	u32 segments;
	u32 offset; /* into the buffer or its segments */
	u32 shape;
	u32 unavailable; /* payload_reason */
};

struct compat_iovec {
	u32 iov_base, iov_len;
};

INLINE void buffer_none(struct buffer *to, u32 reason)
{
	*to = (struct buffer){ .shape = BUFFER_NONE, .unavailable = reason };
}

/* The iterator must not have advanced yet. */
INLINE void buffer_from_iter(struct buffer *to, const struct iov_iter *iter, enum reads reads)
{
	u32 type = iter_type_of(iter, reads);
	u64 offset = 0, segments = 0;
	void *base = NULL;

	READ(reads, offset, iter->iov_offset);
	if (iter_is_flat(type)) {
		READ(reads, base, iter->ubuf);
		to->shape = BUFFER_FLAT;
		to->base = (u64)base;
		to->offset = offset;
	} else if (type == bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		READ(reads, segments, iter->nr_segs);
		to->shape = BUFFER_IOVEC;
		to->base = (u64)iter_iovec_of(iter, reads);
		to->segments = segments;
		to->offset = offset;
	} else {
		bool kernel = type == bpf_core_enum_value(enum iter_type, ITER_KVEC);

		buffer_none(to, kernel ? PAYLOAD_KERNEL : PAYLOAD_SPLICED);
	}
}

/*
 * Where the bytes of an iovec are gathered until it is known which ring they fit. Like a lane, it admits one program
 * at a time. A per-CPU buffer would not do: programs in task context may be preempted (fentry).
 */
struct gathering {
	u32 writers;
	u32 index;     /* its own */
	u32 bytes;     /* copied so far */
	u32 requested; /* in all segments, or unknown */
	u32 offset;    /* into the next segments */
	u32 faulted;   /* nothing can be copied any more */
	u8 payload[2 * PAYLOAD_MAX]; /* twice, so that the verifier sees that each copy ends inside */
};

/* As many as a ring has lanes: user space says how many. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct gathering);
} gatherings SEC(".maps");

#define GATHERINGS_BUSY 0xffffffffU

INLINE void gathering_leave(struct gathering *gathering)
{
	barrier();
	__atomic_fetch_add(&gathering->writers, -1, __ATOMIC_RELAXED);
}

/* Returns the index of a buffer that no other program is in. */
__noinline u32 gathering_enter(u32 first)
{
	for (u32 i = 0; i < LANES_TRIED; i++) {
		u32 index = (first + i) & config.last_lane;
		struct gathering *gathering = bpf_map_lookup_elem(&gatherings, &index);

		if (!gathering)
			break;
		__atomic_fetch_add(&gathering->writers, 1, __ATOMIC_RELAXED);
		if (READ_ONCE(gathering->writers) == 1)
			return index;
		gathering_leave(gathering);
	}
	return GATHERINGS_BUSY;
}

INLINE long read_segment(struct iovec *to, u64 base, u32 shape, u32 index)
{
	struct compat_iovec compat = {};
	long error;

	if (shape == BUFFER_IOVEC)
		return bpf_probe_read_kernel(to, sizeof(*to), (void *)(base + index * sizeof(*to)));
	if (shape == BUFFER_USER_IOVEC)
		return bpf_probe_read_user(to, sizeof(*to), (void *)(base + index * sizeof(*to)));
	error = bpf_probe_read_user(&compat, sizeof(compat), (void *)(base + index * sizeof(compat)));
	to->iov_base = (void *)(u64)compat.iov_base;
	to->iov_len = compat.iov_len;
	return error;
}

/*
 * One segment of an iovec: adds up what the caller asked for and copies what is still wanted. Returns 0, or 1 when
 * the segment's address and length cannot be read. This and the loop around it are global functions, which the
 * verifier checks once, not again for each path that leads there. In 5.10 these take only numbers.
 */
__noinline int gather_segment(u32 gathering, u64 base, u32 shape, u32 index, u32 want)
{
	struct gathering *to = bpf_map_lookup_elem(&gatherings, &gathering);
	struct iovec segment = {};
	u32 done, skipped;
	u64 size;

	if (!to || read_segment(&segment, base, shape, index))
		return 1;
	skipped = MIN(to->offset, segment.iov_len);
	segment.iov_base += skipped;
	segment.iov_len -= skipped;
	to->offset -= skipped;
	to->requested += segment.iov_len;
	done = to->bytes;
	if (!config.payload_limit) /* the verifier takes out what follows, though it does not know `want` here */
		return 0;
	if (to->faulted || done >= want || done >= PAYLOAD_MAX)
		return 0;
	size = MIN(segment.iov_len, want - done);
	barrier_var(size);
	if (size > PAYLOAD_MAX)
		size = PAYLOAD_MAX;
	if (bpf_probe_read_user(to->payload + done, size, segment.iov_base))
		to->faulted = true;
	else
		to->bytes = done + size;
	return 0;
}

/* Returns how many segments were read. */
__noinline int gather_segments(u32 gathering, u64 base, u32 shape, u32 segments, u32 want)
{
	u32 i;

	for (i = 0; i < SEGMENTS_MAX; i++) {
		if (i >= segments || gather_segment(gathering, base, shape, i, want))
			break;
	}
	return i;
}

/*
 * Walks an iovec and copies its first `want` bytes. Returns their address, valid until gathering_leave(), or NULL
 * if other programs are in all buffers that were tried.
 */
INLINE struct gathering *gather(const struct buffer *from, u32 want)
{
	u32 index = gathering_enter(LANES_A_CPU * bpf_get_smp_processor_id());
	struct gathering *gathering = bpf_map_lookup_elem(&gatherings, &index);

	if (!gathering)
		return NULL;
	gathering->index = index;
	gathering->bytes = 0;
	gathering->requested = 0;
	gathering->offset = from->offset;
	gathering->faulted = false;
	if ((u32)gather_segments(index, from->base, from->shape, from->segments, want) < from->segments)
		gathering->requested = REQUESTED_UNKNOWN;
	return gathering;
}

#endif
