/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The buffer of the system call that the current thread is in, read from its saved registers: this is how the
 * tracepoint hooks, which get only a socket and a length, find the bytes. For x86-64 and its 32-bit callers; the
 * numbers are user-space interface (asm/unistd_64.h, unistd_32.h).
 */
#ifndef TCPRISM_SYSCALL_H
#define TCPRISM_SYSCALL_H

#include "call.h"

#define X32_BIT 0x40000000U

enum call_shape {
	CALL_UNKNOWN,
	CALL_FLAT,    /* fd, buffer, length */
	CALL_SENDTO,  /* fd, buffer, length, flags */
	CALL_IOVEC,   /* fd, iovec, count */
	CALL_MSGHDR,  /* fd, msghdr, flags */
	CALL_SENDMMSG, /* fd, mmsghdr array, count, flags */
	CALL_RECVMMSG, /* the same, timeout */
	CALL_SOCKETCALL,
	CALL_SPLICE,
	CALL_IO_URING,
};

struct arguments {
	u64 argument[5];
};

struct user_msghdr {
	u64 name;
	u64 name_length;
	u64 iov;
	u64 iov_count;
	u64 control, control_length, flags;
};

struct compat_msghdr {
	u32 name, name_length, iov, iov_count, control, control_length, flags;
};

#define MMSGHDR_SIZE 64
#define COMPAT_MMSGHDR_SIZE 32

/* A recvmmsg or sendmmsg that the thread is in: which of its messages comes next. */
struct batch_call {
	u64 vector; /* 0: none */
	u32 next;
	u32 count;
	u64 since_ns; /* on_since() */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct batch_call);
} batches SEC(".maps");

INLINE struct batch_call *current_batch(bool create)
{
	return bpf_task_storage_get(&batches, bpf_get_current_task_btf(), NULL, create);
}

INLINE void batch_end(void)
{
	struct batch_call *batch = current_batch(false);

	if (batch)
		batch->vector = 0;
}

INLINE enum call_shape shape_of(u32 number)
{
	switch (number) {
	case 0: case 1: case 45: return CALL_FLAT; /* read write recvfrom */
	case 44: return CALL_SENDTO;
	case 19: case 20: case 327: case 328: return CALL_IOVEC; /* readv writev preadv2 pwritev2 */
	case 46: case 47: return CALL_MSGHDR; /* sendmsg recvmsg */
	case 307: return CALL_SENDMMSG;
	case 299: return CALL_RECVMMSG;
	case 40: case 275: return CALL_SPLICE; /* sendfile splice */
	case 426: return CALL_IO_URING; /* io_uring_enter */
	default: return CALL_UNKNOWN;
	}
}

INLINE enum call_shape compat_shape_of(u32 number)
{
	switch (number) {
	case 3: case 4: case 371: return CALL_FLAT;
	case 369: return CALL_SENDTO;
	case 145: case 146: case 378: case 379: return CALL_IOVEC;
	case 370: case 372: return CALL_MSGHDR;
	case 345: return CALL_SENDMMSG;
	case 337: case 417: return CALL_RECVMMSG; /* 417: recvmmsg_time64 */
	case 102: return CALL_SOCKETCALL;
	case 187: case 239: case 313: return CALL_SPLICE;
	case 426: return CALL_IO_URING;
	default: return CALL_UNKNOWN;
	}
}

/* The functions of socketcall(2), linux/net.h. */
INLINE enum call_shape socketcall_shape_of(u32 function)
{
	switch (function) {
	case 10: case 12: return CALL_FLAT;
	case 9: case 11: return CALL_SENDTO;
	case 16: case 17: return CALL_MSGHDR;
	case 20: return CALL_SENDMMSG;
	case 19: return CALL_RECVMMSG;
	default: return CALL_UNKNOWN;
	}
}

INLINE enum call_shape read_socketcall(struct arguments *to)
{
	u32 arguments[5] = {};
	u32 function = to->argument[0];

	bpf_probe_read_user(arguments, sizeof(arguments), (void *)to->argument[1]);
	for (u32 i = 0; i < 5; i++)
		to->argument[i] = arguments[i];
	return socketcall_shape_of(function);
}

u64 registers_offset; /* from a task's stack to its registers: the same for all, set before any hook is attached */

/* The helper costs 15 to 30 ns. */
INLINE struct pt_regs *registers_of(struct task_struct *task)
{
	if (!config.can_cast)
		return bpf_task_pt_regs(task);
	return bpf_rdonly_cast((void *)((u64)task->stack + registers_offset), bpf_core_type_id_kernel(struct pt_regs));
}

INLINE enum call_shape read_call(struct arguments *to, const struct pt_regs *regs)
{
	to->argument[1] = regs->si;
	to->argument[2] = regs->dx;
	to->argument[3] = regs->r10;
	to->argument[4] = regs->r8;
	return shape_of(regs->orig_ax & ~X32_BIT);
}

INLINE enum call_shape read_compat_call(struct arguments *to, const struct pt_regs *regs)
{
	u32 number = regs->orig_ax;

	to->argument[0] = lower_32_bits(regs->bx);
	to->argument[1] = lower_32_bits(regs->cx);
	to->argument[2] = lower_32_bits(regs->dx);
	to->argument[3] = lower_32_bits(regs->si);
	to->argument[4] = lower_32_bits(regs->di);
	if (compat_shape_of(number) == CALL_SOCKETCALL)
		return read_socketcall(to);
	return compat_shape_of(number);
}

