"""A drop is shown if the kernel threw away what it should have kept, and only then.

The truth: segments made by hand, the kernel's counters, and what the application received.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcprism.events.names import tcp_flags_text
from tests.support import hooks, segments
from tests.support.conversation import abandoned, bulk, hang_up, ping_pong, receive, refused
from tests.support.netns import Netns, Pair, joined
from tests.support.segments import ACK, FIN, PSH, RST, SYN, Numbers
from tests.support.tracer import Event, tracing
from tests.support.wire import ETH_P_ALL

from .ways import ESTABLISHED

PORT = 5900
EARLIER = b"taken in before"
FAR = 1 << 24  # beyond any window
PATIENCE = 60.0


@dataclass(frozen=True)
class Stray:
    """A segment made by hand: what it is, what the kernel counts, and whether it is a drop.

    A drop is one that is `proven` by the socket, which kernels tell since 6.11, or by the reason.
    """

    name: str
    build: Callable[[Numbers], dict[str, Any]]
    counter: str | None = None
    proven: str | None = None


def at(
    offset: int, flags: int, payload: bytes = b"", *, acked: int = 0, late_ms: int = 0
) -> Callable[[Numbers], dict[str, Any]]:
    """Make a segment so far behind what the server expects, with a time stamp so much too old."""
    return lambda n: {
        "seq": n.seq + offset,
        "ack": n.ack + acked,
        "flags": flags,
        "payload": payload,
        "options": segments.timestamps(n.clock - late_ms) if late_ms else b"",
    }


def wrong(flags: int, payload: bytes) -> Callable[[Numbers], dict[str, Any]]:
    """Make a segment with a wrong checksum."""
    return lambda n: at(0, flags, payload)(n) | {"wrong_by": 1}


LATE = 60_000
STRAYS = (
    Stray("keepalive", at(-1, ACK), "OutSegs"),
    Stray("acknowledgement beyond the window", at(FAR, ACK), "OutSegs"),
    Stray("acknowledgement of nothing sent", at(0, ACK, acked=1 << 20)),
    Stray("reset beyond the window", at(FAR, RST)),
    Stray("reset within the window", at(5, RST), "TCPChallengeACK"),
    Stray("old acknowledgement of an old clock", at(-1, ACK, late_ms=LATE)),
    Stray("bytes beyond the window", at(FAR, ACK | PSH, b"far"), "OutSegs", "reason"),
    Stray("bytes with a wrong checksum", wrong(ACK | PSH, b"broken"), "InCsumErrors", "reason"),
    Stray("bytes of an old clock", at(0, ACK, b"late", late_ms=LATE), "PAWSEstab", "socket"),
    Stray("bytes that acknowledge nothing sent", at(0, ACK, b"ahead", acked=1 << 20),
          None, "socket"),
    Stray("bytes without a flag", at(0, 0, b"bare"), None, "socket"),
    Stray("a handshake in the midst of it", at(0, SYN), "TCPSYNChallenge", "socket"),
    Stray("a FIN of an old clock", at(0, FIN | ACK, late_ms=LATE), "PAWSEstab", "socket"),
)  # fmt: skip


def is_drop(stray: Stray) -> bool:
    """Tell whether the kernel shows enough to prove it."""
    if stray.name == "bytes beyond the window":
        return hooks.has_reason("TCP_OLD_SEQUENCE")  # before, both had one reason
    return stray.proven == "reason" or (stray.proven == "socket" and hooks.drops_have_socket())


@dataclass
class Outcome:
    """What became of the strays: what was sent, by name, what the program received, the drops."""

    sent: dict[str, dict[str, Any]]
    received: bytes
    events: list[Event]


def counters(netns: Netns) -> dict[str, int]:
    """Return all that the kernel counts of TCP in a namespace."""
    return netns.tcp_counters() | netns.extended_counters()


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {key: after[key] - before[key] for key in after}


def await_growth(netns: Netns, before: dict[str, int], counter: str) -> dict[str, int]:
    """Wait until a counter has grown; return how much each has."""
    deadline = time.monotonic() + PATIENCE
    while not (grown := growth(before, counters(netns)))[counter]:
        assert time.monotonic() < deadline, f"{counter} does not grow"
        time.sleep(0.001)
    return grown


def stray_about(pair: Pair, outcome: Outcome) -> None:
    """Send each stray to the server in the client's name, amid real bytes."""
    client, server = pair.connection(4, PORT)
    pair.server.configure("net/ipv4/tcp_invalid_ratelimit", "0")
    with closing(client), closing(server), segments.raw_socket(pair.client) as raw:
        client.sendall(EARLIER)
        outcome.received += server.recv(100)
        server.sendall(b"answer")
        receive(client, 6)
        for stray in STRAYS:
            before = counters(pair.server)
            fields = stray.build(segments.numbers(client))
            ends = (client.getsockname(), server.getsockname())
            raw.sendto(segments.segment(*ends, **fields), (ends[1][0], 0))
            await_growth(pair.server, before, stray.counter or "InSegs")
            outcome.sent[stray.name] = fields
        client.sendall(b"!")
        outcome.received += server.recv(100)
        hang_up(client, server)
    pair.await_closed()


