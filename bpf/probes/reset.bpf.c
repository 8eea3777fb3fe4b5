/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Resets, sent and received. */
#include "tcprism/connection_event.h"
#include "tcprism/ending.h"
#include "tcprism/packet.h"

INLINE void reset_of_socket(struct sock *sk, u32 sent, u32 reason)
{
	struct note *note = note_of(sk, READS_BTF);
	struct moment m = { .kind = KIND_RESET, .sent = sent, .reason = reason, .elapsed_ns = ELAPSED_UNKNOWN };

	struct connection c;

	m.old_state = sk->__sk_common.skc_state;
	m.iss = iss_of(note);
	if (note)
		note->reset = sent ? ENDING_RESET_SENT : ENDING_RESET_RECEIVED;
	if (!kind_wanted(KIND_RESET))
		return;
	read_connection(&c, &sk->__sk_common, READS_BTF);
	connection_submit(sk, &m, &c, note ? &note->owner : NULL);
}

/* A reset without a connection: the packet that it answers tells the addresses. */
INLINE void reset_of_packet(const struct sk_buff *skb, u32 reason)
{
	struct moment m = { .kind = KIND_RESET, .sent = true, .reason = reason, .elapsed_ns = ELAPSED_UNKNOWN };
	struct seen_packet packet;
	struct connection c;

	if (!kind_wanted(KIND_RESET) || !read_seen_packet(&packet, skb))
		return;
	packet_connection(&c, &packet, skb, false);
	connection_submit(NULL, &m, &c, NULL);
}

/* Since 6.10 the socket may be missing; without a packet the socket resets by itself. */
SEC("tp_btf/tcp_send_reset") int tracepoint_reset_sent(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct sk_buff *skb = (void *)ctx[1];
	u32 reason = RESET_HAS_REASON() ? ctx[2] : REASON_UNKNOWN;

	if (is_there(sk) && is_full_socket(sk) && sk->__sk_common.skc_state != TCP_LISTEN)
		reset_of_socket(sk, true, reason);
	else if (is_there(skb))
		reset_of_packet(skb, reason);
	return 0;
}

SEC("tp_btf/tcp_receive_reset") int tracepoint_reset_received(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct note *note = note_of(sk, READS_BTF);

	if (!tp || !is_data_that_comes_late(sk, tp, note))
		reset_of_socket(sk, false, REASON_UNKNOWN);
	else if (note)
		note->reset = ENDING_RESET_SENT; /* the event follows: tracepoint_reset_sent */
	return 0;
}
