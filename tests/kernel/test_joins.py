"""What segments that arrive tell together with others: against a capture, and the wire itself."""

import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.conversation import hang_up, receive
from tests.support.tracer import Event, tracing
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
        wire.client.configure("net/ipv4/tcp_early_retrans", "0")  # no tail loss probe between
        arguments = ("--kinds", "send,retransmit,receive", "--options", "--netns", wire.client.path)
        with (
            tracing(directory / "events", *arguments) as tracer,
            capturing(wire.client, "veth0", directory / "pcap", wire.server_addresses[4]),
        ):
            for port, (rule, sizes) in LOST.items():
                converse(wire, port, rule, sizes)
            converse(wire, WHOLE, deliver, [20 * SEGMENT])
            wire.await_closed()
    return Run(tracer.events, directory / "pcap")


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


def test_no_cause_where_none_was_lost(lost: Run) -> None:
    assert lost.again(WHOLE) == []
