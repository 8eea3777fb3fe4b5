"""Segments that arrive, against the kernel's counters, a capture, and segments made by hand."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from socket import IPPROTO_TCP, TCP_MAXSEG, socket

import pytest

from tests.support import hooks
from tests.support.capture import Packet, capturing, read_packets
from tests.support.conversation import (
    BULK,
    abandoned,
    aborted,
    bulk,
    hang_up,
    lossy,
    orderly,
    ping_pong,
    refused,
    unread,
)
from tests.support.netns import Netns, Pair, joined
from tests.support.segments import ACK, FIN, PSH, SYN, numbers, raw_socket, segment
from tests.support.tracer import Event, tracing

FAMILIES = (4, 6)
SIDES = ("client", "server")
Counters = dict[str, int]
LOSSY = "lossy bulk"

# Each with a port of its own, the family being part of it: 54xx, 56xx.
PHASES: dict[str, Callable[[Pair, int, int], None]] = {
    "ping-pong": lambda pair, family, port: orderly(pair, family, port, ping_pong),
    "bulk": lambda pair, family, port: orderly(pair, family, port, bulk),
    LOSSY: lambda pair, family, port: lossy(pair, family, port, bulk, 50),
    "refused": refused,
    "aborted": aborted,
    "abandoned": abandoned,
}
BY_HAND = 5411
OFFLOADED = 5412
BEYOND = 5413
SMALL = 1000  # bytes of a segment
SHORT = 50  # bytes of a segment whose checksum is looked at before its socket is
SMALL_BUFFER = 4096
FIRST_WINDOW = 1000  # of a segment made by hand; the kernel's are far from these


def port_of(phase: str, family: int) -> int:
    """Return the server's port in a phase."""
    return 5000 + 100 * family + list(PHASES).index(phase)


def growth(before: Counters, after: Counters) -> Counters:
    """Return how much each counter has grown."""
    return {name: after[name] - before[name] for name in after}


@dataclass
class Run:
    """What one run told, and the truth."""

    events: list[Event]
    netns: dict[str, int]
    counted: dict[tuple[str, int], dict[str, Counters]]
    packets: list[Packet]
    expected: list[str | None]
    counted_by_hand: Counters
    counted_offloaded: Counters
    fates: dict[int, str]

    def received(self, port: int, side: str) -> list[Event]:
        """Return what arrived at one end of a connection."""
        return [
            event
            for event in self.events
            if event["netns"] == self.netns[side]
            and port in (event["local_port"], event["remote_port"])
        ]

    def sent_to(self, port: int, side: str) -> list[Packet]:
        """Return what the capture has of that."""
        return [
            packet
            for packet in self.packets
            if port == (packet.source_port if side == "client" else packet.destination_port)
        ]


def run_phase(pair: Pair, phase: str, family: int) -> dict[str, Counters]:
    """Run a phase to its very end and return what the counters grew by."""
    ends = {"client": pair.client, "server": pair.server}
    before = {side: end.tcp_counters() for side, end in ends.items()}
    PHASES[phase](pair, family, port_of(phase, family))
    pair.await_closed()
    return {side: growth(before[side], end.tcp_counters()) for side, end in ends.items()}


class ByHand:
    """Sends segments to the server's end of a connection whose client is deaf.

    The next is sent when the kernel has counted this one: so they arrive in order, each when the
    one before has been dealt with.
    """

    def __init__(self, pair: Pair, raw: socket, client: socket, server: socket) -> None:
        self._netns, self._raw = pair.server, raw
        self._source, self._destination = client.getsockname(), server.getsockname()
        self._at = numbers(client)
        self.expected: list[str | None] = []

    def send(
        self,
        expected: str | None,
        seq: int,
        payload: bytes = b"",
        flags: int = ACK,
        ack: int = 0,
        repeated: int = 0,
        wrong_by: int = 0,
    ) -> None:
        """Send a segment `seq` bytes after what the server had received at first."""
        window = FIRST_WINDOW + len(self.expected) - repeated
        self.expected.append(expected)
        before = self._netns.tcp_counters()["InSegs"]
        packet = segment(
            self._source, self._destination, self._at.seq + seq, self._at.ack + ack, flags,
            payload, wrong_by=wrong_by, window=window,
        )  # fmt: skip
        self._raw.sendto(packet, (self._destination[0], 0))
        while self._netns.tcp_counters()["InSegs"] == before:
            os.sched_yield()


