"""Losses: segments retransmitted, found to be spuriously retransmitted, dropped on this host.

See bpf/probes/retransmit.bpf.c, undo.bpf.c and drop.bpf.c.
"""

from tcprism.probes import Hook, Probe, Program
from tcprism.probes.connection import STATE

_RETRANSMIT = Program("tracepoint_retransmit", ("retransmit",))

RETRANSMIT = Probe(
    family="retransmit",
    kinds=("retransmit",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="tracepoints tcp_retransmit_skb and tcp_retransmit_synack",
            programs=(
                _RETRANSMIT,
                Program("tracepoint_retransmit_synack", ("retransmit",)),
            ),
            since="5.5",
            cannot_tell=(
                "attempts that failed, before 6.16 (the tracepoint fires for successes)",
                "the flags ECE, CWR and AE without --options, for the packet's header is gone",
            ),
        ),
    ),
)

UNDO = Probe(
    family="undo",
    kinds=("undo",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="tracepoints tcp_retransmit_skb, tcp_probe and inet_sock_set_state",
            programs=(_RETRANSMIT, Program("tracepoint_undo", ("undo",)), STATE),
            since="5.5",
            cannot_tell=("the exact time: it is found when the next segment arrives",),
        ),
    ),
)

DROP = Probe(
    family="drop",
    kinds=("drop",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="tracepoint kfree_skb",
            programs=(Program("tracepoint_drop", ("drop",)),),
            since="5.5",
            cannot_tell=(
                "the reason, before 5.17, and so any segment that TCP itself rejected",
                "before 6.11, segments that TCP rejected, unless the reason alone proves them new",
                "SYNs that find a listener's queue full (ListenDrops counts them)",
                "segments dropped by the device or on the network",
                "segments behind IPv6 extension headers other than options and routing",
            ),
        ),
    ),
)
