/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Which of the segments that the kernel discards are lost. Segments that TCP has dealt with are freed the same way:
 * an acknowledgement that came in any state but ESTABLISHED (tcp_rcv_state_process()), the FIN that ends FIN_WAIT2
 * (tcp_timewait_state_process()), a keepalive that has been answered, a segment that a reset answers. So a segment that TCP
 * itself rejected is lost only if the socket still lacks what it carried. docs/retransmits.md has the rule in words.
 */
#ifndef TCPRISM_DISCARD_H
#define TCPRISM_DISCARD_H

#include "packet.h"
#include "segment.h"

#define HAS_REASON(member) bpf_core_enum_value_exists(enum skb_drop_reason___of_tcp, member)
#define EQUALS(reason, member) (HAS_REASON(member) && (reason) == bpf_core_enum_value(enum skb_drop_reason___of_tcp, member))
#define IS_REASON(reason, name) EQUALS(reason, SKB_DROP_REASON_##name)

/* What a bridge or a capture is shown that is not meant for it, or of what leaves, is a copy. */
INLINE bool is_copy(const struct sk_buff *skb)
{
	u32 type = READ_BITS(READS_BTF, skb, pkt_type);

	return type == PACKET_OTHERHOST || type == PACKET_OUTGOING;
}

/* TCP gives these reasons after it has checked a segment's numbers and flags; all others come earlier, or mean no room. */
#define REASONS_OF_TCP(X)                                                                          \
	X(NO_SOCKET) X(TCP_FLAGS) X(TCP_OLD_DATA) X(TCP_OVERWINDOW)               \
	X(TCP_OFOMERGE) X(TCP_RFC7323_PAWS) X(TCP_RFC7323_PAWS_ACK) X(TCP_RFC7323_TW_PAWS)         \
	X(TCP_RFC7323_TSECR) X(TCP_OLD_SEQUENCE) X(TCP_INVALID_SEQUENCE)                           \
	X(TCP_INVALID_END_SEQUENCE) X(TCP_INVALID_ACK_SEQUENCE) X(TCP_RESET) X(TCP_INVALID_SYN)    \
	X(TCP_CLOSE) X(TCP_FASTOPEN) X(TCP_OLD_ACK) X(TCP_TOO_OLD_ACK) X(TCP_ACK_UNSENT_DATA)      \
	X(TCP_OFO_DROP) X(TCP_ABORT_ON_DATA)

/* A segment as TCP noted it on receipt. */
struct judged {
	u32 seq, end_seq, ack;
	u32 payload;
	u32 reason;
	u8 flags;
};

/*
 * Before 5.17 there are no reasons, and what TCP rejected cannot be told from what it had no room for. A global
 * function, or the verifier would follow each reason through all that comes after.
 */
