/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * How a connection ended, at the transition to CLOSE. The kernel makes that transition before it sends a reset, if it
 * sends one, so this repeats the kernel's own conditions. docs/connections.md lists all ways; the tests cover each.
 */
#ifndef TCPRISM_ENDING_H
#define TCPRISM_ENDING_H

#include "owner.h"

INLINE bool has_sock_flag(const struct sock *sk, u32 flag)
{
	return sk->__sk_common.skc_flags >> flag & 1;
}

/* The peer's FIN has come, and the peer has acknowledged ours if that was sent later. */
INLINE bool both_have_said_so(const struct sock *sk, const struct tcp_sock *tp, u32 old_state)
{
	if (old_state == TCP_FIN_WAIT2)
		return has_sock_flag(sk, SOCK_DONE);
	return (old_state == TCP_LAST_ACK || old_state == TCP_CLOSING) && tp->snd_una == tp->write_seq;
}

/* The receive queue is empty already, but nobody has read it. A FIN takes one sequence number. */
INLINE bool leaves_data_unread(const struct sock *sk, const struct tcp_sock *tp)
{
	return tp->rcv_nxt - tp->copied_seq > has_sock_flag(sk, SOCK_DONE);
}

/*
 * The process itself ended it: __tcp_close() with unread data or without lingering, or tcp_disconnect(). They send a
 * reset, except after a FIN that left nothing to do (tcp_need_reset()), and in repair mode.
 */
INLINE bool process_resets(const struct sock *sk, struct tcp_sock *tp, u32 old_state)
{
	if (READ_BITS(READS_BTF, tp, repair))
		return false;
	if (old_state != TCP_CLOSING && old_state != TCP_LAST_ACK)
		return true;
	return leaves_data_unread(sk, tp) || tp->snd_nxt != tp->write_seq;
}

/* With an earlier pending error; tcp_abort() holds the socket, too. */
INLINE bool is_closed_by_process(const struct sock *sk)
{
	return sk->sk_shutdown == SHUTDOWN_MASK && is_held(sk, READS_BTF) && sk->sk_err != ECONNABORTED;
}

INLINE bool data_came_since_close(const struct tcp_sock *tp, const struct note *note)
{
	return note && note->data_segs_in != (u16)tp->data_segs_in;
}

/*
 * No process holds it any more. FIN-WAIT-2 becomes a smaller socket (tcp_time_wait()), or a reset: with TCP_LINGER2
 * below 0, and if the acknowledgement of the FIN has brought data (tcp_rcv_state_process()). Still locked, it is
 * leaving __tcp_close(): too many orphans, or no memory (tcp_check_oom()).
 */
INLINE u32 ending_of_orphan(const struct sock *sk, const struct tcp_sock *tp, const struct note *note, u32 old_state)
{
	if (old_state == TCP_FIN_WAIT2)
		return tp->linger2 < 0 || data_came_since_close(tp, note) ? ENDING_RESET_SENT : ENDING_FIN;
	if (sk->sk_err)
		return ENDING_ERROR;
	return is_held(sk, READS_BTF) ? ENDING_RESET_SENT : ENDING_ABORTED;
}

/* An earlier error may be pending at the socket that ended nothing (IP_RECVERR): proof of another ending comes first. */
INLINE u32 ending_of(struct sock *sk, const struct note *note, u32 old_state)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp)
		return ENDING_NONE;
	if (both_have_said_so(sk, tp, old_state))
		return ENDING_FIN;
	if (sk->sk_err == ETIMEDOUT) /* by keepalive, a reset was sent first: tcp_keepalive_timer() */
		return ENDING_TIMEOUT;
	if (note && note->reset)
		return note->reset;
	if (sk->sk_err == ECONNRESET || sk->sk_err == EPIPE) /* tcp_reset() */
		return ENDING_RESET_RECEIVED;
	if (has_sock_flag(sk, SOCK_DEAD))
		return ending_of_orphan(sk, tp, note, old_state);
	if (sk->sk_err && !is_closed_by_process(sk))
		return ENDING_ERROR;
	return process_resets(sk, tp, old_state) ? ENDING_RESET_SENT : ENDING_ABORTED;
}

/*
 * tcp_receive_reset also fires when data comes that no process will read: tcp_rcv_state_process() ends the
 * connection as if a reset had come (tcp_reset()), and then sends one. Such data has just been counted and its
 * acknowledgement taken; a reset has no payload, and often no time stamp.
 */
INLINE bool is_data_that_comes_late(const struct sock *sk, const struct tcp_sock *tp, const struct note *note)
{
	u32 state = sk->__sk_common.skc_state;

	if ((state != TCP_FIN_WAIT1 && state != TCP_FIN_WAIT2) || !(sk->sk_shutdown & RCV_SHUTDOWN))
		return false;
	if (tp->rcv_tstamp != lower_32_bits(bpf_jiffies64()))
		return false;
	if (READ_BITS(READS_BTF, &tp->rx_opt, tstamp_ok) && !READ_BITS(READS_BTF, &tp->rx_opt, saw_tstamp))
		return false;
	return !note || data_came_since_close(tp, note) || sk->sk_backlog.len;
}

#endif
