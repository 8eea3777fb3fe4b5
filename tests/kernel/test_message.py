"""What each call sent or received, against the log of the program that made the calls."""

import base64
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import hooks, workload
from .capture import Packet, capturing, read_packets
from .netns import Netns, namespace
from .tracer import Event, Ledger, tracing
from .workload import Call

PAYLOADS = (64, 16384)
MASK = 0xFFFFFFFF
ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1", "mapped": "127.0.0.1", "32-bit": "127.0.0.1"}


@dataclass
class Recording:
    """One run of tcprism over all scenarios, and the truth about it."""

    hook: str
    payload: int
    netns: int
    began_ns: int
    ended_ns: int
    calls: dict[str, list[Call]]
    events: list[Event]
    packets: list[Packet]
    ledger: Ledger

    def calls_of(self, variant: str, scenario: str) -> list[Call]:
        """Return the calls of a scenario that are messages: those that did not say EAGAIN."""
        calls = [call for call in self.calls[variant] if call.scenario == scenario]
        return [call for call in calls if call.error != "EAGAIN"]

    def events_of(self, variant: str, scenario: str) -> list[Event]:
        """Return the events on a scenario's connection."""
        port = workload.VARIANTS[variant][2] + 2 * workload.scenarios().index(scenario)
        return [
            event
            for event in self.events
            if {event["local_port"], event["remote_port"]} & {port, port + 1}
        ]

    def first_seq(self, port: int, peer: int) -> int:
        """Return the number of the first byte that a port sends, as the wire had it."""
        syns = (
            p
            for p in self.packets
            if (p.source_port, p.destination_port) == (port, peer) and "SYN" in p.flags
        )
        return next(syns).seq + 1 & MASK

    def stream(self, port: int, peer: int) -> bytes:
        """Return the bytes that the wire carried from one port to the other."""
        start, data = self.first_seq(port, peer), bytearray()
        for packet in self.packets:
            if (packet.source_port, packet.destination_port) == (port, peer) and packet.payload:
                at = packet.seq - start & MASK
                data[at : at + len(packet.payload)] = packet.payload
        return bytes(data)


def record(hook: str, payload: int, netns: Netns, directory: Path) -> Recording:
    """Trace all scenarios in all variants."""
    arguments = (
        "--hooks",
        hook,
        "--payload",
        str(payload),
        "--netns",
        netns.path,
        "--kinds",
        "send,recv",
    )
    for bits in workload.TARGETS:
        workload.build(bits)
    with tracing(directory / "events.json", *arguments) as tracer:
        began = time.monotonic_ns()
        with capturing(netns, "lo", directory / "lo.pcap", "127.0.0.1"):
            calls = {
                variant: workload.run_calls(netns, variant, directory / f"{variant}.truth")
                for variant in workload.VARIANTS
            }
        ended = time.monotonic_ns()
    packets = read_packets(directory / "lo.pcap")
    return Recording(
        hook, payload, netns.inode, began, ended, calls, tracer.events, packets, tracer.ledger
    )


