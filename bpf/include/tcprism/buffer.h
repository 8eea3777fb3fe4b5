/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where a message's bytes lie in the caller's memory, and how to gather the first of them. */
#ifndef TCPRISM_BUFFER_H
#define TCPRISM_BUFFER_H

#include "drift.h"
#include "maps.h"

#define SEGMENTS_MAX 64 /* of an iovec; what lies behind them is counted as cut */

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
	u32 offset; /* into the first segment */
	u32 shape;
	u32 unavailable; /* payload_reason */
};

struct compat_iovec {
	u32 iov_base, iov_len;
};

INLINE void buffer_none(struct buffer *to, u32 reason)
{
	to->shape = BUFFER_NONE;
	to->unavailable = reason;
}

/* The iterator must not have moved yet. */
INLINE void buffer_from_iter(struct buffer *to, const struct iov_iter *iter, enum reads reads)
{
	u32 type = iter_type_of(iter, reads);
	u64 offset = 0, segments = 0;
	void *base = NULL;

	READ(reads, offset, iter->iov_offset);
	if (iter_is_flat(type)) {
		READ(reads, base, iter->ubuf);
		to->shape = BUFFER_FLAT;
		to->base = address_of(base, reads) + offset;
	} else if (type == enum_value(enum iter_type, ITER_IOVEC)) {
		READ(reads, segments, iter->nr_segs);
		to->shape = BUFFER_IOVEC;
		to->base = address_of(iter_iovec_of(iter, reads), reads);
		to->segments = segments;
		to->offset = offset;
	} else {
		bool kernel = type == enum_value(enum iter_type, ITER_KVEC);

		buffer_none(to, kernel ? PAYLOAD_KERNEL : PAYLOAD_SPLICED);
	}
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

/* One per direction: two programs that share a CPU never share an entry, and one does not nest in itself. */
struct gathered {
	u8 bytes[2 * PAYLOAD_MAX]; /* twice, so that the verifier can see that a copy ends inside */
};

#define PER_DIRECTION(name, value_type)                                                            \
	struct {                                                                                   \
		MAP_UINT(type, MAP_PERCPU_ARRAY);                                                  \
		MAP_UINT(max_entries, 2);                                                          \
		MAP_TYPE(key, u32);                                                                \
		MAP_TYPE(value, value_type);                                                       \
	} name SEC(".maps")

PER_DIRECTION(gathering, struct gathered);
/* In a map, not in a register: the verifier then has one state per round and not one per history. */
PER_DIRECTION(gathered_length, u32);

/*
 * Copies up to `want` bytes out of an iovec's segments; returns how many. Global functions, which
 * the verifier checks once and on their own; on 5.10 they take numbers only.
 */
__attribute__((noinline)) u32 gather(u32 direction, u64 base, u32 segments_shape, u32 offset, u32 want)
{
	struct gathered *to = bpf_map_lookup_elem(&gathering, &direction);
	u32 *total = bpf_map_lookup_elem(&gathered_length, &direction);
	u32 segments = segments_shape >> 8, shape = segments_shape & 0xff;

	if (!to || !total)
		return 0;
	*total = 0;
	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		struct iovec segment = {};
		u32 done = *(volatile u32 *)total;
		u64 length;

		if (i >= segments || done >= want || done >= PAYLOAD_MAX)
			break;
		if (read_segment(&segment, base, shape, i))
			break;
		length = MIN(segment.iov_len - offset, want - done);
		asm volatile("" : "+r"(length));
		if (length > PAYLOAD_MAX)
			length = PAYLOAD_MAX;
		if (bpf_probe_read_user(to->bytes + done, length, segment.iov_base + offset))
			break;
		*(volatile u32 *)total = done + length;
		offset = 0;
	}
	return *(volatile u32 *)total;
}

/* What the caller asked for; unknown when it has more segments than we look at. */
__attribute__((noinline)) u32 vector_length(u64 base, u32 segments, u32 shape)
{
	u64 total = 0;

	if (segments > SEGMENTS_MAX)
		return REQUESTED_UNKNOWN;
	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		struct iovec segment = {};

		if (i >= segments)
			break;
		if (read_segment(&segment, base, shape, i))
			return REQUESTED_UNKNOWN;
		total += segment.iov_len;
	}
	return total;
}

#endif
