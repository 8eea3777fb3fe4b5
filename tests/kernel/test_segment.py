"""Segments against the kernel's own counters and against a capture."""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.capture import Packet, capturing, coverage, read_packets
from tests.support.conversation import abandoned, aborted, bulk, orderly, ping_pong, refused
from tests.support.netns import Pair, joined
from tests.support.tracer import Event, Tracer, tracing_all

FAMILIES = (4, 6)
SIDES = ("client", "server")
UNCOUNTED = 10
SEGMENTS_MAX = 46  # of one event: 64 KiB by GSO
Counters = dict[str, int]


# Each with a port of its own, the family being part of it: 54xx, 56xx.
PHASES: dict[str, Callable[[Pair, int, int], None]] = {
    "ping-pong": lambda pair, family, port: orderly(pair, family, port, ping_pong),
    "bulk": lambda pair, family, port: orderly(pair, family, port, bulk),
    "lossy ping-pong": lambda pair, family, port: orderly(pair, family, port, ping_pong, 20),
    "lossy bulk": lambda pair, family, port: orderly(pair, family, port, bulk),
    "refused": refused,
    "aborted": aborted,
    "abandoned": abandoned,
}
LOSSES = {"lossy ping-pong": 7, "lossy bulk": 50}  # one in so many of the longer packets


def port_of(phase: str, family: int) -> int:
    """Return the server's port in a phase."""
    return 5000 + 100 * family + list(PHASES).index(phase)


@dataclass
class Phase:
    """What happened in a phase: the growth of each namespace's counters, and our events."""

    counted: dict[str, Counters]
    events: list[Event]

    def of(self, kind: str, netns: int) -> list[Event]:
        """Return a namespace's segments of a kind that were really sent; probes are transmits."""
        kinds = ("transmit", "probe") if kind == "transmit" else (kind,)
        return [
            event
            for event in self.events
            if event["kind"] in kinds and event["netns"] == netns and event["error"] is None
        ]


class Recording:
    """What one run of tcprism told of all phases, with the witnesses."""

    def __init__(self, hook: str, truth: "Truth", tracer: Tracer) -> None:
        self.hook = hook
        self.netns = truth.netns
        self.packets = truth.packets
        self.events = tracer.events
        self.lost = 0 if hook == "tracepoint" else lost(hook, tracer)  # cgroup_skb skips nothing
        self.phases = {
            key: Phase(counted, events_of(self.events, port_of(*key)))
            for key, counted in truth.counted.items()
        }


@dataclass
class Truth:
    """What the kernel counted in each phase, and the capture of all."""

    netns: dict[str, int]
    counted: dict[tuple[str, int], dict[str, Counters]]
    packets: list[Packet]


def counters(pair: Pair) -> dict[str, Counters]:
    """Return both namespaces' TCP counters."""
    return {"client": pair.client.tcp_counters(), "server": pair.server.tcp_counters()}


def run_phase(pair: Pair, phase: str, family: int) -> dict[str, Counters]:
    """Run a phase to its very end and return what the counters grew by.

    Where nothing is lost nothing is sent twice, however slow the machine is: a FIN that comes again
    is answered out of TIME-WAIT, and that with a reset, both without a socket.
    """
    before = counters(pair)
    PHASES[phase](pair, family, port_of(phase, family))
    pair.await_closed()
    after = counters(pair)
    return {
        side: {name: after[side][name] - before[side][name] for name in after[side]}
        for side in after
    }


def lost(hook: str, tracer: Tracer) -> int:
    """Return how many segments the hook may have lost: those of the events that the ledger says.

    The kernel runs no hook inside itself, as when an interrupt that stopped it transmits too.
    Where it counts what it skips (fentry since 5.12, kprobes since 6.7), the ledger has the
    number. Where it does not, a few are granted.
    """
    row = tracer.ledger["transmit"]
    counts = "recursion_misses" in tracer.fdinfo and (hook != "kprobe" or row["missed"] > 0)
    missed = row["missed"] if counts else max(row["missed"], UNCOUNTED)
    return (missed + row["ring_full"] + row["ring_busy"] + row["map_full"]) * SEGMENTS_MAX


def events_of(events: list[Event], port: int) -> list[Event]:
    """Return the events on a phase's connection."""
    return [event for event in events if port in (event["local_port"], event["remote_port"])]


