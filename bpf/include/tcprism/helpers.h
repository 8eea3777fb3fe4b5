/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The BPF helpers and map declarations in use. Helper numbers, map types and flags are kernel
 * interface (include/uapi/linux/bpf.h); the map and SEC conventions are libbpf's.
 */
#ifndef TCPRISM_HELPERS_H
#define TCPRISM_HELPERS_H

#include "events.h"

typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define KERNEL_FUNCTION extern __attribute__((section(".ksyms"), weak))
#define INLINE static inline __attribute__((always_inline))
#define CORE __attribute__((preserve_access_index))

#define MAP_UINT(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_CGROUP_ARRAY = 8,
	MAP_LRU_HASH = 9,
	MAP_LPM_TRIE = 11,
	MAP_SK_STORAGE = 24,
	MAP_TASK_STORAGE = 29,
};
enum { MAP_NO_PREALLOC = 1, MAP_CLONE = 1 << 9, MAP_MMAPABLE = 1 << 10 };
enum { STORAGE_CREATE = 1 };

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

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *buffer, u32 size) = (void *)16;
static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 length) = (void *)26;
static long (*bpf_current_task_under_cgroup)(void *map, u32 index) = (void *)37;
static u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;
static long (*bpf_sk_storage_delete)(void *map, void *sk) = (void *)108;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*bpf_jiffies64)(void) = (void *)118;
static long (*bpf_seq_write)(struct seq_file *seq, const void *data, u32 length) = (void *)127;
static struct tcp_sock *(*bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static struct socket *(*bpf_sock_from_file)(struct file *file) = (void *)162;
static struct pt_regs *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

KERNEL_FUNCTION void *bpf_rdonly_cast(const void *object, u32 type);

/* CO-RE questions (clang builtins; the numbers are enum bpf_core_relo_kind's). */
#define field_exists(field) __builtin_preserve_field_info(field, 2)
#define enum_value(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 1)
#define enum_value_exists(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)
#define kernel_type(type) __builtin_btf_type_id(*(typeof(type) *)0, 1)
#define type_matches(type) __builtin_preserve_type_info(*(typeof(type) *)0, 2)

/* Sequence numbers are compared modulo 2 ** 32. */
INLINE bool after(u32 a, u32 b)
{
	return (s32)(b - a) < 0;
}

#define LOW32(x) ((u32)(x))
#define HIGH32(x) ((u32)((x) >> 32))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/*
 * Plain increments lose counts even per CPU: softirq nests inside process context. Relaxed, because
 * any other order becomes an instruction that kernels before 5.12 do not know.
 */
#define COUNT(counter, n) __atomic_fetch_add(&(counter), n, __ATOMIC_RELAXED)

/* A context slot by constant offset: the compiler must not merge the loads of two branches into one. */
#define SLOT(ctx, index)                                                                           \
	({                                                                                         \
		u64 value_;                                                                        \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(ctx), "i"((index) * 8)); \
		value_;                                                                            \
	})

#endif
