"""Retransmissions, their causes and the writes they repeat; undos, probes and drops.

The truth: what the wire lost, what the client wrote, and the kernel's own counters.
"""

import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from tests.support import hooks
from tests.support.capture import Packet
from tests.support.conversation import await_acknowledged, drain, fill, hang_up, receive
from tests.support.netns import Netns
from tests.support.tracer import Event, tracing
from tests.support.wire import (
    Rule,
    Wire,
    deliver,
    hold_answers,
    lose_all,
    lose_answers,
    lose_data,
    lose_flagged,
    wired,
)

SEGMENT = 1400  # payload bytes that always fit into one
DROPPED_SIZE = 600
REPETITIONS = {"TCP_OLD_DATA", "TCP_OLD_SEQUENCE", "TCP_OFOMERGE"}
UNDO_COUNTERS = ("TCPFullUndo", "TCPPartialUndo", "TCPLossUndo", "TCPDSACKUndo")
PATIENCE = 60.0


@dataclass
class Scenario:
    """What happened on one connection."""

    causes: set[str]
    port: int = 0
    written: list[bytes] = field(default_factory=list)
    carried: list[Packet] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    counted_by_server: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        """Return the client's events of a kind."""
        return [e for e in self.events if e["kind"] == kind and e["remote_port"] == self.port]


def pattern(number: int, length: int) -> bytes:
    """Return bytes that differ from write to write and from place to place."""
    unit = f"write {number:03} "
    text = "".join(f"{unit}{place:06} " for place in range(0, length, len(unit) + 7))
    return text.encode()[:length]


def converse(wire: Wire, scenario: Scenario, rule: Rule, *sizes: int) -> None:
    """Make so many writes under a rule, and have the server receive them all."""
    client, server = wire.connection(4, scenario.port)
    with closing(client), closing(server):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.rule = rule
        scenario.written = [pattern(number, size) for number, size in enumerate(sizes)]
        for data in scenario.written:
            client.sendall(data)
        receive(server, sum(sizes))
        wire.rule = deliver
        hang_up(client, server)


def fast(wire: Wire, scenario: Scenario) -> None:
    converse(wire, scenario, lose_data(3), 20 * SEGMENT)


def small_writes(wire: Wire, scenario: Scenario) -> None:
    """Segments of 100 bytes each, of which a middle one is lost."""
    converse(wire, scenario, lose_data(4), *[100] * 12)


def tlp(wire: Wire, scenario: Scenario) -> None:
    converse(wire, scenario, lose_data(3), 4 * SEGMENT)


def tlp_of_new_data(wire: Wire, scenario: Scenario) -> None:
    """No answers come, and more waits to be sent than the congestion window lets go."""
    client, server = wire.connection(4, scenario.port)
    with closing(client), closing(server):
        before = wire.client.extended_counters()["TCPLossProbes"]
        wire.rule = lose_answers
        scenario.written = [pattern(0, 30 * SEGMENT)]
        client.sendall(scenario.written[0])
        await_true(lambda: wire.client.extended_counters()["TCPLossProbes"] > before)
        wire.rule = deliver
        receive(server, 30 * SEGMENT)
        hang_up(client, server)


def tlp_then_rto(wire: Wire, scenario: Scenario) -> None:
    converse(wire, scenario, lose_data(3, times=2), 4 * SEGMENT)


def blackout(wire: Wire, scenario: Scenario) -> None:
    """Everything is lost until the timer has expired twice."""
    client, server = wire.connection(4, scenario.port)
    with closing(client), closing(server):
        wire.rule = lose_all
        before = len(wire.lost)
        scenario.written = [pattern(0, 500)]
        client.sendall(scenario.written[0])
        await_true(lambda: len(wire.lost) >= before + 4)  # itself, the probe, two timeouts
        wire.rule = deliver
        receive(server, 500)
        hang_up(client, server)


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def syn(wire: Wire, scenario: Scenario) -> None:
    wire.rule = lose_flagged("SYN")
    converse(wire, scenario, deliver, 10)


def syn_ack(wire: Wire, scenario: Scenario) -> None:
    """The server's timer and the client's are due together: the client may send again, too."""
    wire.rule = lose_flagged("SYN|ACK")
    converse(wire, scenario, deliver, 10)


def undone(counted: dict[str, int]) -> int:
    """Return how often the kernel has undone a reduction of its window."""
    return sum(counted[counter] for counter in UNDO_COUNTERS)


