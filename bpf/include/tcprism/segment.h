/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What all segment hooks share. */
#ifndef TCPRISM_SEGMENT_H
#define TCPRISM_SEGMENT_H

#include "delivery.h"

/* What is known at the entry of __tcp_transmit_skb(), which then chooses the window. */
struct pending {
	u64 sk;
	u32 seq, end_seq, ack;
	u16 segs, flags;
	u16 gso_size;
	u16 at_work; /* is_at_work(): as it returns, the answer may have come and been put off */
};

/* As __tcp_transmit_skb() counts OutSegs: new data, or no sequence number consumed. */
INLINE bool is_first_transmission(u32 seq, u32 end_seq, u32 snd_nxt)
{
	return seq == end_seq || after(end_seq, snd_nxt);
}

/*
 * Where both ends connect at once, tcp_send_synack() answers the other's SYN. OutSegs does not count that, nor does
 * RetransSegs. When its timer has it sent again, that is no longer pending.
 */
INLINE bool answers_crossed_syn(struct tcp_sock *tp, u32 flags, enum reads reads)
{
	struct request_sock *request = NULL;
	u8 pending = 0;

	if ((flags & (TCPHDR_SYN | TCPHDR_ACK)) != (TCPHDR_SYN | TCPHDR_ACK))
		return false;
	READ(reads, request, tp->fastopen_rsk);
	READ(reads, pending, tp->inet_conn.icsk_pending);
	return !request && pending == ICSK_TIME_RETRANS;
}

/*
 * tcp_xmit_probe_skb() sends an empty segment with the last acknowledged sequence number. With nothing left to send
 * it is a keepalive; with data that may not be sent it is a window probe.
 */
INLINE u32 kind_of_segment(struct tcp_sock *tp, u32 seq, u32 end_seq, enum reads reads)
{
	u32 snd_una = 0, snd_nxt = 0, write_seq = 0;

	if (seq != end_seq)
		return KIND_TRANSMIT;
	READ(reads, snd_una, tp->snd_una);
	if (seq != snd_una - 1)
		return KIND_TRANSMIT;
	READ(reads, snd_nxt, tp->snd_nxt);
	READ(reads, write_seq, tp->write_seq);
	return write_seq != snd_nxt ? KIND_PROBE : KIND_TRANSMIT;
}

/*
 * Whether tcp_send_loss_probe() is at work: its timer has been the pending one, has fired (its list entry is gone),
 * and was not put off because a process held the socket (tcp_write_timer()).
 */
INLINE bool is_loss_probe(struct tcp_sock *tp, enum reads reads)
{
	const struct sock *sk = (void *)tp;
	unsigned long deferred = 0;
	u8 pending = 0;

	READ(reads, pending, tp->inet_conn.icsk_pending);
	if (pending != ICSK_TIME_LOSS_PROBE || is_retransmit_timer_set(tp, reads))
		return false;
	READ(reads, deferred, sk->sk_tsq_flags);
	return !(deferred >> TCP_WRITE_TIMER_DEFERRED & 1);
}

/* Of a segment with new data, or a FIN. */
INLINE u32 cause_of_transmit(struct tcp_sock *tp, u32 seq, u32 end_seq, enum reads reads)
{
	return seq != end_seq && is_loss_probe(tp, reads) ? CAUSE_TLP : CAUSE_NONE;
}

INLINE u32 payload_bytes(u32 seq, u32 end_seq, u32 flags)
{
	return end_seq - seq - !!(flags & TCPHDR_SYN) - !!(flags & TCPHDR_FIN);
}

/* The window in the header, as tcp_select_window() chose it: unscaled in a SYN. */
INLINE u32 window_of(struct tcp_sock *tp, u32 flags, enum reads reads)
{
	u32 window = 0, scale = 0;

	READ(reads, window, tp->rcv_wnd);
	if (!(flags & TCPHDR_SYN))
		scale = READ_BITS(reads, &tp->rx_opt, rcv_wscale);
	window >>= scale & 15;
	return MIN(window, 65535);
}

INLINE void read_congestion(struct segment *to, struct tcp_sock *tp, enum reads reads)
{
	u32 srtt = 0;

	READ(reads, to->cwnd, tp->snd_cwnd);
	READ(reads, to->packets_out, tp->packets_out);
	READ(reads, srtt, tp->srtt_us);
	to->srtt_us = srtt ? srtt >> 3 : MICROSECONDS_UNKNOWN; /* stored times 8: tcp_rtt_estimator() */
	to->ca_state = READ_BITS(reads, &tp->inet_conn, icsk_ca_state);
}

