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
		to->base = (u64)base + offset;
	} else if (type == enum_value(enum iter_type, ITER_IOVEC)) {
		READ(reads, segments, iter->nr_segs);
		to->shape = BUFFER_IOVEC;
		to->base = reads == READS_BTF ? address_of(iter_iovec_of(iter, reads)) : (u64)iter_iovec_of(iter, reads);
		to->segments = segments;
		to->offset = offset;
	} else {
		bool kernel = type == enum_value(enum iter_type, ITER_KVEC);

		buffer_none(to, kernel ? PAYLOAD_KERNEL : PAYLOAD_SPLICED);
	}
}

INLINE long read_segment(struct iovec *to, const struct buffer *from, u32 index)
{
	struct compat_iovec compat = {};
	long error;

	if (from->shape == BUFFER_IOVEC)
		return bpf_probe_read_kernel(to, sizeof(*to), (void *)(from->base + index * sizeof(*to)));
	if (from->shape == BUFFER_USER_IOVEC)
		return bpf_probe_read_user(to, sizeof(*to), (void *)(from->base + index * sizeof(*to)));
	error = bpf_probe_read_user(&compat, sizeof(compat), (void *)(from->base + index * sizeof(compat)));
	to->iov_base = (void *)(u64)compat.iov_base;
	to->iov_len = compat.iov_len;
	return error;
}

/* One per direction: two programs that share a CPU never share an entry, and one does not nest in itself. */
struct gathered {
	u8 bytes[2 * PAYLOAD_MAX]; /* twice, so that the verifier can see that a copy ends inside */
};

struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 2);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gathered);
} gathering SEC(".maps");

/* Copies up to `want` bytes out of an iovec's segments; returns how many. */
INLINE u32 gather(struct gathered *to, const struct buffer *from, u32 want)
{
	u32 done = 0, offset = from->offset;

	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		struct iovec segment = {};
		u64 length;

		if (i >= from->segments || done >= want || done >= PAYLOAD_MAX)
			break;
		if (read_segment(&segment, from, i))
			break;
		length = segment.iov_len - offset;
		if (length > want - done)
			length = want - done;
		asm volatile("" : "+r"(length));
		if (length > PAYLOAD_MAX)
			length = PAYLOAD_MAX;
		asm volatile("" : "+r"(done));
		if (done >= PAYLOAD_MAX)
			break;
		if (bpf_probe_read_user(to->bytes + done, length, segment.iov_base + offset))
			break;
		done += length;
		offset = 0;
	}
	return done;
}

/* What the caller asked for; unknown when it has more segments than we look at. */
INLINE u32 buffer_length(const struct buffer *from)
{
	u64 total = 0;

	if (from->segments > SEGMENTS_MAX)
		return REQUESTED_UNKNOWN;
	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		struct iovec segment = {};

		if (i >= from->segments)
			break;
		if (read_segment(&segment, from, i))
			return REQUESTED_UNKNOWN;
		total += segment.iov_len;
	}
	return total;
}

#endif
