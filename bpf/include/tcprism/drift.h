/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What was renamed, moved or added between kernels 5.10 and 7.x. The code checks whether a field or a type exists,
 * never a version; the comment cites the kernel that changed it.
 */
#ifndef TCPRISM_DRIFT_H
#define TCPRISM_DRIFT_H

#include "constants.h"
#include "kernel_net.h"
#include "kernel_task.h"
#include "maps.h"
#include "read.h"

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

	if (bpf_core_field_exists(iter->iter_type)) {
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

	if (bpf_core_field_exists(iter->__iov))
		READ(reads, iovec, iter->__iov);
	else
		READ(reads, iovec, old->iov);
	return iovec;
}

/* ITER_UBUF came with 6.0 (fcb14cb1bdac). */
INLINE bool iter_is_flat(u32 type)
{
	return bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) && type == bpf_core_enum_value(enum iter_type, ITER_UBUF);
}

/*
 * The same object, for loads only. Since 6.2 the verifier searches all kernel types, for a millisecond, whenever a path
 * follows a pointer out of a trusted object (btf_nested_type_is_trusted()), but not out of one that has been cast.
 */
#define READABLE(type, object) \
	(config.can_cast ? (const type *)bpf_rdonly_cast(object, bpf_core_type_id_kernel(type)) : (object))

/* For full TCP sockets. The cast (6.2+) is not a call but allows only reads; the helper costs 20 ns. */
INLINE struct tcp_sock *tcp_sock_of(struct sock *sk, enum reads reads)
{
	if (reads == READS_PROBED)
		return (struct tcp_sock *)sk;
	return config.can_cast ? bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock)) : bpf_skc_to_tcp_sock(sk);
}

/* One of the TCP connections that an MPTCP socket uses. MPTCP came with 5.6 and is optional. */
INLINE bool is_below_mptcp(const struct tcp_sock *tp, enum reads reads)
{
	u8 is_mptcp = 0;

	if (bpf_core_field_exists(tp->is_mptcp))
		READ(reads, is_mptcp, tp->is_mptcp);
	return is_mptcp;
}

INLINE bool is_full_socket(const struct sock *sk)
{
	u8 state = sk->__sk_common.skc_state;

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* For any socket: a request, or one in TIME-WAIT, is not a full socket and yields NULL. */
INLINE struct tcp_sock *full_tcp_sock(struct sock *sk)
{
	const struct sock *readable;

	if (!config.can_cast)
		return bpf_skc_to_tcp_sock(sk);
	readable = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct sock));
	if (!is_full_socket(readable) || readable->sk_protocol != IPPROTO_TCP)
		return NULL;
	return tcp_sock_of(sk, READS_BTF);
}

struct local_ports___as_pair { /* up to 6.1 at least; one number in 6.12 */
	int range[2];
} CORE;

struct port_range {
	u32 low, high;
};

/* The ports from which the kernel chooses one for a socket that connects (ip_local_port_range). */
INLINE struct port_range local_port_range(const struct sock_common *sk, enum reads reads)
{
	const struct local_ports___as_pair *old;
	const struct local_ports *ports;
	struct port_range range = {};
	struct net *net = NULL;
	u32 both = 0;

	if (reads == READS_BTF)
		sk = READABLE(struct sock_common, sk);
	READ(reads, net, sk->skc_net.net);
	ports = &net->ipv4.ip_local_ports;
	old = (const void *)ports;
	if (bpf_core_field_exists(ports->range)) {
		READ(reads, both, ports->range);
		range.low = both & 0xffff;
		range.high = both >> 16;
	} else {
		READ(reads, range.low, old->range[0]);
		READ(reads, range.high, old->range[1]);
	}
	return range;
}

struct tcp_sock___with_bits { /* a whole byte in 6.18 and later */
	u8 chrono_type : 2;
} CORE;

/* 7.x has the timer in struct sock. */
struct sock___with_timer {
	struct timer_list tcp_retransmit_timer;
} CORE;

INLINE bool is_retransmit_timer_set(struct tcp_sock *tp, enum reads reads)
{
	const struct sock___with_timer *sk = (void *)tp;
	struct hlist_node **entry = NULL;

	if (bpf_core_field_exists(tp->inet_conn.icsk_retransmit_timer))
		READ(reads, entry, tp->inet_conn.icsk_retransmit_timer.entry.pprev);
	else
		READ(reads, entry, sk->tcp_retransmit_timer.entry.pprev);
	return entry;
}