def spurious(wire: Wire, scenario: Scenario) -> None:
    """Nothing is lost; the answers are later than the timeout."""
    client, server = wire.connection(4, scenario.port)
    with closing(client), closing(server):
        before = undone(wire.client.extended_counters())
        wire.rule = hold_answers(0.8)
        scenario.written = [pattern(0, SEGMENT)]
        client.sendall(scenario.written[0])
        receive(server, SEGMENT)
        await_true(lambda: undone(wire.client.extended_counters()) > before)
        wire.rule = deliver
        hang_up(client, server)


def shut_window(wire: Wire, scenario: Scenario) -> None:
    """The server reads nothing until the client has asked for room twice."""
    client, server = wire.connection(4, scenario.port, receive_buffer=4096)
    with closing(client), closing(server):
        client.setblocking(False)
        fill(client)
        before = wire.client.extended_counters()["TCPWinProbe"]
        await_true(lambda: wire.client.extended_counters()["TCPWinProbe"] >= before + 2)
        drain(client, server)


def dropped_out(wire: Wire, scenario: Scenario) -> None:
    drop_every_other(wire, wire.client, "output", scenario)


def dropped_in(wire: Wire, scenario: Scenario) -> None:
    drop_every_other(wire, wire.server, "input", scenario)


def drop_every_other(wire: Wire, where: Netns, hook: str, scenario: Scenario) -> None:
    """Have nftables drop every other packet with payload, and note how many that were."""
    client, server = wire.connection(4, scenario.port)
    with closing(client), closing(server):
        where.run(
            "nft",
            "add table inet loss; add counter inet loss dropped;"
            f"add chain inet loss {hook} {{ type filter hook {hook} priority 0; }};"
            f"add rule inet loss {hook} tcp dport {scenario.port} meta length > 200"
            " numgen inc mod 2 == 0 counter name dropped drop",
        )
        for _ in range(2):
            client.sendall(b"d" * DROPPED_SIZE)
            receive(server, DROPPED_SIZE)
        await_acknowledged(client)  # then nothing is sent again, to be dropped uncounted
        scenario.counted["dropped"] = where.named_counter("dropped")
        where.drop_nothing()
        hang_up(client, server)


SCENARIOS: dict[str, tuple[Callable[[Wire, Scenario], None], set[str]]] = {
    "fast": (fast, {"fast"}),
    "small writes": (small_writes, {"fast"}),
    "tlp": (tlp, {"tlp"}),
    "tlp of new data": (tlp_of_new_data, set()),
    "tlp then rto": (tlp_then_rto, {"tlp", "rto"}),
    "blackout": (blackout, {"tlp", "rto"}),
    "syn": (syn, {"syn"}),
    "syn-ack": (syn_ack, set()),
    "spurious": (spurious, {"tlp", "rto"}),
}
OTHERS = {"shut window": shut_window, "dropped out": dropped_out, "dropped in": dropped_in}


def ended_at_once(scenario: Scenario) -> bool:
    """Tell whether no FIN was sent again, which would be one more timeout."""
    fins = Counter((p.source_port, p.seq) for p in scenario.carried if "FIN" in p.flags)
    return max(fins.values()) == 1


def happened(name: str, scenario: Scenario) -> bool:
    """Tell by counters and the wire whether it came off: a machine that stalls spoils it."""
    counted = scenario.counted
    fast = counted["TCPFastRetrans"] > 0 and counted["TCPTimeouts"] == 0
    probed_then_timed_out = counted["TCPLossProbes"] > 0 and counted["TCPTimeouts"] > 0
    wanted = {
        "fast": fast,
        "small writes": fast,
        "tlp": counted["RetransSegs"] == counted["TCPLossProbes"] > 0,
        "tlp of new data": counted["TCPLossProbes"] > 0,
        "tlp then rto": probed_then_timed_out,
        "blackout": ended_at_once(scenario),
        "spurious": probed_then_timed_out and undone(counted) > 0 and ended_at_once(scenario),
    }
    return wanted.get(name, True)


def play_until_it_happens(wire: Wire, name: str, number: int) -> Scenario:
    """Play a scenario, each time on another port."""
    for attempt in range(5):
        scenario = play(wire, name, 5000 + number + 100 * attempt)
        if happened(name, scenario):
            return scenario
    raise AssertionError(f"the kernel does not do what {name!r} is about: {scenario.counted}")


