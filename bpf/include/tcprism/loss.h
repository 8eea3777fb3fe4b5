/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the kernel knew about a connection when a segment was lost: shared by retransmissions, undos and drops. */
#ifndef TCPRISM_LOSS_H
#define TCPRISM_LOSS_H

#include "segment.h"
#include "totals.h"

INLINE void no_evidence(struct loss *to)
{
	to->rto_us = MICROSECONDS_UNKNOWN;
	to->rttvar_us = MICROSECONDS_UNKNOWN;
	to->reason = REASON_UNKNOWN;
	no_congestion(&to->segment);
}

INLINE void read_evidence(struct loss *to, struct tcp_sock *tp)
{
	u32 rttvar = tp->rttvar_us;

	read_congestion(&to->segment, tp, READS_BTF);
	to->rto_us = jiffies_to_us(tp->inet_conn.icsk_rto);
	to->rttvar_us = tp->srtt_us ? rttvar >> 2 : MICROSECONDS_UNKNOWN; /* stored times 4 */
	to->ssthresh = tp->snd_ssthresh;
	to->sacked_out = tp->sacked_out;
	to->lost_out = tp->lost_out;
	to->retrans_out = tp->retrans_out;
	to->icsk_retransmits = tp->inet_conn.icsk_retransmits;
	to->reason = REASON_UNKNOWN;
}

/*
 * In state Loss the timer has expired (icsk_retransmits), or the connection still recovers from an earlier expiry
 * (undo_marker). With neither, a router's "packet too big" made the kernel retransmit.
 */
INLINE u32 cause_of(struct tcp_sock *tp, u32 ca_state, u32 flags)
{
	if (flags & TCPHDR_SYN)
		return flags & TCPHDR_ACK ? CAUSE_SYN_ACK : CAUSE_SYN;
	if (ca_state == TCP_CA_RECOVERY)
		return CAUSE_FAST;
	if (ca_state == TCP_CA_LOSS)
		return tp->inet_conn.icsk_retransmits || tp->undo_marker ? CAUSE_RTO : CAUSE_UNKNOWN;
	return is_loss_probe(tp, READS_BTF) ? CAUSE_TLP : CAUSE_UNKNOWN;
}

#endif