__noinline u32 is_reason_of_tcp(u32 reason)
{
#define ASK(name)                                                                                  \
	if (EQUALS(reason, SKB_DROP_REASON_##name)) /* TCP_CLOSE is a macro, too */                \
		return true;
	REASONS_OF_TCP(ASK)
#undef ASK
	if (!DROP_HAS_REASON())
		return true;
	return reason == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_NOT_SPECIFIED);
}

/*
 * Whether TCP has seen the segment: tcp_v4_fill_cb() has copied the header's numbers. Later segments may have been
 * merged into it (tcp_add_backlog()): then end, acknowledgement and flags are theirs.
 */
INLINE bool read_judged(struct judged *to, const struct sk_buff *skb, const struct tcp_header *tcp, u32 reason)
{
	const struct tcp_skb_cb *cb = (const void *)skb->cb;

	to->seq = cb->seq;
	to->end_seq = cb->end_seq;
	to->ack = cb->ack_seq;
	to->flags = cb->tcp_flags;
	to->payload = payload_bytes(to->seq, to->end_seq, to->flags);
	to->reason = reason;
	return to->seq == bpf_ntohl(tcp->seq) && !after(bpf_ntohl(tcp->ack), to->ack) &&
	       (to->flags & tcp->flags) == tcp->flags;
}

/* Of payload: it had already arrived, which is no loss, but proof of a spurious retransmission. */
__noinline u32 is_reason_of_repetition(u32 reason)
{
	return IS_REASON(reason, TCP_OLD_DATA) || IS_REASON(reason, TCP_OLD_SEQUENCE) || IS_REASON(reason, TCP_OFOMERGE);
}

/*
 * If the kernel does not tell whose segment it was (before 6.11), the reason alone must prove that it was new. Without
 * TCP_OLD_SEQUENCE (6.3, b44693495af8) TCP_INVALID_SEQUENCE may be a duplicate or a keepalive.
 */
INLINE bool is_new_by_reason(const struct judged *s)
{
	if (s->seq == s->end_seq)
		return false;
	if (IS_REASON(s->reason, TCP_INVALID_SEQUENCE))
		return HAS_REASON(SKB_DROP_REASON_TCP_OLD_SEQUENCE);
	return IS_REASON(s->reason, TCP_OVERWINDOW) || IS_REASON(s->reason, TCP_INVALID_END_SEQUENCE) ||
	       IS_REASON(s->reason, TCP_RFC7323_TW_PAWS);
}

/* sk_acceptq_is_full(). A listener with TCP_DEFER_ACCEPT keeps no bare acknowledgement: it notes that it came. */
INLINE bool has_no_room(const struct sock *listener)
{
	const struct inet_connection_sock *icsk = (const void *)listener;
	u32 waiting = 0, limit = 0;
	u8 defers = 0;

	READ(READS_PROBED, waiting, listener->sk_ack_backlog);
	READ(READS_PROBED, limit, listener->sk_max_ack_backlog);
	READ(READS_PROBED, defers, icsk->icsk_accept_queue.rskq_defer_accept);
	return waiting > limit && !defers;
}

/*
 * At a listener, the end of a handshake (tcp_check_req()). Since e34100c2ecbb (6.15) the kernel calls a full queue by
 * name, which is not a reason of TCP's; before, the queue itself must be checked.
 */
INLINE bool is_lost_at_listener(const struct sock *listener, const struct judged *s)
{
	if (IS_REASON(s->reason, TCP_OVERWINDOW) || IS_REASON(s->reason, TCP_RFC7323_PAWS) ||
	    IS_REASON(s->reason, TCP_RFC7323_TSECR))
		return true;
	if (HAS_REASON(SKB_DROP_REASON_TCP_LISTEN_OVERFLOW))
		return false;
	return s->flags & TCPHDR_ACK && !(s->flags & TCPHDR_SYN) && has_no_room(listener);
}

/* FIN_WAIT2 answers new data with a reset; TIME_WAIT acknowledges and keeps nothing. */
INLINE bool is_lost_at_timewait(const struct sock *sk, const struct judged *s)
{
	const struct inet_timewait_sock *tw = (const void *)sk;
	u32 rcv_nxt = 0;
	u8 substate = 0;

	READ(READS_PROBED, substate, tw->tw_substate);
	READ(READS_PROBED, rcv_nxt, sk->__sk_common.skc_tw_rcv_nxt);
	return s->seq != s->end_seq && substate == TCP_TIME_WAIT && after(s->end_seq, rcv_nxt);
}

/* Bytes, a SYN or a FIN that the peer must send again; or an acknowledgement that the socket has not taken in. */
INLINE bool is_lost_at_connection(const struct sock *sk, const struct judged *s)
{
	const struct tcp_sock *tp = (const void *)sk;
	u32 rcv_nxt = 0, snd_una = 0, snd_nxt = 0;

	READ(READS_PROBED, rcv_nxt, tp->rcv_nxt);
	READ(READS_PROBED, snd_una, tp->snd_una);
	READ(READS_PROBED, snd_nxt, tp->snd_nxt);
	if (s->seq != s->end_seq)
		return after(s->end_seq, rcv_nxt) && !IS_REASON(s->reason, TCP_OFOMERGE);
	return s->flags & TCPHDR_ACK && after(s->ack, snd_una) && !after(s->ack, snd_nxt);
}

/* `sk` is the segment's socket, of any kind, or NULL. A reset that TCP does not believe is not lost. */
INLINE bool is_lost(const struct sock *sk, const struct judged *s)
{
	u8 state = 0;

	if (!is_reason_of_tcp(s->reason) || (s->payload && is_reason_of_repetition(s->reason)))
		return true;
	if (s->flags & TCPHDR_RST || !DROP_HAS_REASON())
		return false;
	if (!is_there(sk))
		return is_new_by_reason(s);
	READ(READS_PROBED, state, sk->__sk_common.skc_state);
	if (state == TCP_LISTEN || state == TCP_NEW_SYN_RECV)
		return is_lost_at_listener(sk, s);
	if (state == TCP_TIME_WAIT)
		return is_lost_at_timewait(sk, s);
	return state != TCP_CLOSE && state != TCP_SYN_SENT && is_lost_at_connection(sk, s);
}

#endif