#define SHIFT_OF_A_BYTE 56

INLINE u32 chrono_type_of(struct tcp_sock *tp, enum reads reads)
{
	u8 type = 0;

	if (__builtin_preserve_field_info(tp->chrono_type, BPF_FIELD_LSHIFT_U64) != SHIFT_OF_A_BYTE)
		return READ_BITS(reads, (struct tcp_sock___with_bits *)tp, chrono_type);
	READ(reads, type, tp->chrono_type);
	return type;
}

/* Since 6.16 the tracepoint reports the attempt's result; before, it fired only if the attempt succeeded. */
typedef void (*btf_trace_tcp_retransmit_skb)(void *, const struct sock *, const struct sk_buff *, int);

#define RETRANSMIT_HAS_ERROR() bpf_core_type_matches(btf_trace_tcp_retransmit_skb)

/* The reason of a drop came with 5.17, that of a reset with 6.10, each with its enum. */
#define DROP_HAS_REASON() bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_NOT_SPECIFIED)
#define RESET_HAS_REASON() bpf_core_enum_value_exists(enum sk_rst_reason, SK_RST_REASON_NOT_SPECIFIED)

/* The socket that a dropped packet was meant for came with 6.11 (c53795d48ee8). */
typedef void (*btf_trace_kfree_skb)(void *, struct sk_buff *, void *, enum skb_drop_reason, struct sock *);

#define DROP_HAS_SOCKET() bpf_core_type_matches(btf_trace_kfree_skb)

/* bpf_sock_from_file() came with 5.11. */
#define HAS_SOCK_FROM_FILE() bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_sock_from_file)

/* The socket of an open file, where bpf_sock_from_file() is missing. A descriptor of O_PATH has none. */
INLINE struct sock *sock_of_file(const struct file *file)
{
	struct socket *socket = file->private_data;
	struct sock *sk = NULL;

	if ((file->f_inode->i_mode & S_IFMT) == S_IFSOCK && socket)
		READ(READS_PROBED, sk, socket->sk);
	return sk;
}

/* bpf_task_pt_regs() came with 5.15. */
#define HAS_TASK_PT_REGS() bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)

/* bpf_get_current_task_btf() came with 5.11. */
#define HAS_TASK_BTF() bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)

/* The current thread: read once and passed on, because each helper call costs 6 ns or more. */
struct thread {
	struct task_struct *task; /* NULL where the kernel has no helper for it */
	u32 pid, tid;
};

INLINE void read_thread(struct thread *to)
{
	u64 ids;

	if (HAS_TASK_BTF()) {
		to->task = bpf_get_current_task_btf();
		to->pid = to->task->tgid;
		to->tid = to->task->pid;
	} else {
		ids = bpf_get_current_pid_tgid();
		to->task = NULL;
		to->pid = upper_32_bits(ids);
		to->tid = lower_32_bits(ids);
	}
}

/* A worker of io_uring is a thread of the process since 5.12 (3bfe6106693b); before, it is a kernel thread. */
INLINE bool is_kernel_thread(const struct thread *thread)
{
	const struct task_struct *task = HAS_TASK_BTF() ? thread->task : (void *)bpf_get_current_task();
	u32 flags = 0;

	READ(HAS_TASK_BTF() ? READS_BTF : READS_PROBED, flags, task->flags);
	return flags & PF_KTHREAD;
}

/* What no two programs of a thread's number have in common: when the thread began, in ns, and how many came by exec(). */
INLINE u64 program_of(const struct thread *thread)
{
	const struct task_struct *task = HAS_TASK_BTF() ? thread->task : (void *)bpf_get_current_task();
	u64 began_ns = 0, execs = 0;

	READ(HAS_TASK_BTF() ? READS_BTF : READS_PROBED, began_ns, task->start_time);
	READ(HAS_TASK_BTF() ? READS_BTF : READS_PROBED, execs, task->self_exec_id);
	return began_ns + execs;
}

/* Whether a thread uses io_uring: then its registers may not describe the request being served. */
INLINE bool uses_io_uring(const struct task_struct *task)
{
	if (!bpf_core_field_exists(task->io_uring))
		return false;
	task = READABLE(struct task_struct, task);
	return task->io_uring || task->flags & PF_IO_WORKER;
}

#endif
