/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Every TCP socket that a process has open, in all network namespaces, whenever user space reads the iterator. No
 * hook, so no cost per packet. Sockets without a file are not seen: those in an accept queue (the listener's
 * `backlog` counts them) and those that their process has closed.
 */
#include "tcprism/task_filter.h"
#include "tcprism/totals.h"

/* A snapshot is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct snapshot);
} snapshot_buffer SEC(".maps");

INLINE bool is_tcp_socket(struct sock *sk)
{
	u16 family = 0, protocol = 0, type = 0;

	READ(READS_PROBED, family, sk->__sk_common.skc_family);
	READ(READS_PROBED, protocol, sk->sk_protocol);
	READ(READS_PROBED, type, sk->sk_type);
	return (family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP && type == SOCK_STREAM;
}

INLINE void read_holder(struct owner *to, const struct task_struct *task)
{
	to->pid = task->tgid;
	to->tid = task->tgid;
	to->source = OWNER_ITERATOR;
	read_task(to, task);
}

INLINE void read_queues(struct snapshot *to, struct tcp_sock *tp)
{
	u32 write_seq = 0, snd_una = 0, snd_nxt = 0, rcv_nxt = 0, copied_seq = 0, rcv_wup = 0, rcv_wnd = 0;
	unsigned long flags = 0;

	READ(READS_PROBED, write_seq, tp->write_seq);
	READ(READS_PROBED, snd_nxt, tp->snd_nxt);
	READ(READS_PROBED, snd_una, tp->snd_una);
	READ(READS_PROBED, rcv_nxt, tp->rcv_nxt);
	READ(READS_PROBED, copied_seq, tp->copied_seq);
	READ(READS_PROBED, rcv_wup, tp->rcv_wup);
	READ(READS_PROBED, rcv_wnd, tp->rcv_wnd);
	READ(READS_PROBED, flags, ((struct sock *)tp)->__sk_common.skc_flags);
	to->unsent = after(write_seq, snd_nxt) ? write_seq - snd_nxt : 0;
	to->unacked = after(snd_nxt, snd_una) ? snd_nxt - snd_una : 0;
	to->unread = after(rcv_nxt, copied_seq) ? rcv_nxt - copied_seq : 0;
	if (to->unread && flags >> SOCK_DONE & 1)
		to->unread--; /* the peer's FIN */
	to->rcv_wnd = after(rcv_wup + rcv_wnd, rcv_nxt) ? rcv_wup + rcv_wnd - rcv_nxt : 0;
	READ(READS_PROBED, to->snd_wnd, tp->snd_wnd);
}

INLINE void read_recovery(struct snapshot *to, struct tcp_sock *tp)
{
	u32 rto = 0, rttvar = 0;

	READ(READS_PROBED, to->packets_out, tp->packets_out);
	READ(READS_PROBED, to->sacked_out, tp->sacked_out);
	READ(READS_PROBED, to->lost_out, tp->lost_out);
	READ(READS_PROBED, to->retrans_out, tp->retrans_out);
	READ(READS_PROBED, to->ssthresh, tp->snd_ssthresh);
	READ(READS_PROBED, rto, tp->inet_conn.icsk_rto);
	READ(READS_PROBED, rttvar, tp->rttvar_us);
	READ(READS_PROBED, to->icsk_retransmits, tp->inet_conn.icsk_retransmits);
	READ(READS_PROBED, to->probes_out, tp->inet_conn.icsk_probes_out);
	to->rto_us = jiffies_to_us(rto);
	to->rttvar_us = to->totals.srtt_us == MICROSECONDS_UNKNOWN ? MICROSECONDS_UNKNOWN : rttvar >> 2;
	to->ca_state = READ_BITS(READS_PROBED, &tp->inet_conn, icsk_ca_state);
	to->nodelay = READ_BITS(READS_PROBED, tp, nonagle) & TCP_NAGLE_OFF;
}

/* As tcp_get_info(): tcpi_last_data_sent and tcpi_last_data_recv. */
INLINE void read_ages(struct snapshot *to, struct tcp_sock *tp)
{
	u32 now = lower_32_bits(bpf_jiffies64()), sent = now, received = now;

	READ(READS_PROBED, sent, tp->lsndtime);
	READ(READS_PROBED, received, tp->inet_conn.icsk_ack.lrcvtime);
	to->last_data_sent_us = jiffies_to_us(now - sent);
	to->last_data_recv_us = jiffies_to_us(now - received);
}

INLINE void read_snapshot(struct snapshot *to, struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	READ(READS_PROBED, to->state, sk->__sk_common.skc_state);
	READ(READS_PROBED, to->sndbuf, sk->sk_sndbuf);
	READ(READS_PROBED, to->rcvbuf, sk->sk_rcvbuf);
	READ(READS_PROBED, to->mss, tp->mss_cache);
	if (to->state == TCP_LISTEN) {
		READ(READS_PROBED, to->backlog, sk->sk_ack_backlog);
		READ(READS_PROBED, to->backlog_limit, sk->sk_max_ack_backlog);
	}
	read_totals_by(&to->totals, tp, READS_PROBED);
	read_queues(to, tp);
	read_recovery(to, tp);
	read_ages(to, tp);
}

SEC("iter/task_file") int iterate_snapshot(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct connection c = {};
	struct owner holder = {};
	struct snapshot *s;
	struct sock *sk;
	u32 zero = 0;

	if (!task || !file)
		return 0;
	sk = sock_of_file(file);
	if (!sk || !is_tcp_socket(sk) || !socket_ports_pass(&sk->__sk_common, READS_PROBED) || !other_task_passes(task))
		return 0;
	read_connection(&c, &sk->__sk_common, READS_PROBED);
	s = bpf_map_lookup_elem(&snapshot_buffer, &zero);
	if (!s || !connection_passes(&c))
		return 0;
	*s = (struct snapshot){};
	read_holder(&holder, task);
	event_begin(&s->event, KIND_SNAPSHOT, &c, &holder);
	s->event.socket = cookie_of(sk, READS_PROBED);
	s->inode = file->f_inode->i_ino;
	read_snapshot(s, sk);
	bpf_seq_write(ctx->meta->seq, s, sizeof(*s));
	return 0;
}