def play(wire: Wire, name: str, port: int) -> Scenario:
    """Play a scenario to its end and note what the kernel counted."""
    work, causes = SCENARIOS.get(name) or (OTHERS[name], set())
    scenario = Scenario(causes, port)
    ends = (wire.client, wire.server)
    before = [end.tcp_counters() | end.extended_counters() for end in ends]
    passed, lost = len(wire.passed), len(wire.lost)
    work(wire, scenario)
    wire.await_closed()
    after = [end.tcp_counters() | end.extended_counters() for end in ends]
    scenario.carried = wire.passed[passed:] + wire.lost[lost:]
    grown = [
        {key: late[key] - early[key] for key in late}
        for early, late in zip(before, after, strict=True)
    ]
    scenario.counted |= grown[0]
    scenario.counted_by_server = grown[1]
    return scenario


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    """All scenarios, one after the other, under one trace."""
    output = tmp_path_factory.mktemp("loss") / "events"
    with wired() as wire:
        arguments = ("--kinds", "send,transmit,retransmit,undo,probe,drop", "--payload", "64",
                     "--netns", wire.client.path, "--netns", wire.server.path)  # fmt: skip
        with tracing(output, *arguments) as tracer:
            played = {
                name: play_until_it_happens(wire, name, number)
                for number, name in enumerate([*SCENARIOS, *OTHERS])
            }
    for scenario in played.values():
        ports = (scenario.port,)
        scenario.events = [
            e for e in tracer.events if e["local_port"] in ports or e["remote_port"] in ports
        ]
    return played


all_scenarios = pytest.mark.parametrize("name", SCENARIOS)


def segments(events: list[Event], *causes: str) -> int:
    return sum(e["segs"] for e in events if e["cause"] in causes and e["error"] is None)


@all_scenarios
def test_causes(scenarios: dict[str, Scenario], name: str) -> None:
    scenario = scenarios[name]
    causes = {event["cause"] for event in scenario.of("retransmit")}
    by_chance = {"syn", "tlp"} if name == "syn-ack" else {"tlp"}  # where machines are slow
    if name == "tlp of new data":
        by_chance |= {"rto", "fast"}
    assert scenario.causes <= causes <= scenario.causes | by_chance


@all_scenarios
def test_causes_are_counted_by_the_kernel(scenarios: dict[str, Scenario], name: str) -> None:
    """Cause by cause: TCPFastRetrans, TCPLossProbes, TCPTimeouts and TCPSlowStartRetrans.

    Where something waits to be sent, a probe sends that instead: a `transmit` with a cause.
    """
    scenario = scenarios[name]
    counted, events = scenario.counted, scenario.of("retransmit")
    assert segments(events, "fast") == counted["TCPFastRetrans"]
    assert segments([*events, *scenario.of("transmit")], "tlp") == counted["TCPLossProbes"]
    timeouts = counted["TCPTimeouts"] + counted["TCPSlowStartRetrans"]
    assert segments(events, "rto", "syn") == timeouts
    assert sum(event["segs"] for event in events) == counted["RetransSegs"]


def test_syn_ack(scenarios: dict[str, Scenario]) -> None:
    """The server repeats its SYN-ACK, as TCPSynRetrans says; the listener's process owns it."""
    scenario = scenarios["syn-ack"]
    repeated = [e for e in scenario.events if e.get("cause") == "syn-ack"]
    assert len(repeated) == scenario.counted_by_server["TCPSynRetrans"] >= 1
    assert {event["local_port"] for event in repeated} == {scenario.port}
    on_the_wire = [packet for packet in scenario.carried if packet.flags == "SYN|ACK"]
    told = [e for e in scenario.events if e.get("flags") == "SYN|ACK" and e["kind"] != "drop"]
    seen_first = hooks.segment_hooks() == ["tracepoint"]  # others see what has a connection
    assert len(told) == len(on_the_wire) - (not seen_first)


@all_scenarios
def test_undo(scenarios: dict[str, Scenario], name: str) -> None:
    """An undo for each one that the kernel counts; it revokes what was sent again in vain.

    That a SYN was sent again in vain (tcp_try_undo_spurious_syn()) the kernel does not count.
    """
    scenario = scenarios[name]
    of_syns = {packet.seq for packet in scenario.carried if packet.flags == "SYN"}
    undos = [event for event in scenario.of("undo") if event["seq"] not in of_syns]
    assert len(undos) == undone(scenario.counted)
    if name == "spurious":
        assert sum(event["undone"] for event in undos) == segments(scenario.of("retransmit"), "rto")


