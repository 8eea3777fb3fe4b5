/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The least that records a message: the time, in a ring that nobody reads and that is large enough for a turn. */
#include "tcprism/helpers.h"

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, 64 << 20);
} ring SEC(".maps");

INLINE int record_time(void)
{
	u64 *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (record) {
		*record = bpf_ktime_get_ns();
		bpf_ringbuf_submit(record, RING_NO_WAKEUP);
	}
	return 0;
}

SEC("tp_btf/sock_send_length") int tracepoint_send(u64 *ctx)
{
	return record_time();
}

SEC("tp_btf/sock_recv_length") int tracepoint_recv(u64 *ctx)
{
	return record_time();
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