def record(chosen: list[str], directory: Path) -> dict[str, tuple[Truth, Tracer]]:
    """Trace all phases in both families by some hooks at once, captured and counted."""
    with joined() as pair:
        common = ["--kinds", "transmit,probe,retransmit", "--ring-size", "16M",
                  "--netns", pair.client.path, "--netns", pair.server.path]  # fmt: skip
        runs = {directory / hook: [*common, "--hooks", hook] for hook in chosen}
        with tracing_all(runs) as tracers:
            truth = perform(pair, directory / "veth.pcap")
    return {hook: (truth, tracer) for hook, tracer in zip(chosen, tracers, strict=True)}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Truth, Tracer]]:
    """What each hook told, and the truth.

    A kprobe has a pass of its own. Beside it, fentry on the same function goes through ftrace's
    list of callers, whose guard against recursion keeps a call from both without counting it.
    """
    all_hooks = hooks.segment_hooks()
    together = [hook for hook in all_hooks if hook != "kprobe"]
    alone = [hook for hook in all_hooks if hook == "kprobe"]
    recorded = record(together, tmp_path_factory.mktemp("segment"))
    return recorded | (record(alone, tmp_path_factory.mktemp("kprobe")) if alone else {})


def perform(pair: Pair, capture: Path) -> Truth:
    """Run all phases."""
    for phase, nth in LOSSES.items():
        pair.server.drop_every(nth, *(port_of(phase, family) for family in FAMILIES))
    with capturing(pair.client, "veth0", capture, pair.server_addresses[4]):
        counted = {case: run_phase(pair, *case) for case in itertools.product(LOSSES, FAMILIES)}
        pair.send_again_late()
        whole = [phase for phase in PHASES if phase not in LOSSES]
        counted |= {case: run_phase(pair, *case) for case in itertools.product(whole, FAMILIES)}
    netns = {"client": pair.client.inode, "server": pair.server.inode}
    return Truth(netns, counted, read_packets(capture))


@pytest.fixture(scope="module", params=hooks.segment_hooks())
def recording(
    request: pytest.FixtureRequest, recorded: dict[str, tuple[Truth, Tracer]]
) -> Recording:
    """One hook's run; the tests of this module look at it."""
    return Recording(request.param, *recorded[request.param])


all_phases = pytest.mark.parametrize("phase", PHASES)
all_families = pytest.mark.parametrize("family", FAMILIES)


def segments(events: list[Event], flag: str = "") -> int:
    """Return how many segments the events stand for, or those with a flag."""
    return sum(event["segs"] for event in events if flag in (event["flags"] or ""))


def sees_handshakes(hook: str, family: int) -> bool:
    """Return whether the hook sees SYN-ACKs."""
    return hook == "tracepoint" and (family == 4 or hooks.cgroups_see_ipv6_handshakes())


def unseen(hook: str, phase: str, family: int, counted: Counters, events: list[Event]) -> set[int]:
    """Return how many segments the hook cannot see, as a set of what is possible.

    __tcp_transmit_skb has no part in SYN-ACKs, in resets without a socket and in the ACKs of
    connections in TIME-WAIT. cgroup_skb (`tracepoint`) sees those whose packet has a full socket:
    by IPv4 SYN-ACKs and resets always and the ACKs before 6.13, by IPv6 SYN-ACKs in later kernels.
    """
    resets = counted["OutRsts"] - segments(events, "RST")
    acks = 1 if phase == "abandoned" and counted["ActiveOpens"] else 0
    handshakes = counted["PassiveOpens"]
    if not sees_handshakes(hook, family):
        return {resets + acks + handshakes}
    return {0, acks} if family == 4 else {resets + acks}


@all_phases
def test_transmit_is_what_the_kernel_counts(recording: Recording, phase: str) -> None:
    """OutSegs, which leaves retransmissions out, is the sum of `segs`."""
    for family, side in itertools.product(FAMILIES, SIDES):
        run = recording.phases[phase, family]
        counted, events = run.counted[side], run.of("transmit", recording.netns[side])
        not_told = counted["OutSegs"] - segments(events)
        hidden = unseen(recording.hook, phase, family, counted, events)
        assert min(hidden) <= not_told <= max(hidden) + recording.lost, (family, side)


@all_phases
def test_retransmit_is_what_the_kernel_counts(recording: Recording, phase: str) -> None:
    """RetransSegs is the sum of `segs`."""
    for family, side in itertools.product(FAMILIES, SIDES):
        run = recording.phases[phase, family]
        counted, events = run.counted[side], run.of("retransmit", recording.netns[side])
        assert counted["RetransSegs"] == segments(events), (family, side)
        if phase in LOSSES and side == "client":
            assert counted["RetransSegs"] > 0, "the test lost nothing"


@all_families
def test_what_has_no_socket(recording: Recording, family: int) -> None:
    """What a hook sees of a refusal's reset and of SYN-ACKs is what unseen() says, no less."""
    by_cgroup = recording.hook == "tracepoint"
    server = recording.netns["server"]
    refused = recording.phases["refused", family]
    assert refused.counted["server"]["OutRsts"] == 1
    assert segments(refused.of("transmit", server), "RST") == (by_cgroup and family == 4)
    accepted = recording.phases["ping-pong", family]
    assert accepted.counted["server"]["PassiveOpens"] == 1
    handshakes = segments(accepted.of("transmit", server), "SYN|ACK")
    assert handshakes == sees_handshakes(recording.hook, family)


