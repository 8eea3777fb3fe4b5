/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Programs at uprobes. Since 6.13 (a76ab5731e32) the kernel gives those of this type a stack for each CPU, the "private
 * stack", if they need 64 bytes or more, as if none could run twice there at once. Those at uprobes can: they may be
 * preempted since 6.0 (8c7dcb84e3b7), and another thread then runs on the same stack. That mixes up two calls, and can
 * crash the kernel where its preemption model is full or lazy (the only ones since 7.0). A program with a tail call has no
 * private stack.
 */
#ifndef TCPRISM_UPROBE_H
#define TCPRISM_UPROBE_H

#include "helpers.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} tls_no_program SEC(".maps");

/* Begins a program, as SEC(section) int name(struct pt_regs *ctx) does. Nothing is in the array, so that it goes on. */
#define UPROBE_IN(section, name)                                                                   \
	INLINE int name##_on_kernel_stack(struct pt_regs *ctx);                                    \
	SEC(section) int name(struct pt_regs *ctx)                                                 \
	{                                                                                          \
		bpf_tail_call(ctx, &tls_no_program, 0);                                            \
		return name##_on_kernel_stack(ctx);                                                \
	}                                                                                          \
	INLINE int name##_on_kernel_stack(struct pt_regs *ctx)

#define UPROBE(name) UPROBE_IN("uprobe", name)
#define URETPROBE(name) UPROBE_IN("uretprobe", name)

#endif