INLINE void buffer_flat(struct buffer *to, u64 base)
{
	to->shape = BUFFER_FLAT;
	to->base = base;
	to->offset = 0;
}

INLINE void buffer_from_vector(struct buffer *to, u64 base, u64 segments, bool compat)
{
	to->shape = compat ? BUFFER_COMPAT_IOVEC : BUFFER_USER_IOVEC;
	to->base = base;
	to->segments = segments;
	to->offset = 0;
}

INLINE void buffer_from_msghdr(struct buffer *to, u64 header, bool compat)
{
	struct compat_msghdr small = {};
	struct user_msghdr large = {};
	long error;

	if (compat)
		error = bpf_probe_read_user(&small, sizeof(small), (void *)header);
	else
		error = bpf_probe_read_user(&large, sizeof(large), (void *)header);
	if (error)
		buffer_none(to, PAYLOAD_FAULT);
	else if (compat)
		buffer_from_vector(to, small.iov, small.iov_count, true);
	else
		buffer_from_vector(to, large.iov, large.iov_count, false);
}

/*
 * No register tells which message of a batch this is, so they are counted. A batch ends with its last message or with
 * an error, which the hooks see, or with a timeout, which they do not.
 */
INLINE void buffer_from_batch(struct buffer *to, const struct arguments *a, bool compat, bool failed, bool timeout)
{
	struct batch_call *batch = current_batch(true);
	u64 since = on_since();
	u32 index;

	if (!batch || timeout) {
		buffer_none(to, PAYLOAD_SYSCALL);
		return;
	}
	if (batch->vector != a->argument[1] || batch->count != (u32)a->argument[2] || batch->since_ns != since)
		batch->next = 0;
	batch->since_ns = since;
	batch->vector = a->argument[1];
	batch->count = a->argument[2];
	index = batch->next++;
	if (failed || batch->next >= batch->count)
		batch->vector = 0;
	buffer_from_msghdr(to, a->argument[1] + index * (compat ? COMPAT_MMSGHDR_SIZE : MMSGHDR_SIZE), compat);
}

/* The flags of a send: its tracepoint lacks them, unlike that of recv. */
INLINE u32 send_flags_of(const struct arguments *a, enum call_shape shape)
{
	if (shape == CALL_SENDTO || shape == CALL_SENDMMSG)
		return a->argument[3];
	return shape == CALL_MSGHDR ? a->argument[2] : 0;
}

/*
 * For all calls but the commonest. Leaves `requested` alone if only the segments of the buffer can tell. A global
 * function: the verifier checks it once, and what follows it once, not again for each shape of call. It takes a
 * pointer, which 5.10 would refuse, but no kernel before 6.3 loads it.
 */
__noinline int buffer_from_other_syscall(struct call *call, u32 failed)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct arguments a = {};
	struct pt_regs *regs = registers_of(task);
	bool compat = task->thread_info.status & TS_COMPAT;
	enum call_shape shape = compat ? read_compat_call(&a, regs) : read_call(&a, regs);

	if (!call)
		return 0;
	call->flags = send_flags_of(&a, shape);
	if (shape == CALL_FLAT || shape == CALL_SENDTO) {
		buffer_flat(&call->buffer, a.argument[1]);
		call->requested = a.argument[2];
	} else if (shape == CALL_IOVEC) {
		buffer_from_vector(&call->buffer, a.argument[1], a.argument[2], compat);
	} else if (shape == CALL_MSGHDR) {
		buffer_from_msghdr(&call->buffer, a.argument[1], compat);
	} else if (shape == CALL_SENDMMSG) {
		buffer_from_batch(&call->buffer, &a, compat, failed, false);
	} else if (shape == CALL_RECVMMSG) {
		buffer_from_batch(&call->buffer, &a, compat, failed, a.argument[4]);
	} else if (shape == CALL_SPLICE) {
		buffer_none(&call->buffer, PAYLOAD_SPLICED);
	} else {
		buffer_none(&call->buffer, shape == CALL_IO_URING ? PAYLOAD_IO_URING : PAYLOAD_SYSCALL);
	}
	return 0;
}

/* Finds out the buffer, and the flags of a send. */
INLINE void buffer_from_syscall(struct call *call, struct task_struct *task, bool failed)
{
	struct pt_regs *regs;
	enum call_shape shape;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER)) {
		buffer_none(&call->buffer, task->flags & PF_KTHREAD ? PAYLOAD_KERNEL : PAYLOAD_IO_URING);
		return;
	}
	regs = registers_of(task);
	shape = task->thread_info.status & TS_COMPAT ? CALL_UNKNOWN : shape_of(regs->orig_ax);
	if (shape != CALL_FLAT && shape != CALL_SENDTO) {
		buffer_from_other_syscall(call, failed);
		return;
	}
	buffer_flat(&call->buffer, regs->si); /* nearly every call: read only what it needs */
	call->requested = regs->dx;
	call->flags = shape == CALL_SENDTO ? regs->r10 : 0;
}

#endif
