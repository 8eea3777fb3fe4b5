"""Segments: TCP hands them to IP (bpf/probes/segment*.bpf.c, retransmit.bpf.c)."""

from tcprism.probes import Hook, Probe

_NO_SOCKET = "resets and ACKs (of TIME-WAIT) that are sent without a socket, and SYN-ACKs"

PROBE = Probe(
    family="segment",
    kinds=("transmit", "probe"),
    hooks=(
        Hook(
            mechanism="fentry",
            name="fentry and fexit of __tcp_transmit_skb",
            programs=("fentry_transmit", "fexit_transmit"),
            since="5.5",
            cannot_tell=(_NO_SOCKET,),
        ),
        Hook(
            mechanism="kprobe",
            name="kprobe and kretprobe of __tcp_transmit_skb",
            programs=("kprobe_transmit", "kretprobe_transmit"),
            since="4.17",
            cannot_tell=(_NO_SOCKET,),
        ),
        Hook(
            mechanism="tracepoint",
            name="cgroup_skb/egress at the cgroup v2 root",
            programs=("cgroup_transmit",),
            since="4.10",
            cannot_tell=(
                "segments that netfilter drops in OUTPUT or POSTROUTING",
                "ACKs of TIME-WAIT and, by IPv6, resets that are sent without a socket",
                "SYN-ACKs by IPv6 on 5.10 and 6.1",
                "error",
            ),
        ),
    ),
)

DELIVERY = Probe(
    family="delivery",
    kinds=("acked",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="tracepoints tcp_probe and inet_sock_set_state",
            programs=("tracepoint_acked", "tracepoint_acked_at_end"),
            since="5.5",
            cannot_tell=(
                "of more than 16 sends of a connection under way, the latest, and those whose"
                " seq is null (counted: map_full)",
                "unread_us where more than 16 segments wait to be read, after the peer's FIN, or"
                " where seq is null",
            ),
        ),
    ),
)
