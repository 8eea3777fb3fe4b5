/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The kernel's structures of tasks, files and buffers, and the contexts of BPF iterators. As in kernel_net.h. */
#ifndef TCPRISM_KERNEL_TASK_H
#define TCPRISM_KERNEL_TASK_H

#include "helpers.h"

struct inode {
	u16 i_mode;
	unsigned long i_ino;
} CORE;

struct file {
	struct inode *f_inode;
	void *private_data;
} CORE;

struct bpf_iter_meta {
	struct seq_file *seq;
} CORE;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} CORE;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
} CORE;

struct iovec {
	void *iov_base;
	u64 iov_len;
}; /* user-space interface: a fixed layout */

struct iov_iter {
	u8 iter_type;
	u64 iov_offset;
	u64 count;
	u64 nr_segs;
	const struct iovec *__iov;
	void *ubuf;
} CORE;

struct msghdr {
	struct iov_iter msg_iter;
	u32 msg_flags;
} CORE;

struct thread_info {
	u32 status;
} CORE;

typedef struct {
	int counter;
} CORE atomic_t;

struct upid {
	int nr;
} CORE;

struct pid {
	u32 level;
	struct upid numbers[1]; /* and more */
} CORE;

struct signal_struct {
	atomic_t live;
} CORE;

typedef struct {
	u32 val;
} CORE kuid_t;

struct cred {
	kuid_t uid;
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} CORE;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	u32 flags;
	void *stack;
	int pid;
	int tgid;
	u64 start_time;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct signal_struct *signal;
	const struct cred *cred;
	struct css_set *cgroups;
	struct io_uring_task *io_uring; /* of a task that has ever used it */
	u64 self_exec_id;
	char comm[COMM_LENGTH];
} CORE;

struct pt_regs { /* x86-64 */
	unsigned long di, si, dx, cx, r8, r9, r10, r14, bx, ax, orig_ax, sp;
} CORE;

enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
	ITER_KVEC,
};

enum bpf_func_id {
	BPF_FUNC_get_current_task_btf,
	BPF_FUNC_sock_from_file,
	BPF_FUNC_task_pt_regs,
};

#endif
