"""The life of connections, and whose they are (bpf/probes/connection, reset and owner.bpf.c)."""

from tcprism.probes import Hook, Probe

_NO_ROUTE = "a connect that fails before a SYN is made, for there is no route or no free port"
_STATE = "tracepoint inet_sock_set_state"

CONNECTION = Probe(
    family="connection",
    kinds=("connect", "accept", "close", "state"),
    hooks=(
        Hook(
            mechanism="fentry",
            name=f"{_STATE}, and fexit of inet_csk_accept for who accepts",
            programs=("tracepoint_state", "fexit_accept"),
            since="5.5",
            cannot_tell=(_NO_ROUTE,),
        ),
        Hook(
            mechanism="kprobe",
            name=f"{_STATE}, and kretprobe of inet_csk_accept for who accepts",
            programs=("tracepoint_state", "kretprobe_accept"),
            since="5.5",
            cannot_tell=(_NO_ROUTE,),
        ),
        Hook(
            mechanism="tracepoint",
            name=_STATE,
            programs=("tracepoint_state",),
            since="5.5",
            cannot_tell=(
                _NO_ROUTE,
                "who accepted a connection, before its first send, recv or close: the process that"
                " listens is shown",
            ),
        ),
    ),
)

RESET = Probe(
    family="reset",
    kinds=("reset",),
    hooks=(
        Hook(
            mechanism="tracepoint",
            name="tracepoints tcp_send_reset and tcp_receive_reset",
            programs=("tracepoint_reset_sent", "tracepoint_reset_received"),
            since="5.5",
            cannot_tell=("before 6.10: resets that are sent without a socket, and the reason",),
        ),
    ),
)