def play(output: Path) -> Outcome:
    """Send all strays, one after the other, under a trace."""
    outcome = Outcome({}, b"", [])
    with (
        joined() as pair,
        tracing(output, "--kinds", "drop", "--netns", pair.server.path) as tracer,
    ):
        stray_about(pair, outcome)
    outcome.events = tracer.events
    return outcome


def key(seq: int, payload: int, flags: str | None) -> tuple[int, int, str | None]:
    return (seq % 2**32, payload, flags)


def test_strays(tmp_path: Path) -> None:
    """Bytes, a SYN or a FIN that the socket lacks are a drop; what needs no repetition is none."""
    outcome = play(tmp_path / "events")
    assert outcome.received == EARLIER + b"!"
    expected = Counter(
        key(sent["seq"], len(sent["payload"]), tcp_flags_text(sent["flags"]))
        for stray in STRAYS
        if (sent := outcome.sent[stray.name]) and is_drop(stray)
    )
    events = outcome.events
    assert Counter(key(e["seq"], e["bytes"], e["flags"]) for e in events) == expected
    assert {(e["outgoing"], e["local_port"]) for e in events} == {(False, PORT)}


def harmless(pair: Pair) -> None:
    """Do what makes the kernel discard much and lose nothing."""
    client, server = pair.connection(4, PORT + 1)
    with closing(client), closing(server):
        client.shutdown(socket.SHUT_WR)  # from here on acknowledgements come in CLOSE_WAIT
        bulk(server, client)
        hang_up(server, client)
    for family in (4, 6):
        abandoned(pair, family, PORT + 2)
        refused(pair, family, PORT + 3)
    ping_pong_while_captured(pair)
    pair.await_closed()


def ping_pong_while_captured(pair: Pair) -> None:
    """Converse while a capture that nobody reads throws away its copies."""
    client, server = pair.connection(4, PORT + 4)
    with pair.client.entered():
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with capture, closing(client), closing(server):
        capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        ping_pong(client, server)
        hang_up(client, server)


def test_what_is_not_lost_is_no_drop(pair: Pair, tmp_path: Path) -> None:
    """RetransSegs does not grow, so nothing was lost; a machine that stalls has another try."""
    ends = (pair.client, pair.server)
    chosen = [option for end in ends for option in ("--netns", end.path)]
    with tracing(tmp_path / "events", "--kinds", "drop", *chosen) as tracer:
        for _ in range(10):
            began, before = time.monotonic_ns(), [end.tcp_counters() for end in ends]
            harmless(pair)
            again = [growth(*both)["RetransSegs"] for both in zip(
                before, [end.tcp_counters() for end in ends], strict=True)]  # fmt: skip
            if not any(again):
                break
    assert not any(again), "the machine is too slow to lose nothing"
    assert [event for event in tracer.events if event["ts_ns"] >= began] == []


def test_the_end_of_a_handshake_without_room(pair: Pair, tmp_path: Path) -> None:
    """An acknowledgement that finds the accept queue full is a drop, as ListenOverflows counts."""
    port, forged = PORT + 5, 40001
    client_ip, server_ip = "10.77.0.1", pair.server_addresses[4]
    pair.client.run("nft", "add table inet quiet; add chain inet quiet out { type filter hook"
                    f" output priority 0; }}; add rule inet quiet out tcp sport {forged}"
                    " tcp flags rst drop")  # fmt: skip
    with (
        tracing(tmp_path / "events", "--kinds", "drop", "--netns", pair.server.path) as tracer,
        pair.server.socket() as listener,
        pair.client.socket() as client,
        segments.raw_socket(pair.client) as raw,
        segments.receiving(pair.client) as answers,
    ):
        listener.bind((server_ip, port))
        listener.listen(0)
        ends = ((client_ip, forged), (server_ip, port))
        raw.sendto(segments.segment(*ends, 1000, 0, SYN), (server_ip, 0))
        isn = segments.await_syn_ack(answers, port, forged)
        client.connect((server_ip, port))
        pair.server.await_state(ESTABLISHED)
        before = counters(pair.server)
        raw.sendto(segments.segment(*ends, 1001, isn + 1, ACK), (server_ip, 0))
        await_growth(pair.server, before, "ListenOverflows")
    ends_of_handshakes = [e for e in tracer.events if e["flags"] == "ACK"]
    if hooks.drops_have_socket():
        (event,) = ends_of_handshakes
        assert (event["local_port"], event["remote_port"]) == (port, forged)
        assert event["pid"] == os.getpid()
    else:
        assert ends_of_handshakes == []