@all_families
def test_a_reset_by_its_socket_is_seen(recording: Recording, family: int) -> None:
    """An abort is a transmit with RST, on every hook."""
    run = recording.phases["aborted", family]
    assert run.counted["client"]["OutRsts"] == 1
    assert segments(run.of("transmit", recording.netns["client"]), "RST") == 1


def captured(recording: Recording, phase: str, family: int, to_server: bool) -> list[Packet]:
    """Return the captured packets of one direction that the hook can see."""
    port = port_of(phase, family)
    packets = [
        packet
        for packet in recording.packets
        if port == (packet.destination_port if to_server else packet.source_port)
    ]
    if to_server or sees_handshakes(recording.hook, family):
        return packets
    return [packet for packet in packets if "SYN" not in packet.flags]


def sent(recording: Recording, phase: str, family: int, to_server: bool) -> list[Event]:
    """Return one direction's events, retransmissions included."""
    netns = recording.netns["client" if to_server else "server"]
    run = recording.phases[phase, family]
    return run.of("transmit", netns) + run.of("retransmit", netns)


by_sockets = pytest.mark.parametrize(
    "phase", [phase for phase in PHASES if phase not in ("refused", "abandoned")]
)


@by_sockets
def test_sequence_ranges_are_those_of_the_capture(recording: Recording, phase: str) -> None:
    """Each sequence number is covered as often as in the capture, by as many segments."""
    for family, to_server in itertools.product(FAMILIES, (True, False)):
        packets = captured(recording, phase, family, to_server)
        events = sent(recording, phase, family, to_server)
        where = (family, to_server)
        assert segments(events) <= len(packets) <= segments(events) + recording.lost, where
        if segments(events) < len(packets):
            continue  # the ledger says so; test_headers sees that the others are right
        ours = coverage((event["seq"], event["end_seq"]) for event in events)
        assert ours == coverage((packet.seq, packet.end_seq) for packet in packets), where


def header_of_event(event: Event) -> tuple[object, ...]:
    return (
        event["seq"],
        event["end_seq"],
        event["ack"],
        event["flags"],
        event["window"],
        event["bytes"],
    )


def header_of_packet(packet: Packet) -> tuple[object, ...]:
    window, length = packet.window, len(packet.payload)
    return (packet.seq, packet.end_seq, packet.ack, packet.flags, window, length)


@by_sockets
def test_headers_are_those_of_the_capture(recording: Recording, phase: str) -> None:
    """Where an event stands for one segment, its header fields are those of a captured packet."""
    for family, to_server in itertools.product(FAMILIES, (True, False)):
        packets = captured(recording, phase, family, to_server)
        wire = Counter(header_of_packet(packet) for packet in packets)
        events = [e for e in sent(recording, phase, family, to_server) if e["segs"] == 1]
        told = Counter(header_of_event(event) for event in events if event["window"] is not None)
        assert told - wire == Counter(), (family, to_server)
        assert told, "no event of one segment"


def test_events_are_whole(recording: Recording) -> None:
    """Congestion state is there for every segment of a connection, with sensible values."""
    of_sockets = [event for event in recording.events if event["cwnd"] is not None]
    assert len(of_sockets) > len(recording.events) * 0.9
    assert {event["ca_state"] for event in of_sockets} >= {"Open", "Recovery"}
    assert {event["family"] for event in of_sockets} == {4, 6}
    # Over a veth a round trip takes microseconds to milliseconds; none takes a minute.
    assert all(event["srtt_us"] is None or 0 < event["srtt_us"] < 60e6 for event in of_sockets)
    assert any(event["packets_out"] for event in of_sockets)


def test_owner(recording: Recording) -> None:
    """A segment of a connection belongs to the process that made it, in softirq context too."""
    mine = Path("/proc/self/comm").read_text().strip()
    pid = int(Path("/proc/self/stat").read_text().split()[0])
    known = [event for event in recording.events if event["pid"] is not None]
    assert {(event["pid"], event["comm"]) for event in known} == {(pid, mine)}
    unknown = [event for event in recording.events if event["pid"] is None]
    # The accepted end is nobody's until its first message: its handshake, and resets and refusals.
    assert {event["local_port"] for event in unknown if event["bytes"]} == set()


def test_times(recording: Recording) -> None:
    """Transmissions and retransmissions come merged in the order of time."""
    times = [event["ts_ns"] for event in recording.events]
    assert times == sorted(times)
    assert times[-1] < time.monotonic_ns()
