"""What segments that arrive tell together with others: against a capture, and the wire itself."""

import socket
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.conversation import await_unread, hang_up, receive
from tests.support.tracer import Event, tracing, tracing_all
from tests.support.tshark import tshark
from tests.support.wire import Rule, Wire, deliver, lose_data, wired

pytestmark = pytest.mark.native

SEGMENT = 1400  # payload bytes that always fit into one
ABSOLUTE = ("-o", "tcp.relative_sequence_numbers:FALSE", "-o", "gui.column.format:")
FRAME = ("tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.ack", "tcp.len",
         "tcp.options.sack_le", "tcp.options.sack_re", "tcp.analysis.duplicate_ack")  # fmt: skip

Frame = dict[str, str]


def frames(capture: Path, port: int) -> list[Frame]:
    """Return the packets of a port as tshark reads them, the numbers absolute."""
    chosen = [word for name in FRAME for word in ("-e", name)]
    told = tshark(capture, *ABSOLUTE[:2], "-Y", f"tcp.port == {port}", "-T", "fields", *chosen)
    return [dict(zip(FRAME, line.split("\t"), strict=True)) for line in told.splitlines()]


@dataclass
class Run:
    """What one run told, and where its capture is."""

    events: list[Event]
    shown: list[Event]  # by `retransmits --acks`
    capture: Path

    def again(self, port: int) -> list[Event]:
        """Return what was sent again to a port."""
        return [e for e in self.events if e["kind"] == "retransmit" and e["remote_port"] == port]


def converse(wire: Wire, port: int, rule: Rule, sizes: list[int]) -> None:
    """Make so many writes under a rule, and have the server receive them all."""
    client, server = wire.connection(4, port)
    with closing(client), closing(server):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.rule = rule
        for size in sizes:
            client.sendall(b"x" * size)
        receive(server, sum(sizes))
        wire.rule = deliver
        hang_up(client, server)


