"""What segments tell together, on every kernel: against captures as tcpdump prints them.

One trace for a loss, for segments that overtake others, and for a response that comes in parts.
test_joins.py and test_explain_segments.py look closer, on the host's kernel.
"""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcprism.diagnosis.ends import own_keys
from tcprism.diagnosis.evidence import Evidence
from tcprism.events import Batch, Event
from tcprism.events.requests import NEEDS
from tcprism.filters import Criteria
from tcprism.protocols.known import protocols
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages.requests import Requests
from tests.support.capture import Packet, capturing
from tests.support.conversation import await_acknowledged, await_unread, hang_up, receive
from tests.support.tracer import note_skipped
from tests.support.wire import Rule, Wire, deliver, lose_data, wired

LOST, OVERTAKEN, ASKED = 5821, 5831, 5841  # ports, from which others follow if one is spoilt
ATTEMPTS = 5
SEGMENT = 1400  # payload bytes that always fit into one
PIECE = 20
# Seconds. Three segments are delayed and the next is not. A quarter of the round trip is longer:
# so much is none thought lost (RFC 8985).
AHEAD, BACK, APART = 0.06, 0.4, 0.004
NETEM = {
    "to-server": f"delay {AHEAD}s reorder 100% gap 4",
    "to-client": f"delay {BACK}s",
}
QUESTION = b"GET /late HTTP/1.1\r\nHost: shop\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
PAUSE = 0.4  # seconds between the parts of the answer, and until the client reads
SLACK = 0.2  # between a packet's capture and TCP, on a slow machine

LINE = re.compile(
    r"(?P<time>\d+\.\d+) IP \S+\.(?P<source>\d+) > \S+\.(?P<destination>\d+): Flags \S+"
    r"(?: seq (?P<seq>\d+)(?::\d+)?,)?(?: ack (?P<ack>\d+),)?.*? length (?P<length>\d+)"
)
NUMBERS = ("time", "source", "destination", "seq", "ack", "length")


@dataclass(frozen=True)
class Line:
    """A packet as tcpdump prints it."""

    time: float
    source: int
    destination: int
    seq: int
    ack: int
    length: int
    stamp: int  # of its sender (TS val)
    sack: tuple[str, ...]