INLINE void no_congestion(struct segment *to)
{
	to->cwnd = 0;
	to->packets_out = 0;
	to->srtt_us = MICROSECONDS_UNKNOWN;
	to->ca_state = CA_STATE_UNKNOWN;
}

/* Whether the owner is this thread, with the same name, user and cgroup. */
INLINE bool is_still(const struct owner *owner, const struct thread *thread)
{
	struct owner now;

	if (!owner->passes || owner->tid != thread->tid)
		return false;
	read_task(&now, thread->task);
	return owner->uid == now.uid && owner->cgroup_id == now.cgroup_id &&
	       owner->comm.word[0] == now.comm.word[0] && owner->comm.word[1] == now.comm.word[1];
}

/* The socket's spinlock, 0 if nobody has it: its type is a matter of the kernel's configuration. */
INLINE u32 spinlock_of(const struct sock *sk, enum reads reads)
{
	const struct sock *lock = sk;
	u32 value = 0;

	barrier_var(lock);
	READ(reads, value, *(const u32 *)((const u8 *)lock + bpf_core_field_offset(sk->sk_lock.slock)));
	return value;
}

/*
 * Whether the process that holds the socket is in the midst of a call. As it lets go (release_sock()), it does what
 * interrupts have put off meanwhile, whoever it is: one that only looks at the socket holds it, too, as `ss -i`
 * (tcp_get_info()) and a reader of the kernel's iterator of sockets do.
 */
INLINE bool is_at_work(const struct sock *sk, enum reads reads)
{
	int put_off = 0;

	if (!config.owners_from_segments) /* nobody asks, and the verifier need not follow the answers */
		return false;
	READ(reads, put_off, sk->sk_backlog.len);
	put_off |= spinlock_of(sk, reads); /* one comparison: each doubles what the verifier follows */
	return is_held(sk, reads) && !put_off;
}

/*
 * While a process holds the socket, a segment that leaves is its own: interrupts defer what they have to send
 * (sock_owned_by_user()). A closed socket has already been forgotten, and a process that resets an open one need not
 * own it: `ss -K` (tcp_abort()). `tp` is the same socket, for reading.
 */
INLINE struct owner *segment_owner(struct sock *sk, struct tcp_sock *tp, u32 flags, bool at_work, enum reads reads)
{
	struct owner *owner = owner_of(sk, reads);
	struct sock *readable = (void *)tp;
	struct thread thread;
	struct note *note;
	u8 state = 0;

	if (!config.owners_from_segments || !at_work || flags & TCPHDR_RST) /* 5.10 cannot load what follows */
		return owner;
	READ(reads, state, readable->__sk_common.skc_state);
	if (state == TCP_CLOSE)
		return owner;
	read_thread(&thread);
	if (owner && is_still(owner, &thread))
		return owner;
	note = owner_is_current(sk, reads);
	return note ? &note->owner : NULL;
}

/* Counts and filters a segment, cheapest checks first. Returns whether to record it. */
INLINE bool segment_passes(struct counters *counters, struct connection *to, const struct sock_common *sk,
			   const struct owner *owner, enum reads reads)
{
	COUNT(counters->seen, 1);
	if (socket_ports_pass(sk, reads) && owner_passes(owner)) {
		read_connection(to, sk, reads);
		if (connection_passes(to))
			return true;
	}
	COUNT(counters->filtered, 1);
	return false;
}

INLINE void pending_into(struct segment *to, const struct pending *from)
{
	to->event.seq = from->seq;
	to->event.bytes = payload_bytes(from->seq, from->end_seq, from->flags);
	to->event.flags = from->flags;
	to->end_seq = from->end_seq;
	to->ack = from->ack;
	to->segs = from->segs;
	to->gso_size = from->gso_size;
	to->options_length = 0;
	to->payload_length = 0;
}

INLINE void read_control_block(struct pending *to, const struct sk_buff *skb, enum reads reads)
{
	const struct tcp_skb_cb *cb = (const void *)skb->cb;
	u16 segs = 0;
	u8 flags = 0;

	READ(reads, to->seq, cb->seq);
	READ(reads, to->end_seq, cb->end_seq);
	READ(reads, segs, cb->tcp_gso_segs); /* skb_shinfo's is not set yet */
	READ(reads, to->gso_size, cb->tcp_gso_size);
	READ(reads, flags, cb->tcp_flags);
	to->segs = segs ? segs : 1;
	to->flags = segs > 1 ? flags | TCPHDR_PSH : flags; /* as __tcp_transmit_skb() sets it, in its own copy of the block */
}

#endif