def send_by_hand(pair: Pair) -> tuple[list[str | None], Counters]:
    """Send a segment of each sort; return what is true of each, and what the server counted."""
    client, server = pair.connection(4, BY_HAND)
    pair.client.run(
        "nft",
        "add table inet deaf; add chain inet deaf in { type filter hook prerouting priority 0; };"
        f"add rule inet deaf in tcp sport {BY_HAND} drop",
    )
    with closing(client), closing(server), raw_socket(pair.client) as raw:
        before = pair.server.extended_counters() | pair.server.tcp_counters()
        hand = ByHand(pair, raw, client, server)
        hand.send("in_order", 0, b"a" * 10, PSH | ACK)
        hand.send("duplicate", 0, b"a" * 10, PSH | ACK)
        hand.send("in_order", 5, b"a" * 10, PSH | ACK)  # half of it is new
        hand.send("out_of_order", 25, b"c" * 10, PSH | ACK)
        hand.send("out_of_order", 20)  # an ACK that has overtaken data
        hand.send("in_order", 15, b"b" * 10, PSH | ACK)  # fills the gap
        hand.send("in_order", 35)
        hand.send("old_sequence", 34)  # a keepalive
        hand.send("outside_window", 1 << 20, b"z" * 10)
        hand.send("outside_window", 1 << 20)
        if hooks.has_reason("TCP_CSUM"):
            hand.send("checksum_error", 35, b"x", wrong_by=1)
        hand.send(None, 35, b"x" * 200, wrong_by=1)  # so long that TCP checks it later
        server.sendall(b"answer")
        hand.send("in_order", 35)
        hand.send("duplicate_ack", 35, repeated=1)
        hand.send("old_ack", 35, ack=-5)
        hand.send(None, 35, ack=1000)  # of what was never sent
        hand.send(None, 35, b"x", PSH | ACK, ack=1000)
        hand.send(None, 35, b"x", PSH | ACK, ack=-(1 << 30))  # long ago
        hand.send(None, 35, b"x", PSH)  # no ACK at all
        hand.send(None, 35, flags=SYN)
        hand.send("in_order", 35, flags=FIN | ACK)
        after = pair.server.extended_counters() | pair.server.tcp_counters()
    return hand.expected, growth(before, after)


def send_beyond_window(pair: Pair) -> dict[int, str]:
    """Fill the window of a reader that does not read, and go beyond its end.

    Tell of each segment, by its window, what became of it.
    """
    client, server = pair.connection(4, BEYOND, SMALL_BUFFER)
    pair.client.run("nft", f"add rule inet deaf in tcp sport {BEYOND} drop")
    fates: dict[int, str] = {}
    with closing(client), closing(server), raw_socket(pair.client) as raw:
        hand = ByHand(pair, raw, client, server)
        while list(fates.values())[-2:].count("taken") or len(fates) < 2:
            waiting, without = unread(server), pair.server.extended_counters()["TCPRcvQDrop"]
            answered = pair.server.tcp_counters()["OutSegs"]
            hand.send(None, waiting, b"w" * SHORT, PSH | ACK)
            while unread(server) == waiting and pair.server.tcp_counters()["OutSegs"] == answered:
                pass  # it is counted before TCP looks at it
            no_memory = pair.server.extended_counters()["TCPRcvQDrop"] > without
            fate = "taken" if unread(server) > waiting else "no memory" if no_memory else "refused"
            fates[FIRST_WINDOW + len(fates)] = fate
    return fates


