/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Programs that do nothing, on tcprism's hooks: what remains of a run's time is the taking of it. */
#include "tcprism/helpers.h"

SEC("tp_btf/sock_send_length") int tracepoint_send(u64 *ctx)
{
	return 0;
}

SEC("tp_btf/sock_recv_length") int tracepoint_recv(u64 *ctx)
{
	return 0;
}

SEC("tp_btf/tcp_sendmsg_locked") int tracepoint_send_buffer(u64 *ctx)
{
	return 0;
}

SEC("cgroup_skb/egress") int cgroup_transmit(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup_skb/ingress") int cgroup_receive(struct __sk_buff *skb)
{
	return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