@pytest.fixture(
    scope="module",
    params=[(hook, payload) for hook in hooks.message_hooks() for payload in PAYLOADS],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def recording(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recording]:
    """One recording for each hook and payload size; all tests of this module look at it."""
    hook, payload = request.param
    with namespace() as netns:
        yield record(hook, payload, netns, tmp_path_factory.mktemp("message"))


all_variants = pytest.mark.parametrize("variant", workload.VARIANTS)
all_scenarios = pytest.mark.parametrize(
    ("variant", "scenario"),
    [
        (variant, scenario)
        for variant in workload.VARIANTS
        for scenario in workload.scenarios()
        if scenario != "i386" or variant == "32-bit"
    ],
)


def present(recording: Recording, variant: str, scenario: str) -> list[Call]:
    """Return a scenario's calls, or skip what this kernel does not have."""
    calls = recording.calls_of(variant, scenario)
    if not calls:
        pytest.skip(f"this kernel does not have {scenario}")
    return calls


def by_thread(calls: list[Call], events: list[Event]) -> Iterator[tuple[Call, Event]]:
    """Pair each thread's calls with its events; there must be as many of these as of those."""
    told: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        told[event["tid"]].append(event)
    for tid in {call.tid for call in calls}:
        yield from zip([call for call in calls if call.tid == tid], told.pop(tid, []), strict=True)
    assert not told, "events of threads that made no calls"


def facts_of_call(call: Call) -> dict[str, object]:
    """Return what an event must say of a call, whatever the hook."""
    return {
        "kind": call.kind,
        "pid": call.pid,
        "tid": call.tid,
        "comm": call.comm,
        "bytes": call.bytes,
        "error": call.error,
        "flags": call.flags or None,
        "local_port": call.local_port,
        "remote_port": call.remote_port,
    }


@all_scenarios
def test_calls(recording: Recording, variant: str, scenario: str) -> None:
    """Each call is one event that says who, what, how much and how it ended."""
    calls, events = present(recording, variant, scenario), recording.events_of(variant, scenario)
    for call, event in by_thread(calls, events):
        expected = facts_of_call(call)
        assert {name: event[name] for name in expected} == expected, call


def check_requested(recording: Recording, call: Call, event: Event) -> None:
    if event["requested"] is None:  # io_uring's arguments are in no system call
        assert (call.path, recording.hook) == ("io_uring", "tracepoint")
    else:
        assert event["requested"] == call.requested, call


@all_scenarios
def test_requested(recording: Recording, variant: str, scenario: str) -> None:
    """`requested` is what the caller asked for."""
    calls, events = present(recording, variant, scenario), recording.events_of(variant, scenario)
    for call, event in by_thread(calls, events):
        check_requested(recording, call, event)


def reason_allowed(recording: Recording, call: Call) -> set[str | None]:
    """Return the reasons that an event may have for being without payload."""
    if call.path in ("spliced", "discarded"):
        return {call.path}
    if call.path == "io_uring" and recording.hook == "tracepoint":
        return {"io_uring", None}
    return {"fault", None} if call.path == "cold" else {None}


def check_payload(recording: Recording, call: Call, event: Event) -> None:
    reason = event["payload_unavailable"]
    captured = base64.b64decode(event["payload"] or "")
    if call.bytes == 0:
        assert (captured, reason) == (b"", None), call
        return
    assert reason in reason_allowed(recording, call), call
    expected = b"" if reason else call.data[: recording.payload]
    assert captured == expected, call
    assert event["payload_truncated"] == (not reason and call.bytes > recording.payload), call


@all_scenarios
def test_payload(recording: Recording, variant: str, scenario: str) -> None:
    """The payload is the bytes that the call moved, as far as was asked."""
    calls, events = present(recording, variant, scenario), recording.events_of(variant, scenario)
    for call, event in by_thread(calls, events):
        check_payload(recording, call, event)


def offsets(calls: list[Call]) -> list[int]:
    """Return where in its stream each call's bytes begin."""
    done: dict[tuple[int, str], int] = defaultdict(int)
    starts = []
    for call in calls:
        stream = (call.local_port, call.kind)
        starts.append(done[stream])
        done[stream] += 0 if call.flags == "PEEK" else call.bytes
    return starts


@all_scenarios
def test_sequence_numbers(recording: Recording, variant: str, scenario: str) -> None:
    """`seq` is the number that the wire gave the first byte, so ranges join without gaps."""
    calls, events = present(recording, variant, scenario), recording.events_of(variant, scenario)
    starts = dict(zip(map(id, calls), offsets(calls), strict=True))
    for call, event in by_thread(calls, events):
        if call.bytes:
            ends = (call.local_port, call.remote_port)
            first = recording.first_seq(*(ends if call.kind == "send" else ends[::-1]))
            assert event["seq"] == first + starts[id(call)] & MASK, call


@all_variants
def test_where(recording: Recording, variant: str) -> None:
    """Addresses, family and network namespace are those of the connection."""
    ip = ADDRESSES[variant]
    base = workload.VARIANTS[variant][2]
    events = [e for e in recording.events if base <= e["remote_port"] < base + 1000]
    where = {(e["family"], e["local_ip"], e["remote_ip"], e["netns"], e["uid"]) for e in events}
    assert where == {(6 if ":" in ip else 4, ip, ip, recording.netns, 0)}


def test_nothing_else(recording: Recording) -> None:
    """There is an event for each call and no other."""
    calls = sum(
        len(recording.calls_of(variant, scenario))
        for variant in workload.VARIANTS
        for scenario in workload.scenarios()
    )
    assert len(recording.events) == calls
    counted = {kind: row["submitted"] for kind, row in recording.ledger.items()}
    assert counted["send"] + counted["recv"] == calls


def test_cgroup(recording: Recording) -> None:
    """cgroup_id is the inode of the caller's cgroup v2 directory."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mounted = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    path = next(
        line[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    assert {e["cgroup_id"] for e in recording.events} == {Path(mounted + path).stat().st_ino}


def test_socket_cookies(recording: Recording) -> None:
    """Each end of a connection has one cookie, and no two ends share one."""
    cookies: dict[tuple[int, int], set[int]] = defaultdict(set)
    for event in recording.events:
        if event["socket"] is not None:
            cookies[event["local_port"], event["remote_port"]].add(event["socket"])
    assert all(len(of_end) == 1 for of_end in cookies.values())
    assert len({cookie for of_end in cookies.values() for cookie in of_end}) == len(cookies)


def test_time(recording: Recording) -> None:
    """Events come in the order of their times, and these are within the run."""
    times = [event["ts_ns"] for event in recording.events]
    assert times == sorted(times)
    assert recording.began_ns < times[0]
    assert times[-1] < recording.ended_ns


def test_duration(recording: Recording) -> None:
    """The call's duration is known to the hooks that see its beginning."""
    durations = [event["duration_ns"] for event in recording.events]
    if recording.hook == "tracepoint":
        assert set(durations) == {None}
    else:
        assert all(0 < duration < recording.ended_ns - recording.began_ns for duration in durations)


@all_variants
def test_the_truth_is_what_the_wire_carried(recording: Recording, variant: str) -> None:
    """The workload's own log agrees with tcpdump, so the other tests compare with facts."""
    sent: dict[tuple[int, int], bytes] = defaultdict(bytes)
    for call in recording.calls[variant]:
        if call.kind == "send":
            sent[call.local_port, call.remote_port] += call.data
    for ends, data in sent.items():
        assert recording.stream(*ends) == data
