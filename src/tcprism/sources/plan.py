"""The plan of hooks: which probes a request needs, and what their programs are told."""

from __future__ import annotations

from collections.abc import Sequence

from tcprism.events.kinds import BY_NAME, NUMBERS
from tcprism.features import Choice, machine, programs_of
from tcprism.features.kernel import packets_have_process
from tcprism.kernel.types import kernel_types
from tcprism.probes import Probe, Program, connection, loss, message, owner, segment, tls
from tcprism.ring.buffer import Layout
from tcprism.sources.host_pids import own_pid
from tcprism.sources.request import Request

PROBES = (
    message.PROBE,
    segment.PROBE,
    segment.RECEIVE,
    segment.TRANSLATION,
    loss.RETRANSMIT,
    loss.UNDO,
    loss.DROP,
    segment.DELIVERY,
    connection.CONNECTION,
    connection.RESET,
    tls.PROBE,
)

_SENT_AGAIN = 4_096  # sockets whose latest retransmission has no event yet: one a CPU would do
_TRANSLATED = 16_384  # connections that are told of once
_TLS_CALLS = 16_384  # threads that are in a TLS library
_TLS_CIPHERTEXTS = 4_096  # under way from a library to a socket
_TLS_WAITING = 64  # WAITING_SLOTS


def owners_from(kinds: Sequence[str]) -> Probe | None:
    """Return the probe that sees who uses a socket, beside its connections; None: nobody asks.

    A process is at work at its messages, and at the segments that leave meanwhile: a flood of
    messages has few of those.
    """
    if set(kinds) & set(message.PROBE.kinds):
        return message.PROBE if set(kinds) - set(message.PROBE.kinds) else None
    if "transmit" in kinds and packets_have_process():
        return segment.PROBE
    return message.PROBE if _owned(kinds) else None


def _owned(kinds: Sequence[str]) -> bool:
    return any(BY_NAME[kind].owned for kind in kinds)


def probes_for(kinds: Sequence[str], options: bool = False) -> list[Probe]:
    """Return the probes to load: those of the kinds, and those that the kinds depend on.

    The options of a retransmission are seen as its packet leaves.
    """
    wanted = {*kinds, *(need for kind in kinds for need in BY_NAME[kind].needs)}
    needed = {watch.family} if (watch := owners_from(kinds)) else set()
    if _owned(kinds):
        needed |= {connection.CONNECTION.family}
    if options and "retransmit" in kinds:
        needed |= {segment.PROBE.family}
    return [probe for probe in PROBES if set(probe.kinds) & wanted or probe.family in needed]


def forced(request: Request, probes: Sequence[Probe]) -> dict[str, str]:
    """Return the mechanism to force; not on a probe that only knows the owners for others."""
    if request.mechanism is None:  # only as a packet has a segment its header
        return {segment.PROBE.family: "tracepoint"} if request.reads_packets else {}
    kinds = set(request.kinds)
    return {p.family: request.mechanism for p in probes if kinds & set(p.kinds)}


def programs_for(request: Request, choices: Sequence[Choice]) -> list[Program]:
    """Return the programs to load, each once, in the order in which they are to be attached."""
    types = kernel_types()
    programs = [
        program for choice in choices if choice.hook for program in programs_of(choice.hook, types)
    ]
    programs += owner.FOLLOW if request.filter.follow else ()
    programs += [owner.FIND_OWNERS] if set(request.kinds) - {"send", "recv"} else []
    return sorted(dict.fromkeys(programs), key=lambda program: program.order)


def table_sizes(request: Request, storage: bool) -> dict[str, int]:
    """Return the entries of the tables by socket address, which stand in for storage."""
    room = 1 if storage else request.max_connections
    sizes = {
        "notes_by_address": room,
        "deliveries_by_address": room if "acked" in request.kinds else 1,
    }
    if request.options:
        sizes["sent_again"] = _SENT_AGAIN
    if "translate" in request.kinds:
        sizes["translated"] = _TRANSLATED
    if traces_tls(request):
        sizes |= {
            "tls_calls": _TLS_CALLS,
            "tls_calls_of_goroutines": _TLS_CALLS,
            "tls_sessions": request.max_connections,
            "tls_ciphertexts": _TLS_CIPHERTEXTS,
            "tls_sessions_by_socket": request.max_connections,
            "tls_ciphers": request.max_connections,
            "tls_sealed": _TLS_CIPHERTEXTS,
            "tls_received": _TLS_CIPHERTEXTS,
            "tls_waiting": _TLS_WAITING,
        }
    return sizes


def traces_tls(request: Request) -> bool:
    """Tell whether plaintext is asked for."""
    return bool(set(request.kinds) & set(tls.PROBE.kinds))


def configuration(request: Request, storage: bool, layouts: dict[str, Layout]) -> dict[str, object]:
    """Return what the programs are told: the fields of struct config."""
    return {
        "kinds": sum(1 << NUMBERS[kind] for kind in request.kinds),
        "self_pid": 0 if request.include_self else own_pid(),
        "payload_limit": request.payload,
        "segment_payload_limit": request.segment_payload,
        "owners_from_messages": owners_from(request.kinds) is message.PROBE,
        "owners_from_segments": owners_from(request.kinds) is segment.PROBE,
        "local_storage": storage,
        "can_cast": bool(kernel_types().function_id("bpf_rdonly_cast")),
        "recvmsg_arguments": kernel_types().parameters("tcp_recvmsg"),
        "accept_arguments": kernel_types().parameters("inet_csk_accept"),
        "tls": traces_tls(request),
        "tls_records": request.tls_records,
        "options": request.options,
        "skip_bodies": request.skip_bodies,
        "tick_ns": machine.tick_ns(),
        "last_lane": max(layout.lanes for layout in layouts.values()) - 1,
        **request.filter.switches(),
    }
