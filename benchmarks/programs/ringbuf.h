/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The kernel's own ring buffer, which others use (include/uapi/linux/bpf.h). */
#ifndef BENCHMARKS_RINGBUF_H
#define BENCHMARKS_RINGBUF_H

#include "tcprism/helpers.h"

enum { MAP_RINGBUF = 27 };
enum { RINGBUF_NO_WAKEUP = 1 };

static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;

#define RINGBUF(name, bytes)                                                                       \
	struct {                                                                                   \
		__uint(type, MAP_RINGBUF);                                                         \
		__uint(max_entries, bytes);                                                        \
	} name SEC(".maps")

#endif
