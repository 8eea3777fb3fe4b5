"""Segments: TCP hands them to IP, or IP to TCP (bpf/probes/segment*.bpf.c, retransmit.bpf.c)."""

from tcprism.probes import Hook, Probe, Program

_KINDS = ("transmit", "probe")
_NO_PACKET = (
    "ecn, and as the packet has no header yet, its options, payload and the flags ECE, CWR and AE:"
    " if options or payload are asked for, tracepoint is used"
)
_NO_SOCKET = "resets and ACKs (of TIME-WAIT) that are sent without a socket, and SYN-ACKs"

_EGRESS = Program("cgroup_transmit", (*_KINDS, "translate"), "cgroup")

PROBE = Probe(
    family="segment",
    kinds=_KINDS,
    hooks=(
        Hook(
            mechanism="fentry",
            name="fentry and fexit of __tcp_transmit_skb",
            programs=(Program("fentry_transmit", _KINDS), Program("fexit_transmit", _KINDS)),
            since="5.5",
            cannot_tell=(_NO_SOCKET, _NO_PACKET),
        ),
        Hook(
            mechanism="kprobe",
            name="kprobe and kretprobe of __tcp_transmit_skb",
            programs=(
                Program("kprobe_transmit", _KINDS, "kprobe"),
                Program("kretprobe_transmit", _KINDS, "kprobe"),
            ),
            since="4.17",
            cannot_tell=(_NO_SOCKET, _NO_PACKET),
        ),
        Hook(
            mechanism="tracepoint",
            name="cgroup_skb/egress at the cgroup v2 root",
            programs=(_EGRESS,),
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

TRANSLATION = Probe(
    family="translation",
    kinds=("translate",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="cgroup_skb/egress at the cgroup v2 root",
            programs=(_EGRESS,),
            since="4.10",
            cannot_tell=(
                "what another network namespace or host makes of a packet, as Docker's and"
                " Kubernetes' NAT for containers",
                "translations of connections that send nothing",
            ),
        ),
    ),
)

RECEIVE = Probe(
    family="receive",
    kinds=("receive",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="cgroup_skb/ingress at the cgroup v2 root, tracepoint kfree_skb",
            programs=(
                Program("cgroup_receive", ("receive",), "cgroup"),
                Program("tracepoint_receive", ("receive",)),
            ),
            since="5.5",
            cannot_tell=(
                "what netfilter drops in PREROUTING or INPUT, or IPsec, TCP-MD5 or TCP-AO refuses",
                "segments without a socket, or with a wrong checksum that is found before the"
                " socket is, before 5.17, and those for TIME-WAIT before 6.11",
                "arrival in a handshake, while a process holds the socket or segments wait for it,"
                " while another CPU works on it, and of segments whose checksum only TCP checks",
                "whether out_of_order data had arrived before, or an old time stamp (PAWS) makes"
                " TCP discard what is in order",
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
