/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The least that others record of a message: the time, in a ring that nobody reads, large enough for a turn. */
#include "ringbuf.h"

RINGBUF(ring, 64 << 20);

INLINE int record_time(void)
{
	u64 *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (record) {
		*record = bpf_ktime_get_ns();
		bpf_ringbuf_submit(record, RINGBUF_NO_WAKEUP);
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
