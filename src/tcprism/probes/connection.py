"""The life of connections, and their owners (bpf/probes/connection, reset and owner.bpf.c)."""

from tcprism.probes import Hook, Probe, Program

_NO_ROUTE = "a connect that fails before a SYN is made, for there is no route or no free port"
_STATE = "tracepoints inet_sock_set_state and inet_sk_error_report"

STATE = Program(
    "tracepoint_state",
    kinds=("connect", "accept", "close", "state", "undo"),
    order=1,  # after the other hooks: it forgets sockets that are closed
)

_ERROR = Program("tracepoint_error", tracepoint="inet_sk_error_report")

CONNECTION = Probe(
    family="connection",
    kinds=("connect", "accept", "close", "state"),
    hooks=(
        Hook(
            mechanism="fentry",
            name=f"{_STATE}, and fexit of inet_csk_accept for who accepts",
            programs=(STATE, _ERROR, Program("fexit_accept")),
            since="5.5",
            cannot_tell=(_NO_ROUTE,),
        ),
        Hook(
            mechanism="kprobe",
            name=f"{_STATE}, and kretprobe of inet_csk_accept for who accepts",
            programs=(STATE, _ERROR, Program("kretprobe_accept", attach="kprobe")),
            since="5.5",
            cannot_tell=(_NO_ROUTE,),
        ),
        Hook(
            mechanism="tracepoint",
            name=_STATE,
            programs=(STATE, _ERROR),
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
            programs=(
                Program("tracepoint_reset_sent", ("reset",)),
                Program("tracepoint_reset_received", ("reset",)),
            ),
            since="5.5",
            cannot_tell=("before 6.10: resets that are sent without a socket, and the reason",),
        ),
    ),
)
