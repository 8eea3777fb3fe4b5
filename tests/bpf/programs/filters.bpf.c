/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Asks the filters about a connection and about the current thread. */
#include "tcprism/filter.h"
#include "tcprism/task_filter.h"

struct question {
	struct address local, remote; /* IPv4 as mapped IPv6 */
	u32 netns;
	u16 local_port, remote_port;
	u32 family;
	u32 pid;
};

#define CONNECTION_PASSES 1
#define TASK_PASSES 2
#define OTHER_TASK_PASSES 4 /* the current task, asked as another */

/* No "syscall" program: such may sleep, and may not use the map that networks are looked up in. */
SEC("raw_tp") int ask(u64 *ctx)
{
	struct question q = {};
	struct connection c;
	u32 answer = 0;

	if (bpf_probe_read_user(&q, sizeof(q), (void *)ctx[0]))
		return -1;
	c = (struct connection){
		.local = q.local,
		.remote = q.remote,
		.netns = q.netns,
		.local_port = q.local_port,
		.remote_port = q.remote_port,
		.family = q.family,
	};
	if (ports_pass(c.local_port, c.remote_port) && connection_passes(&c))
		answer |= CONNECTION_PASSES;
	if (task_passes(q.pid))
		answer |= TASK_PASSES;
	if (other_task_passes(bpf_get_current_task_btf()))
		answer |= OTHER_TASK_PASSES;
	return answer;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
