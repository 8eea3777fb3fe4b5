/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Where a segment that arrives stands against what its socket has received and sent, by the rules of tcp_sequence(),
 * tcp_data_queue() and tcp_ack(), but before the socket is locked for it.
 */
#ifndef TCPRISM_ARRIVAL_H
#define TCPRISM_ARRIVAL_H

#include "cgroup_segment.h"

/*
 * Whether the socket's numbers take in all that arrived before: otherwise segments wait while a process holds the
 * socket, or another CPU is at work on one.
 */
INLINE bool is_settled(struct tcp_sock *tp)
{
	const struct sock *sk = (void *)tp;

	return !sk->sk_lock.owned && !sk->sk_backlog.len && !spinlock_of(sk, READS_BTF);
}

/* Before the socket's own check, as of long segments that no device has checked, they may still prove corrupt. */
INLINE bool is_checksum_valid(struct __sk_buff *ctx)
{
	const struct sk_buff *skb;

	if (config.can_cast) {
		skb = bpf_rdonly_cast(ctx, bpf_core_type_id_kernel(struct sk_buff));
		return READ_BITS(READS_BTF, skb, csum_valid);
	}
	skb = (void *)untyped(ctx);
	return READ_BITS(READS_PROBED, skb, csum_valid);
}

/* RFC 5681, section 2: nothing new, while bytes of this end are under way. */
INLINE bool is_duplicate_ack(const struct tcp_sock *tp, const struct packet *packet)
{
	u32 flags = packet->tcp->flags, scale = READ_BITS(READS_BTF, &tp->rx_opt, snd_wscale);
	u32 window = (u32)bpf_ntohs(packet->tcp->window) << (scale & 15);

	if (!(flags & TCPHDR_ACK) || flags & (TCPHDR_SYN | TCPHDR_FIN | TCPHDR_RST))
		return false;
	return bpf_ntohl(packet->tcp->ack) == tp->snd_una && tp->snd_una != tp->snd_nxt && window == tp->snd_wnd;
}

/*
 * Whether TCP would look at more than the sequence numbers (tcp_validate_incoming(), tcp_ack()): it discards what
 * acknowledges bytes that were never sent, or some of too long ago, or nothing, and a SYN.
 */
INLINE bool is_read_on(const struct tcp_sock *tp, const struct packet *packet)
{
	u32 flags = packet->tcp->flags, ack = bpf_ntohl(packet->tcp->ack), old = tp->snd_una - ack;

	if (flags & TCPHDR_SYN)
		return false;
	if (!(flags & TCPHDR_ACK) || flags & TCPHDR_RST)
		return flags & TCPHDR_RST;
	if (after(ack, tp->snd_una))
		return !after(ack, tp->snd_nxt);
	return packet->seq == packet->end_seq || (old <= tp->max_window && old <= tp->bytes_acked);
}

INLINE u32 arrival_of_ack(const struct tcp_sock *tp, const struct packet *packet)
{
	if (is_duplicate_ack(tp, packet))
		return ARRIVAL_DUPLICATE_ACK;
	if (packet->tcp->flags & TCPHDR_ACK && after(tp->snd_una, bpf_ntohl(packet->tcp->ack)))
		return ARRIVAL_OLD_ACK;
	return ARRIVAL_IN_ORDER;
}

/* Where the receive window ends. A window that was shrunk holds as far as it once reached, where the kernel knows. */
INLINE u32 window_end(const struct tcp_sock *tp)
{
	u32 end = tp->rcv_wup + tp->rcv_wnd;

	if (bpf_core_field_exists(tp->rcv_mwnd_seq) && after(tp->rcv_mwnd_seq, end))
		end = tp->rcv_mwnd_seq;
	return after(tp->rcv_nxt, end) ? tp->rcv_nxt : end;
}

INLINE u32 arrival_of(struct __sk_buff *skb, struct tcp_sock *tp, const struct packet *packet)
{
	const struct sock *sk = (void *)tp;
	u32 state = sk->__sk_common.skc_state, seq = packet->seq, end_seq = packet->end_seq;
	u32 rcv_nxt = tp->rcv_nxt, end = window_end(tp);

	if (state == TCP_SYN_RECV && packet->tcp->flags & TCPHDR_SYN) /* the other end knows of both SYNs now */
		return ARRIVAL_UNKNOWN;
	if (state == TCP_SYN_SENT || state == TCP_CLOSE || !is_settled(tp) || !is_checksum_valid(skb))
		return ARRIVAL_UNKNOWN;
	if (seq == end_seq && after(rcv_nxt, seq))
		return ARRIVAL_OLD_SEQUENCE;
	if (seq != end_seq && !after(end_seq, rcv_nxt))
		return ARRIVAL_DUPLICATE;
	if (after(seq, end))
		return ARRIVAL_OUTSIDE_WINDOW;
	if (seq == end && seq != end_seq) /* kernels differ in whether a FIN needs room */
		return packet->payload ? ARRIVAL_OUTSIDE_WINDOW : ARRIVAL_UNKNOWN;
	if (!is_read_on(tp, packet) || (packet->payload && after(seq + packet->payload, end)))
		return ARRIVAL_UNKNOWN;
	if (after(seq, rcv_nxt))
		return ARRIVAL_OUT_OF_ORDER;
	return seq == end_seq ? arrival_of_ack(tp, packet) : ARRIVAL_IN_ORDER;
}

#endif
