/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The BPF helpers, map types and compiler builtins in use. Numbers are the kernel's interface
 * (include/uapi/linux/bpf.h); names are the kernel's and libbpf's.
 */
#ifndef TCPRISM_HELPERS_H
#define TCPRISM_HELPERS_H

#include "events.h"

typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define __noinline __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))
#define CORE __attribute__((preserve_access_index))

/* How libbpf reads a map's definition out of BTF. */
#define __uint(name, value) int(*name)[value]
#define __type(name, type) type *name

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum { BPF_F_NO_PREALLOC = 1, BPF_F_CLONE = 1 << 9, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_RB_FORCE_WAKEUP = 2 };

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/* For the compiler only: it moves no load or store across. */
#define barrier() asm volatile("" ::: "memory")

/* Makes the compiler forget what it knows about a variable, so that it keeps the checks that the verifier needs. */
#define barrier_var(variable) asm volatile("" : "+r"(variable))

/*
 * Bounds a variable of 64 bits in the register that is used next. A compiler may compare one copy of it and use another,
 * and the verifier of 6.1 does not know that both are the same.
 */
#define AT_MOST(variable, limit)                                                                   \
	asm volatile("if %0 <= %1 goto +1; %0 = %1" : "+r"(variable) : "i"(limit))

struct seq_file;
struct sock;
struct bpf_local_storage;
struct task_struct;
struct pt_regs;
struct tcp_sock;
struct tcp_ulp_ops;
struct io_uring_task;
struct socket;
struct file;
struct __sk_buff;
struct sock_common;
struct bpf_sock_tuple;

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_tail_call)(void *ctx, void *programs, u32 index) = (void *)12;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *buffer, u32 size) = (void *)16;
static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 length) = (void *)26;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_current_task_under_cgroup)(void *map, u32 index) = (void *)37;
static u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_sk_release)(void *sock) = (void *)86;
static struct sock_common *(*bpf_skc_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, u32 size, u64 netns, u64 flags) = (void *)99;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;
static long (*bpf_sk_storage_delete)(void *map, void *sk) = (void *)108;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*bpf_jiffies64)(void) = (void *)118;
static long (*bpf_seq_write)(struct seq_file *seq, const void *data, u32 length) = (void *)127;
static long (*bpf_ringbuf_output)(void *ringbuf, void *data, u64 size, u64 flags) = (void *)130;
static struct tcp_sock *(*bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static struct socket *(*bpf_sock_from_file)(struct file *file) = (void *)162;
static struct pt_regs *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

extern void *bpf_rdonly_cast(const void *object, u32 type) __ksym __weak;

/* CO-RE: questions that libbpf answers as it loads the object (clang builtins; names as in bpf_core_read.h). */
enum bpf_field_info_kind {
	BPF_FIELD_BYTE_OFFSET = 0,
	BPF_FIELD_BYTE_SIZE = 1,
	BPF_FIELD_EXISTS = 2,
	BPF_FIELD_LSHIFT_U64 = 4,
	BPF_FIELD_RSHIFT_U64 = 5,
};

#define bpf_core_field_offset(field) __builtin_preserve_field_info(field, BPF_FIELD_BYTE_OFFSET)
#define bpf_core_field_exists(field) __builtin_preserve_field_info(field, BPF_FIELD_EXISTS)
#define bpf_core_enum_value(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 1)
#define bpf_core_enum_value_exists(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)
#define bpf_core_type_id_kernel(type) __builtin_btf_type_id(*(typeof(type) *)0, 1)
#define bpf_core_type_size(type) __builtin_preserve_type_info(*(typeof(type) *)0, 1)
#define bpf_core_type_matches(type) __builtin_preserve_type_info(*(typeof(type) *)0, 2)

#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_ntohl(x) __builtin_bswap32(x)

/* Sequence numbers are compared modulo 2 ** 32. */
INLINE bool after(u32 a, u32 b)
{
	return (s32)(b - a) < 0;
}

#define lower_32_bits(x) ((u32)(x))
#define upper_32_bits(x) ((u32)((x) >> 32))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/*
 * Atomic although counters are per CPU: softirq interrupts process context. Relaxed: any other order compiles to
 * an instruction that kernels before 5.12 do not know.
 */
#define COUNT(counter, n) __atomic_fetch_add(&(counter), n, __ATOMIC_RELAXED)

/* A context slot by constant offset: from C the compiler may make one load at a variable offset, which is refused. */
#define SLOT(ctx, index)                                                                           \
	({                                                                                         \
		u64 value_;                                                                        \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(ctx), "i"((index) * 8)); \
		value_;                                                                            \
	})

#endif
