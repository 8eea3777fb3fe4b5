/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* struct totals: what a tcp_sock has counted over the life of its connection. */
#ifndef TCPRISM_TOTALS_H
#define TCPRISM_TOTALS_H

#include "emit.h"

enum tcp_chrono { /* include/net/tcp.h */
	TCP_CHRONO_BUSY = 1,
	TCP_CHRONO_RWND_LIMITED,
	TCP_CHRONO_SNDBUF_LIMITED,
};

INLINE u64 jiffies_to_us(u32 jiffies)
{
	return (u64)jiffies * config.tick_ns / 1000;
}

INLINE void read_counts(struct totals *to, struct tcp_sock *tp, enum reads reads)
{
	READ(reads, to->bytes_sent, tp->bytes_sent);
	READ(reads, to->bytes_acked, tp->bytes_acked);
	READ(reads, to->bytes_received, tp->bytes_received);
	READ(reads, to->bytes_retrans, tp->bytes_retrans);
	READ(reads, to->segs_out, tp->segs_out);
	READ(reads, to->segs_in, tp->segs_in);
	READ(reads, to->data_segs_out, tp->data_segs_out);
	READ(reads, to->data_segs_in, tp->data_segs_in);
	READ(reads, to->total_retrans, tp->total_retrans);
	READ(reads, to->dsack_dups, tp->dsack_dups);
	READ(reads, to->reord_seen, tp->reord_seen);
}

/* As tcp_compute_delivery_rate(). */
INLINE u64 delivery_rate(struct tcp_sock *tp, enum reads reads)
{
	u32 delivered = 0, interval = 0, mss = 0;

	READ(reads, delivered, tp->rate_delivered);
	READ(reads, interval, tp->rate_interval_us);
	READ(reads, mss, tp->mss_cache);
	if (!delivered || !interval)
		return RATE_UNKNOWN;
	return (u64)delivered * mss * 1000000 / interval;
}

/* As tcp_get_info_chrono_stats(): the current interval is added. */
INLINE void read_times(struct totals *to, struct tcp_sock *tp, enum reads reads)
{
	u32 now = lower_32_bits(bpf_jiffies64()), busy = 0, rwnd = 0, sndbuf = 0, start = 0, current;

	READ(reads, busy, tp->chrono_stat[TCP_CHRONO_BUSY - 1]);
	READ(reads, rwnd, tp->chrono_stat[TCP_CHRONO_RWND_LIMITED - 1]);
	READ(reads, sndbuf, tp->chrono_stat[TCP_CHRONO_SNDBUF_LIMITED - 1]);
	READ(reads, start, tp->chrono_start);
	current = chrono_type_of(tp, reads);
	if (current == TCP_CHRONO_BUSY)
		busy += now - start;
	if (current == TCP_CHRONO_RWND_LIMITED)
		rwnd += now - start;
	if (current == TCP_CHRONO_SNDBUF_LIMITED)
		sndbuf += now - start;
	to->rwnd_limited_us = jiffies_to_us(rwnd);
	to->sndbuf_limited_us = jiffies_to_us(sndbuf);
	to->busy_us = jiffies_to_us(busy) + to->rwnd_limited_us + to->sndbuf_limited_us;
}

INLINE void read_path(struct totals *to, struct tcp_sock *tp, enum reads reads)
{
	const struct tcp_congestion_ops *congestion = NULL;
	u32 srtt = 0, min = 0;

	READ(reads, srtt, tp->srtt_us);
	READ(reads, min, tp->rtt_min.s[0].v);
	to->srtt_us = srtt ? srtt >> 3 : MICROSECONDS_UNKNOWN;
	to->min_rtt_us = srtt ? min : MICROSECONDS_UNKNOWN; /* infinite until measured */
	to->delivery_rate = delivery_rate(tp, reads);
	READ(reads, to->cwnd, tp->snd_cwnd);
	READ(reads, congestion, tp->inet_conn.icsk_ca_ops);
	bpf_probe_read_kernel(to->congestion, sizeof(to->congestion), congestion->name);
}

INLINE void read_totals_by(struct totals *to, struct tcp_sock *tp, enum reads reads)
{
	read_counts(to, tp, reads);
	read_times(to, tp, reads);
	read_path(to, tp, reads);
}

INLINE void read_totals(struct totals *to, struct tcp_sock *tp)
{
	read_totals_by(to, tp, READS_BTF);
}

#endif
