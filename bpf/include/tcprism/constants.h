/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Constants that are missing from the kernel's BTF, because they are macros, or that never change. */
#ifndef TCPRISM_CONSTANTS_H
#define TCPRISM_CONSTANTS_H

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define BPF_F_CURRENT_NETNS (-1L) /* include/uapi/linux/bpf.h */
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define TCP_NAGLE_OFF 1 /* TCP_NODELAY, include/net/tcp.h */
#define PACKET_OTHERHOST 3 /* include/uapi/linux/if_packet.h */
#define PACKET_OUTGOING 4
#define EPIPE 32
#define ECONNABORTED 103
#define ECONNRESET 104
#define ETIMEDOUT 110

#define SOCK_DEAD 0 /* enum sock_flags: no process has it any more */
#define SOCK_DONE 1 /* the peer's FIN has arrived */
#define RCV_SHUTDOWN 1 /* include/net/sock.h */
#define SHUTDOWN_MASK 3

#define MSG_OOB 0x01
#define MSG_PEEK 0x02
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define MSG_ZEROCOPY 0x4000000
#define MSG_SPLICE_PAGES 0x8000000

#define EAGAIN 11
#define ERESTARTSYS 512 /* to 516: the call is made again or becomes EINTR, without any data */
#define ERESTART_LAST 516

#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define TCP_NEW_SYN_RECV 12

#define TCP_CA_RECOVERY 3 /* enum tcp_ca_state, include/uapi/linux/tcp.h */
#define TCP_CA_LOSS 4

#define TCP_WRITE_TIMER_DEFERRED 3 /* enum tsq_enum, include/linux/tcp.h */
#define ICSK_TIME_RETRANS 1 /* include/net/inet_connection_sock.h */
#define ICSK_TIME_LOSS_PROBE 5

#define SO_EE_ORIGIN_LOCAL 1 /* include/uapi/linux/errqueue.h */
#define SO_EE_ORIGIN_ICMP6 3

#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02
#define TCPHDR_RST 0x04
#define TCPHDR_PSH 0x08
#define TCPHDR_ACK 0x10

#define PF_IO_WORKER 0x00000010
#define PF_KTHREAD 0x00200000
#define TS_COMPAT 0x0002 /* x86: the thread is inside a 32-bit system call */

#endif