LOST: dict[int, tuple[Rule, list[int]]] = {
    5801: (lose_data(3), [20 * SEGMENT]),
    5802: (lose_data(4), [100] * 12),
}
WHOLE = 5803


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Losses that SACK tells of, traced and captured at the client."""
    directory = tmp_path_factory.mktemp("joins")
    with wired() as wire:
        wire.send_again_late()  # and no tail loss probe between
        netns = ("--netns", wire.client.path)
        arguments = ("--kinds", "send,retransmit,receive", "--options", *netns)
        with (
            tracing(directory / "events", *arguments) as tracer,
            tracing(directory / "shown", *netns, "--acks", view="retransmits") as shown,
            capturing(wire.client, "veth0", directory / "pcap", wire.server_addresses[4]),
        ):
            for port, (rule, sizes) in LOST.items():
                converse(wire, port, rule, sizes)
            converse(wire, WHOLE, deliver, [20 * SEGMENT])
            wire.await_closed()
    return Run(tracer.events, shown.events, directory / "pcap")


def sacked(frame: Frame) -> list[tuple[int, int]]:
    """Return the SACK blocks of a packet."""
    ends = [frame[f"tcp.options.sack_{end}"].split(",") for end in ("le", "re")]
    return [(int(a), int(b)) for a, b in zip(*ends, strict=True) if a]


def is_data(frame: Frame) -> bool:
    return frame["tcp.len"] != "0"


@pytest.mark.parametrize("port", LOST)
def test_the_acks_that_caused_a_fast_retransmission(lost: Run, port: int) -> None:
    """As many with SACK blocks as tshark finds before the packet, with the same blocks.

    tshark calls only those duplicates whose window is as before (RFC 5681), unlike RFC 6675.
    """
    again = lost.again(port)
    assert [event["cause"] for event in again] == ["fast"]
    (event,) = again
    shown = frames(lost.capture, port)
    same = [n for n, f in enumerate(shown) if f["tcp.seq"] == str(event["seq"]) and is_data(f)]
    before = shown[: same[1]]
    duplicates = [f for f in before if f["tcp.srcport"] == str(port) and sacked(f)]
    assert {f["tcp.ack"] for f in duplicates} == {str(event["seq"])}
    assert all(f in duplicates for f in before if f["tcp.analysis.duplicate_ack"])
    assert event["duplicate_acks"] == len(duplicates) >= 1
    assert event["sack_blocks"] == "{}:{}".format(*sacked(duplicates[-1])[0])
    received = [e for e in lost.events if e["kind"] == "receive" and e["remote_port"] == port]
    sacks = [e["ts_ns"] for e in received if e["sack"] and e["ts_ns"] <= event["ts_ns"]]
    first, last = event["duplicate_ack_first_ts_ns"], event["duplicate_ack_last_ts_ns"]
    assert (first, last) == (min(sacks), max(sacks))


def test_retransmits_shows_them_alone(lost: Run) -> None:
    names = ("remote_port", "seq", "cause", "duplicate_acks", "sack_blocks")
    again = [e for e in lost.events if e["kind"] == "retransmit"]
    assert [[e[name] for name in names] for e in lost.shown] == [
        [e[name] for name in names] for e in again
    ]


def test_no_cause_where_none_was_lost(lost: Run) -> None:
    assert lost.again(WHOLE) == []


QUESTION = b"GET /late HTTP/1.1\r\nHost: shop\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
ASKED = 5804
PAUSE = 0.2  # seconds between the two parts of the answer, and until the client reads
SLACK = 0.02  # between a packet's capture and TCP, on a busy machine


@dataclass
class Answer:
    """A request as three runs of `requests` show it, and the truth about its answer, seconds."""

    seen: dict[str, Event]
    came: tuple[float, float]  # its two parts, by the capture
    sent: float  # before the server sent it
    read: tuple[float, float]  # before and after the client read it


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """An answer in two parts, which the client reads at once."""
    directory = tmp_path_factory.mktemp("answer")
    with wired() as wire:
        wire.send_again_late()
        client, server = (["--netns", end.path] for end in (wire.client, wire.server))
        runs = {
            "segment": ["--arrivals", *client, *server],
            "client": ["--arrivals", *client],
            "call": [*client, *server],
        }
        with (
            tracing_all({directory / name: run for name, run in runs.items()}, "requests") as all_,
            capturing(wire.client, "veth0", directory / "pcap", "10.77.0.2"),
        ):
            sent, *read = ask(wire, ASKED)
        seen = {}
        for name, tracer in zip(runs, all_, strict=True):
            (seen[name],) = tracer.events
    told = tshark(directory / "pcap", "-Y", f"tcp.srcport == {ASKED} && tcp.len > 0",
                  "-T", "fields", "-e", "frame.time_epoch")  # fmt: skip
    first, last = map(float, told.split())
    return Answer(seen, (first, last), sent, (read[0], read[1]))


def ask(wire: Wire, port: int) -> tuple[float, float, float]:
    """Ask, be answered in two parts, and read both later.

    Return moments: before the answer, before and after it is read.
    """
    client, server = wire.connection(4, port)
    with closing(client), closing(server):
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(QUESTION)
        receive(server, len(QUESTION))
        sent = time.time()
        for part, arrived in ((HEAD, len(HEAD)), (b"body", len(HEAD + b"body"))):
            server.sendall(part)
            await_unread(client, arrived)
            time.sleep(PAUSE)
        before = time.time()
        assert client.recv(1000) == HEAD + b"body"
        return sent, before, time.time()


@pytest.mark.parametrize("run", ["segment", "client"])
def test_when_the_first_byte_of_an_answer_arrived(answer: Answer, run: str) -> None:
    """It lay unread from when the capture has it."""
    event, least = answer.seen[run], answer.read[0] - answer.came[0]
    assert event["arrival_source"] == "segment"
    assert event["view"] == ("client" if run == "client" else "both")
    most = answer.read[1] - answer.came[0]
    assert least - SLACK <= event["unread_ns"] / 1e9 <= most + SLACK
    back, took = event["network_back_ns"], answer.came[0] - answer.sent
    assert back is None if run == "client" else back / 1e9 <= took + SLACK


def test_a_call_tells_when_the_last_byte_arrived_that_it_read(answer: Answer) -> None:
    event = answer.seen["call"]
    assert event["arrival_source"] == "call"
    assert event["unread_ns"] / 1e9 <= answer.read[1] - answer.came[1] + SLACK


@pytest.mark.parametrize("run", ["segment", "client", "call"])
def test_the_parts_add_up(answer: Answer, run: str) -> None:
    event = answer.seen[run]
    parts = ("send_queue", "network_there", "server_queue", "server", "network_back", "unread",
             "transfer")  # fmt: skip
    assert sum(event[f"{part}_ns"] or 0 for part in parts) == event["request_ns"]
