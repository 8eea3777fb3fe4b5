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
	u32 offset; /* into the buffer or its first segment */
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

/* One per direction: two programs that share a CPU never share an entry, and one does not nest in itself. */
struct gathered {
	u8 bytes[2 * PAYLOAD_MAX]; /* twice, so that the verifier sees that each copy ends inside */
};

#define PER_DIRECTION(name, value_type)                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 2);                                                            \
		__type(key, u32);                                                                  \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

PER_DIRECTION(gathered_bytes, struct gathered);

struct gathering {
	u32 bytes;     /* copied so far */
	u32 requested; /* in all segments, or unknown */
	u32 offset;    /* into the next segment */
	u32 reserved;
};

PER_DIRECTION(gathering, struct gathering);

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
 * it cannot be read. This and the loop round it are global functions, which the verifier checks once and by
 * themselves, not again for each path that leads there. In 5.10 these take numbers only.
 */
__noinline int gather_segment(u32 direction, u64 base, u32 shape, u32 index, u32 want)
{
	struct gathered *to = bpf_map_lookup_elem(&gathered_bytes, &direction);
	struct gathering *state = bpf_map_lookup_elem(&gathering, &direction);
	struct iovec segment = {};
	u32 done;
	u64 size;

	if (!to || !state || read_segment(&segment, base, shape, index))
		return 1;
	segment.iov_base += state->offset;
	segment.iov_len -= state->offset;
	state->offset = 0;
	state->requested += segment.iov_len;
	done = state->bytes;
	if (done >= want || done >= PAYLOAD_MAX)
		return 0;
	size = MIN(segment.iov_len, want - done);
	barrier_var(size);
	if (size > PAYLOAD_MAX)
		size = PAYLOAD_MAX;
	if (bpf_probe_read_user(to->bytes + done, size, segment.iov_base))
		return 1;
	state->bytes = done + size;
	return 0;
}

/* Returns how many segments were read. */
__noinline int gather_segments(u32 direction, u64 base, u32 shape, u32 segments, u32 want)
{
	u32 i;

	for (i = 0; i < SEGMENTS_MAX; i++) {
		if (i >= segments || gather_segment(direction, base, shape, i, want))
			break;
	}
	return i;
}

/* Walks an iovec and copies its first `want` bytes. */
INLINE void gather(struct gathering *state, u32 direction, const struct buffer *from, u32 want)
{
	state->bytes = 0;
	state->requested = 0;
	state->offset = from->offset;
	gather_segments(direction, from->base, from->shape, from->segments, want);
	if (from->segments > SEGMENTS_MAX)
		state->requested = REQUESTED_UNKNOWN;
}

#endif