def send_offloaded(netns: Netns) -> Counters:
    """Send much in small segments over lo, which takes many at once; return what was counted."""
    before = netns.tcp_counters()
    netns.configure("net/ipv4/tcp_min_tso_segs", "8")  # however slow the machine is
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", OFFLOADED))
        listener.listen()
        client.setsockopt(IPPROTO_TCP, TCP_MAXSEG, SMALL)
        client.connect(("127.0.0.1", OFFLOADED))
        server, _ = listener.accept()
        with server:
            bulk(client, server)
            hang_up(client, server)
    netns.await_closed()
    return growth(before, netns.tcp_counters())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One traced and captured run of all that the tests look at."""
    directory = tmp_path_factory.mktemp("receive")
    with joined() as pair:
        netns = {"client": pair.client.inode, "server": pair.server.inode}
        chosen = [word for end in (pair.client, pair.server) for word in ("--netns", end.path)]
        with tracing(directory / "events", "--kinds", "receive", *chosen) as tracer:
            offloaded = send_offloaded(pair.server)
            with capturing(pair.client, "veth0", directory / "pcap", pair.server_addresses[4]):
                counted = {(LOSSY, family): run_phase(pair, LOSSY, family) for family in FAMILIES}
                pair.send_again_late()  # or a FIN may come again to what is left of a socket
                whole = [phase for phase in PHASES if phase != LOSSY]
                counted |= {case: run_phase(pair, *case) for case in product(whole, FAMILIES)}
            expected, by_hand = send_by_hand(pair)
            fates = send_beyond_window(pair)
    packets = read_packets(directory / "pcap")
    return Run(tracer.events, netns, counted, packets, expected, by_hand, offloaded, fates)


all_phases = pytest.mark.parametrize("phase", PHASES)


def hidden(phase: str, side: str) -> set[int]:
    """Return how many segments the hooks may not see."""
    if phase == "refused" and side == "server":  # there is no socket
        return {0} if hooks.has_drop_reasons() else {1}
    if phase == "abandoned" and side == "client":  # only what is left of one
        return {0} if hooks.drops_have_socket() else {1}
    if phase == "aborted" and side == "client" and not hooks.has_drop_reasons():
        return {0, 1}  # an acknowledgement may come too late
    return {0}


@all_phases
def test_as_many_as_the_kernel_counts(run: Run, phase: str) -> None:
    """InSegs counts packets as they come, whatever the number of segments in each."""
    for family, side in product(FAMILIES, SIDES):
        events = run.received(port_of(phase, family), side)
        not_told = run.counted[phase, family][side]["InSegs"] - len(events)
        assert not_told in hidden(phase, side), (family, side)
        assert events or 1 in hidden(phase, side)


def header_of_event(event: Event) -> tuple[object, ...]:
    names = ("seq", "end_seq", "ack", "flags", "window", "bytes")
    return tuple(event[name] for name in names)


def header_of_packet(packet: Packet) -> tuple[object, ...]:
    window, length = packet.window, len(packet.payload)
    return (packet.seq, packet.end_seq, packet.ack, packet.flags, window, length)


@all_phases
def test_headers_are_those_of_the_capture(run: Run, phase: str) -> None:
    """What netfilter drops at the server is in the capture alone."""
    for family, side in product(FAMILIES, SIDES):
        port = port_of(phase, family)
        packets = run.sent_to(port, side)
        told = Counter(header_of_event(event) for event in run.received(port, side))
        wire = Counter(header_of_packet(packet) for packet in packets)
        assert told - wire == Counter(), (family, side)
        dropped = len(packets) - run.counted[phase, family][side]["InSegs"]
        assert sum((wire - told).values()) - dropped in hidden(phase, side), (family, side)
        assert (dropped > 0) == (phase == LOSSY and side == "server")


def test_segs_are_those_that_were_sent(run: Run) -> None:
    """With offload a packet is many segments: OutSegs counts these, InSegs the packets."""
    events = run.received(OFFLOADED, "server")
    counted = run.counted_offloaded
    assert len(events) == counted["InSegs"]
    sent = counted["OutSegs"] + counted["RetransSegs"]
    assert sum(event["segs"] for event in events) == sent
    assert sent > len(events) + BULK // SMALL // 2


def test_arrival(run: Run) -> None:
    """Each of the segments made by hand stands where it was meant to stand."""
    windows = range(FIRST_WINDOW, FIRST_WINDOW + len(run.expected))
    events = [e for e in run.received(BY_HAND, "server") if e["window"] in windows]
    assert [event["arrival"] for event in events] == run.expected
    counted = run.counted_by_hand
    assert counted["TCPOFOQueue"] == 1
    assert counted["InCsumErrors"] == 1 + ("checksum_error" in run.expected)
    assert counted["TCPDSACKOldSent"] >= 1


def test_arrival_beyond_the_window(run: Run) -> None:
    """Kernels differ in whether a segment is taken in that ends behind the window."""
    events = {e["window"]: e["arrival"] for e in run.received(BEYOND, "server") if e["bytes"]}
    assert events.keys() == run.fates.keys()
    told = Counter((fate, events[window]) for window, fate in run.fates.items())
    assert not told["refused", "in_order"]
    assert not told["taken", "outside_window"]
    assert told["taken", "in_order"] > 10


def test_arrival_of_what_the_kernel_sent(run: Run) -> None:
    """Loss puts data out of order; where none is lost, all that can be told is in order."""
    for family in FAMILIES:
        lossy = run.received(port_of(LOSSY, family), "server")
        known = Counter(event["arrival"] for event in lossy if event["bytes"])
        assert known["out_of_order"] or known[None]  # unknown while a process uses the socket
        assert known.keys() <= {"in_order", "out_of_order", "duplicate", None}
        whole = run.received(port_of("ping-pong", family), "server")
        known = Counter(event["arrival"] for event in whole if event["bytes"])
        assert known["in_order"]
        assert known.keys() <= {"in_order", None}


def test_no_socket(run: Run) -> None:
    """A SYN for nobody arrives all the same; before 5.17 the kernel does not say that it did."""
    for family in FAMILIES:
        events = run.received(port_of("refused", family), "server")
        found = [(event["flags"], event["arrival"], event["pid"]) for event in events]
        assert found == [("SYN", "no_socket", None)] * hooks.has_drop_reasons()


def test_owner(run: Run) -> None:
    """A segment belongs to the process that made the connection, or listens for it."""
    pid = os.getpid()
    for family, side in product(FAMILIES, SIDES):
        data = [e for e in run.received(port_of("ping-pong", family), side) if e["bytes"]]
        assert {event["pid"] for event in data} == {pid}
        assert {event["owner_source"] for event in data} == {"socket"}
