/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * TCP hands a segment to IP, by fentry and fexit or by kprobe and kretprobe. Counts as OutSegs does: a retransmission
 * is no transmit.
 */
#include "tcprism/segment.h"

/* By socket (fentry: it is locked while it transmits) or by stack pointer (kretprobes have no arguments). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct pending);
} transmissions SEC(".maps");

INLINE void transmit_enter(struct sock *sk, struct sk_buff *skb, u32 rcv_nxt, u64 key, enum reads reads)
{
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	struct pending pending = {};
	u32 snd_nxt = 0;

	if (!tp)
		return;
	read_control_block(&pending, skb, reads);
	READ(reads, snd_nxt, tp->snd_nxt);
	if (!is_first_transmission(pending.seq, pending.end_seq, snd_nxt) &&
	    !answers_crossed_syn(tp, pending.flags, reads))
		return;
	pending.ack = pending.flags & TCPHDR_ACK ? rcv_nxt : 0;
	pending.sk = (u64)sk;
	pending.at_work = is_at_work(sk, reads);
	if (bpf_map_update_elem(&transmissions, &key, &pending, 0)) {
		struct counters *counters = counters_of(KIND_TRANSMIT);

		if (counters) {
			COUNT(counters->seen, 1);
			COUNT(counters->map_full, 1);
		}
	}
}

INLINE void transmit_fill(struct segment *s, u32 kind, const struct pending *pending, const struct connection *c,
			  const struct owner *owner, struct tcp_sock *tp, int error, enum reads reads)
{
	event_begin(&s->event, kind, c, owner);
	s->event.error = error < 0 ? error : 0;
	pending_into(s, pending);
	s->window = window_of(tp, pending->flags, reads);
	read_congestion(s, tp, reads);
	s->arrival = ARRIVAL_UNKNOWN;
	s->cause = cause_of_transmit(tp, pending->seq, pending->end_seq, reads);
}

INLINE void transmit_event(const struct pending *pending, struct sock *sk, int error, enum reads reads)
{
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	u32 kind = tp ? kind_of_segment(tp, pending->seq, pending->end_seq, reads) : KIND_TRANSMIT;
	struct counters *counters = counters_of(kind);
	struct owner *owner;
	struct connection c;
	u32 sampling;

	if (!counters || !tp)
		return;
	if (kind_wanted(KIND_ACKED))
		delivery_left(sk, pending->end_seq, reads);
	if (!kind_wanted(kind))
		return;
	owner = !socket_ports_pass(&sk->__sk_common, reads) ? NULL :
		segment_owner(sk, tp, pending->flags, pending->at_work, reads);
	if (!segment_passes(counters, &c, &sk->__sk_common, owner, reads))
		return;
	sampling = sample(counters, &c, true);
	if (sampling == LEFT_OUT)
		return;
	SUBMIT(segment, struct segment, counters, {
		transmit_fill(record, kind, pending, &c, owner, tp, error, reads);
		record->event.socket = cookie_of(sk, reads);
		record->event.sampling = sampling;
	});
}

INLINE void transmit_leave(struct sock *sk, int error, u64 key, enum reads reads)
{
	struct pending *pending = bpf_map_lookup_elem(&transmissions, &key);

	if (!pending)
		return;
	transmit_event(pending, reads == READS_BTF ? sk : (struct sock *)pending->sk, error, reads);
	bpf_map_delete_elem(&transmissions, &key);
}

SEC("fentry/__tcp_transmit_skb") int fentry_transmit(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];

	transmit_enter(sk, (void *)ctx[1], ctx[4], (u64)sk, READS_BTF);
	return 0;
}

SEC("fexit/__tcp_transmit_skb") int fexit_transmit(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];

	transmit_leave(sk, ctx[5], (u64)sk, READS_BTF);
	return 0;
}

SEC("kprobe/__tcp_transmit_skb") int kprobe_transmit(struct pt_regs *ctx)
{
	transmit_enter((void *)ctx->di, (void *)ctx->si, ctx->r8, ctx->sp + sizeof(u64), READS_PROBED);
	return 0;
}

/* The return address has been popped. */
SEC("kretprobe/__tcp_transmit_skb") int kretprobe_transmit(struct pt_regs *ctx)
{
	transmit_leave(NULL, ctx->ax, ctx->sp, READS_PROBED);
	return 0;
}
