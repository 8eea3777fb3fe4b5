/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the kernel has counted for a connection: struct totals out of a tcp_sock. */
#ifndef TCPRISM_TOTALS_H
#define TCPRISM_TOTALS_H

#include "emit.h"

enum chrono { /* enum tcp_chrono, less one: include/net/tcp.h */
	CHRONO_BUSY,
	CHRONO_RWND_LIMITED,
	CHRONO_SNDBUF_LIMITED,
	CHRONO_COUNT,
};

INLINE u64 jiffies_to_us(u32 jiffies)
{
	return (u64)jiffies * config.tick_ns / 1000;
}

/* As tcp_compute_delivery_rate(). */
INLINE u64 delivery_rate(const struct tcp_sock *tp)
{
	u32 interval = tp->rate_interval_us;

	if (!tp->rate_delivered || !interval)
		return RATE_UNKNOWN;
	return (u64)tp->rate_delivered * tp->mss_cache * 1000000 / interval;
}

/* As tcp_get_info_chrono_stats(): the clock that runs is added up to now, and all but the first are part of it. */
INLINE void read_chrono(struct totals *to, struct tcp_sock *tp)
{
	u32 running = chrono_type_of(tp);
	u32 since = (u32)bpf_jiffies64() - tp->chrono_start;
	u64 busy = tp->chrono_stat[CHRONO_BUSY];
	u64 rwnd = tp->chrono_stat[CHRONO_RWND_LIMITED];
	u64 sndbuf = tp->chrono_stat[CHRONO_SNDBUF_LIMITED];

	if (running == CHRONO_BUSY + 1)
		busy += since;
	else if (running == CHRONO_RWND_LIMITED + 1)
		rwnd += since;
	else if (running == CHRONO_SNDBUF_LIMITED + 1)
		sndbuf += since;
	to->busy_us = jiffies_to_us(busy + rwnd + sndbuf);
	to->rwnd_limited_us = jiffies_to_us(rwnd);
	to->sndbuf_limited_us = jiffies_to_us(sndbuf);
}

INLINE void read_congestion_name(struct totals *to, const struct tcp_sock *tp)
{
	const struct tcp_congestion_ops *ops = tp->inet_conn.icsk_ca_ops;

	bpf_probe_read_kernel_str(to->congestion, sizeof(to->congestion), &ops->name);
}

INLINE void read_totals(struct totals *to, struct tcp_sock *tp)
{
	u32 srtt = tp->srtt_us, min_rtt = tp->rtt_min.s[0].v;

	to->bytes_sent = tp->bytes_sent;
	to->bytes_acked = tp->bytes_acked;
	to->bytes_received = tp->bytes_received;
	to->bytes_retrans = tp->bytes_retrans;
	to->delivery_rate = delivery_rate(tp);
	to->segs_out = tp->segs_out;
	to->segs_in = tp->segs_in;
	to->data_segs_out = tp->data_segs_out;
	to->data_segs_in = tp->data_segs_in;
	to->total_retrans = tp->total_retrans;
	to->dsack_dups = tp->dsack_dups;
	to->reord_seen = tp->reord_seen;
	to->min_rtt_us = min_rtt; /* ~0 before the first measurement: MICROSECONDS_UNKNOWN */
	to->srtt_us = srtt ? srtt >> 3 : MICROSECONDS_UNKNOWN; /* kept eightfold: tcp_rtt_estimator() */
	to->cwnd = tp->snd_cwnd;
	read_chrono(to, tp);
	read_congestion_name(to, tp);
}

#endif
