"""Segments: TCP hands them to IP (bpf/probes/segment*.bpf.c, retransmit.bpf.c)."""

from tcprism.probes import Hook, Probe, Program

_KINDS = ("transmit", "probe")
_NO_SOCKET = "resets and ACKs (of TIME-WAIT) that are sent without a socket, and SYN-ACKs"

PROBE = Probe(
    family="segment",
    kinds=_KINDS,
    hooks=(
        Hook(
            mechanism="fentry",
            name="fentry and fexit of __tcp_transmit_skb",
            programs=(Program("fentry_transmit", _KINDS), Program("fexit_transmit", _KINDS)),
            since="5.5",
            cannot_tell=(_NO_SOCKET,),
        ),
        Hook(
            mechanism="kprobe",
            name="kprobe and kretprobe of __tcp_transmit_skb",
            programs=(
                Program("kprobe_transmit", _KINDS, "kprobe"),
                Program("kretprobe_transmit", _KINDS, "kprobe"),
            ),
            since="4.17",
            cannot_tell=(_NO_SOCKET,),
        ),
        Hook(
            mechanism="tracepoint",
            name="cgroup_skb/egress at the cgroup v2 root",
            programs=(Program("cgroup_transmit", _KINDS, "cgroup"),),
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
            programs=(
                Program("tracepoint_acked", ("acked",)),
                Program("tracepoint_acked_at_end", ("acked",)),
            ),
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