def test_every_retransmission_has_an_owner(scenarios: dict[str, Scenario]) -> None:
    for scenario in scenarios.values():
        for event in scenario.of("retransmit"):
            assert (event["pid"], event["owner_source"]) == (os.getpid(), "socket")


def test_backoff(scenarios: dict[str, Scenario]) -> None:
    """Timeouts in a row are numbered, and each waits longer than the one before."""
    timeouts = [e for e in scenarios["blackout"].of("retransmit") if e["cause"] == "rto"]
    assert [event["icsk_retransmits"] for event in timeouts] == list(range(1, len(timeouts) + 1))
    waits = [late["ts_ns"] - early["ts_ns"] for early, late in itertools.pairwise(timeouts)]
    assert len(waits) >= 1
    assert all(0.9 * 2 * timeouts[0]["rto_us"] <= wait / 1000 for wait in waits)


@all_scenarios
def test_attempts(scenarios: dict[str, Scenario], name: str) -> None:
    """The attempt is how often the wire has carried, or lost, the first byte by then."""
    scenario = scenarios[name]
    carried = Counter(
        p.seq for p in scenario.carried if p.destination_port == scenario.port and p.payload
    )
    last = {e["seq"]: e["attempt"] for e in scenario.of("retransmit") if e["bytes"]}
    assert {seq: carried[seq] for seq in last} == last


@all_scenarios
def test_the_message_is_the_write(scenarios: dict[str, Scenario], name: str) -> None:
    """The bytes that the wire saw are at the offset in the write that the event names."""
    scenario = scenarios[name]
    sends = {event["ts_ns"]: event for event in scenario.of("send")}
    repeated = [event for event in scenario.of("retransmit") if event["bytes"]]
    for event in repeated:
        send = sends[event["message_ts_ns"]]
        write = scenario.written[list(sends).index(event["message_ts_ns"])]
        packet = next(p for p in scenario.carried if p.seq == event["seq"] and p.payload)
        offset = event["message_offset"]
        following = b"".join(scenario.written[list(sends).index(event["message_ts_ns"]) :])
        assert packet.payload == following[offset : offset + len(packet.payload)]
        assert (event["message_pid"], event["message_comm"]) == (send["pid"], send["comm"])
        assert event["message_bytes"] == len(write)
        assert event["message_text"] == write[:32].decode()
    assert repeated or not scenario.causes & {"fast", "tlp", "rto"}


def test_zero_window_probes(scenarios: dict[str, Scenario]) -> None:
    """As many as TCPWinProbe counts."""
    scenario = scenarios["shut window"]
    probes = scenario.of("probe")
    assert len(probes) == scenario.counted["TCPWinProbe"] >= 2
    assert {(event["pid"], event["bytes"]) for event in probes} == {(os.getpid(), 0)}


@pytest.mark.parametrize("way", ["out", "in"])
def test_drops_on_this_host(scenarios: dict[str, Scenario], way: str) -> None:
    """Each packet that nftables drops is a drop, on its way out or in, with the reason."""
    scenario = scenarios[f"dropped {way}"]
    dropped = [e for e in scenario.events if e["kind"] == "drop" and e["bytes"] == DROPPED_SIZE]
    assert len(dropped) == scenario.counted["dropped"] > 0
    assert {event["outgoing"] for event in dropped} == {way == "out"}
    reason = "NETFILTER_DROP" if hooks.has_drop_reasons() else None
    assert {event["reason"] for event in dropped} == {reason}
    if way == "out":
        assert {event["pid"] for event in dropped} == {os.getpid()}


@pytest.mark.native
def test_a_drop_of_old_data_is_the_repetition(scenarios: dict[str, Scenario]) -> None:
    """All has arrived: the receiver throws away what was sent again, after that and in vain."""
    scenario = scenarios["spurious"]
    dropped = [e for e in scenario.events if e["kind"] == "drop" and e["bytes"]]
    again = {event["seq"]: event["ts_ns"] for event in reversed(scenario.of("retransmit"))}
    assert dropped
    for event in dropped:
        assert event["reason"] in REPETITIONS
        assert again[event["seq"]] < event["ts_ns"]


@pytest.mark.parametrize("name", ["fast", "small writes", "tlp", "tlp then rto", "blackout"])
def test_what_is_lost_out_there_is_no_drop(scenarios: dict[str, Scenario], name: str) -> None:
    """On a slow machine a receiver may throw away what was sent again and had arrived."""
    dropped = [e for e in scenarios[name].events if e["kind"] == "drop" and e["bytes"]]
    assert [event for event in dropped if event["reason"] not in REPETITIONS] == []
