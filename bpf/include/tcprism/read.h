/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Reading the kernel's memory. */
#ifndef TCPRISM_READ_H
#define TCPRISM_READ_H

#include "helpers.h"

/*
 * How a program may read kernel memory. The verifier knows the types of a BTF program's arguments (fentry, tp_btf),
 * so plain loads will do; a kprobe has only numbers. Shared functions take this as a constant and are inlined, so
 * each program compiles to one of the two.
 */
enum reads {
	READS_BTF,
	READS_PROBED,
};

#define READ(reads, to, from)                                                                      \
	do {                                                                                       \
		if ((reads) == READS_BTF)                                                          \
			(to) = (from);                                                             \
		else                                                                               \
			bpf_probe_read_kernel(&(to), sizeof(to), &(from));                         \
	} while (0)

/*
 * A bit field, wherever this kernel has it. Without the barrier the compiler takes the offset from the outer
 * structure and adds that structure's offset again.
 */
#define READ_BITS(reads, holder, field)                                                            \
	({                                                                                         \
		const typeof(*(holder)) *holder_ = (holder);                                       \
		barrier_var(holder_);                                                              \
		const u8 *at_ = (const u8 *)holder_ + __builtin_preserve_field_info(holder_->field, BPF_FIELD_BYTE_OFFSET); \
		u64 bits_ = 0;                                                                     \
		u32 size_ = __builtin_preserve_field_info(holder_->field, BPF_FIELD_BYTE_SIZE);    \
		if ((reads) == READS_PROBED)                                                       \
			bpf_probe_read_kernel(&bits_, size_ & 7, at_);                             \
		else if (size_ == 1)                                                               \
			bits_ = *at_;                                                              \
		else if (size_ == 2)                                                               \
			bits_ = *(const u16 *)at_;                                                 \
		else                                                                               \
			bits_ = *(const u32 *)at_;                                                 \
		bits_ <<= __builtin_preserve_field_info(holder_->field, BPF_FIELD_LSHIFT_U64);     \
		bits_ >> __builtin_preserve_field_info(holder_->field, BPF_FIELD_RSHIFT_U64);      \
	})

/*
 * A typed pointer as a plain number, for what the verifier does not allow with the pointer itself: arithmetic, or
 * reads of what it has no type for. To store or compare it, a cast is enough.
 */
INLINE u64 untyped(const void *pointer)
{
	u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

/* A null check that holds everywhere: new verifiers insist on the first test, old ones optimize it away. */
INLINE bool is_there(const void *pointer)
{
	return pointer && untyped(pointer);
}

#endif
