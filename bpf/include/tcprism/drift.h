/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Kernel drift: what was renamed, moved or added between 5.10 and 7.x. Each case asks for the field
 * or the type, never for a version, and cites the kernel that changed it.
 */
#ifndef TCPRISM_DRIFT_H
#define TCPRISM_DRIFT_H

#include "kernel.h"

struct iov_iter___before_5_14 { /* 8cd54c1c8480: type became iter_type */
	u32 type;
} CORE;

struct iov_iter___before_6_4 { /* de4f5fed3f23: iov became __iov */
	const struct iovec *iov;
} CORE;

/* The iterator's type without the direction bit that it carried before 5.14. */
INLINE u32 iter_type_of(const struct iov_iter *iter, enum reads reads)
{
	const struct iov_iter___before_5_14 *old = (const void *)iter;
	u32 type = 0;

	if (field_exists(iter->iter_type)) {
		u8 small = 0;

		READ(reads, small, iter->iter_type);
		return small;
	}
	READ(reads, type, old->type);
	return type & ~1U;
}

INLINE const struct iovec *iter_iovec_of(const struct iov_iter *iter, enum reads reads)
{
	const struct iov_iter___before_6_4 *old = (const void *)iter;
	const struct iovec *iovec = NULL;

	if (field_exists(iter->__iov))
		READ(reads, iovec, iter->__iov);
	else
		READ(reads, iovec, old->iov);
	return iovec;
}

/* ITER_UBUF came with 6.0 (fcb14cb1bdac). */
INLINE bool iter_is_flat(u32 type)
{
	return enum_value_exists(enum iter_type, ITER_UBUF) && type == enum_value(enum iter_type, ITER_UBUF);
}

struct tcp_sock___before_6_18 {
	u8 chrono_type : 2;
} CORE;

/* Bits of a byte became a byte of their own: how far a field must be shifted down tells which. */
INLINE u32 chrono_type_of(struct tcp_sock *tp, enum reads reads)
{
	struct tcp_sock___before_6_18 *old = (void *)tp;
	u8 type = 0;

	if (__builtin_preserve_field_info(old->chrono_type, 5) != 56)
		return READ_BITS(reads, old, chrono_type);
	READ(reads, type, tp->chrono_type);
	return type;
}

/* The tracepoint says whether the attempt failed since 6.16; before, it fired for successes alone. */
typedef void (*btf_trace_tcp_retransmit_skb)(void *, const struct sock *, const struct sk_buff *, int);

#define RETRANSMIT_HAS_ERROR() type_matches(btf_trace_tcp_retransmit_skb)

/* bpf_get_current_task_btf() came with 5.11. */
#define HAS_TASK_BTF() enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)

#endif