def read(capture: Path) -> list[Line]:
    """Return the packets of a capture; the numbers are absolute."""
    command = ["tcpdump", "-nn", "-S", "-tt", "-r", str(capture), "tcp"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(map(_line, printed.splitlines()))


def _line(text: str) -> Line:
    found = LINE.search(text)
    assert found, text
    stamp = re.search(r"TS val (\d+)", text)
    moment, *numbers = (found[name] or "0" for name in NUMBERS)
    source, destination, seq, ack, length = map(int, numbers)
    sack = tuple(re.findall(r"\{(\d+:\d+)\}", text))
    return Line(
        float(moment), source, destination, seq, ack, length, int(stamp[1] if stamp else 0), sack
    )


@dataclass
class Run:
    """What was traced, and what was on the wire at each end."""

    batches: list[Batch]
    client: list[Line]
    server: list[Line]
    ports: dict[int, int]
    read: tuple[float, float]  # when the client read the answer, at most

    @property
    def events(self) -> Iterator[Event]:
        for batch in self.batches:
            yield from batch


Play = Callable[[Wire, int], bool]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of everything, traced and captured at both ends."""
    directory = tmp_path_factory.mktemp("joins")
    with wired() as wire:
        wire.client.configure("net/ipv4/tcp_early_retrans", "0")  # no tail loss probe between
        both = (wire.client.inode, wire.server.inode)
        kinds = (*NEEDS, "transmit", "receive")
        asked = Request(
            kinds, Criteria(netns=both), 4096, ring_size=1 << 20, options=True, include_self=True
        )
        with Tracing(asked) as tracing:
            with (
                capturing(wire.client, "veth0", directory / "client", "10.77.0.2"),
                capturing(wire.server, "veth0", directory / "server", "10.77.0.1"),
            ):
                ports = {port: played(wire, port, play) for port, play in PLAYS.items()}
                moments = ask(wire, ASKED)
                wire.await_closed()
            tracing.stop()
            batches = list(drained(tracing))
            ledger = tracing.ledger()
            note_skipped("joins", {entry.kind: entry.missed for entry in ledger.entries})
            assert not ledger.lost
    return Run(batches, read(directory / "client"), read(directory / "server"), ports, moments)


def drained(tracing: Tracing) -> Iterator[Batch]:
    """Yield what was traced, with all that its own stages add."""
    while len(batch := tracing.drain()):
        for stage in tracing.stages:
            batch = stage(batch)
        yield batch


def played(wire: Wire, port: int, play: Play) -> int:
    """Play until no stall has spoilt it, as counters tell; return at which port."""
    return next(each for each in range(port, port + ATTEMPTS) if play(wire, each))


def sent_again(wire: Wire) -> tuple[int, int]:
    """Return how many segments the client sent again, and how many of these fast."""
    again = wire.client.tcp_counters()["RetransSegs"]
    return again, wire.client.extended_counters()["TCPFastRetrans"]


def lose(wire: Wire, port: int) -> bool:
    """Lose a segment amid others."""
    before = sent_again(wire)
    client, server = wire.connection(4, port)
    with closing(client), closing(server):
        wire.rule = lose_data(3)
        client.sendall(b"x" * 20 * SEGMENT)
        receive(server, 20 * SEGMENT)
        wire.rule = deliver
        hang_up(client, server)
    wire.await_closed()
    return sent_again(wire) == (before[0] + 1, before[1] + 1)


def overtake(wire: Wire, port: int) -> bool:
    """Have one of five segments overtake three."""
    before, early = sent_again(wire), wire.server.extended_counters()["TCPOFOQueue"]
    with reordering(wire, "to-client"):
        client, server = wire.connection(4, port)
        with closing(client), closing(server):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with reordering(wire, "to-server"):
                for _ in range(5):
                    client.sendall(b"x" * PIECE)
                    time.sleep(APART)  # time stamps are milliseconds
                receive(server, 5 * PIECE)
                await_acknowledged(client)
            hang_up(client, server)
        wire.await_closed()
    came = wire.server.extended_counters()["TCPOFOQueue"] - early
    return sent_again(wire) == before and came == 1


@contextmanager
def reordering(wire: Wire, device: str) -> Iterator[None]:
    """Have netem do it, or the wire where the kernel has no netem."""
    qdisc = f"qdisc add dev {device} root netem {NETEM[device]}"
    before = wire.rule
    try:
        wire.middle.run("tc", *qdisc.split())
    except RuntimeError:
        wire.rule = overtaking() if device == "to-server" else late
        yield
        wire.rule = before
    else:
        yield
        wire.middle.run("tc", *f"qdisc delete dev {device} root".split())


def late(_packet: Packet, to_server: bool) -> float:
    return 0.0 if to_server else BACK


def overtaking() -> Rule:
    """Do as netem does: the fourth that carries data waits for nothing."""
    known: list[int] = []

    def rule(packet: Packet, to_server: bool) -> float:
        if not to_server:
            return BACK
        known.extend([packet.seq] if packet.payload else [])
        return 0.0 if len(known) == 4 else AHEAD

    return rule


PLAYS: dict[int, Play] = {LOST: lose, OVERTAKEN: overtake}


def ask(wire: Wire, port: int) -> tuple[float, float]:
    """Ask, be answered in two parts, and read both later; return when that was, at most."""
    client, server = wire.connection(4, port)
    with closing(client), closing(server):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(QUESTION)
        receive(server, len(QUESTION))
        for part, arrived in ((HEAD, len(HEAD)), (b"body", len(HEAD + b"body"))):
            server.sendall(part)
            await_unread(client, arrived)
            time.sleep(PAUSE)
        before = time.time()
        assert client.recv(1000) == HEAD + b"body"
        after = time.time()
        hang_up(client, server)
        return before, after


def test_the_acks_that_caused_a_fast_retransmission(run: Run) -> None:
    """As many as tcpdump has with SACK between the two times that the segment left."""
    port = run.ports[LOST]
    (again,) = [e for e in run.events if e.kind == "retransmit" and e.remote_port == port]
    wire = [line for line in run.client if port in (line.source, line.destination)]
    twice = [place for place, line in enumerate(wire) if line.seq == again.seq and line.length]
    assert len(twice) == 2
    acks = [line for line in wire[twice[0] : twice[1]] if line.source == port and line.sack]
    assert {line.ack for line in acks} == {again.seq}
    assert again.cause == "fast"
    assert again.duplicate_acks == len(acks) >= 1
    assert again.sack_blocks == acks[-1].sack[0]


def test_segments_that_overtook_others(run: Run) -> None:
    """The order in which they left against that in which they came."""
    port = run.ports[OVERTAKEN]
    sent, came = (
        [(line.seq, line.stamp) for line in lines if line.destination == port and line.length]
        for lines in (run.client, run.server)
    )
    assert sorted(sent) == sorted(came)
    assert len(sent) == 5
    places = [sent.index(each) for each in came]
    overtaken = sum(place < max(places[: n + 1]) for n, place in enumerate(places))
    assert overtaken >= 1
    assert found_at(run, port, "reordered", "local_port") == overtaken
    assert found_at(run, port, "reordered", "remote_port") == 0
    arrivals = [
        event.arrival
        for event in run.events
        if event.kind == "receive" and event.local_port == port and event.bytes
    ]
    assert arrivals.count("out_of_order") == 1


def found_at(run: Run, port: int, fact: str, side: str) -> float:
    """Return what segments told of a connection, at the end where the port is on a side."""
    evidence = Evidence()
    for batch in run.batches:
        evidence.add(batch)
    rows = next(
        rows[:1]
        for batch in run.batches
        for part in batch.parts
        if part.family == "segment" and len(rows := part.rows[part.rows[side] == port])
    )
    numbers = evidence.numbers.find(own_keys(rows))
    return float(evidence.segments.facts(numbers, rows["ts_ns"].astype("i8"))[fact][0])


def test_when_the_first_byte_of_an_answer_arrived(run: Run) -> None:
    """It lay unread from when the capture has it."""
    stage = Requests(protocols(["http"]), alone=True)
    made = [event for batch in run.batches for event in stage(batch)]
    (event,) = [*made, *stage.close()]
    came = next(line.time for line in run.client if line.source == ASKED and line.length)
    least, most = (moment - came for moment in run.read)
    assert event.arrival_source == "segment"
    assert least > 2 * PAUSE
    assert event.unread_ns is not None
    assert least - SLACK <= event.unread_ns / 1e9 <= most + SLACK
