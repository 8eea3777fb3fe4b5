"""What each call sent or received, against the log of the program that made the calls."""

import base64
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.support import hooks, programs, workload
from tests.support.capture import Packet, capturing, read_packets
from tests.support.netns import Netns, namespace
from tests.support.tracer import Event, Tracer, tracing_all
from tests.support.workload import Call

# Every hook with all that a record can hold, and the best with payload cut short, which the tests
# of retransmissions see on every kernel.
WHOLE = [(hook, 16384) for hook in hooks.message_hooks()]
CUT_SHORT = (hooks.message_hooks()[0], 64)
RUNS = [*WHOLE, pytest.param(CUT_SHORT, marks=pytest.mark.native)]
Ends = tuple[int, int]  # the port from which a stream goes, and the port to which
MASK = 0xFFFFFFFF
ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1", "mapped": "127.0.0.1", "32-bit": "127.0.0.1"}


@dataclass
class Truth:
    """What happened: the workload's log, and the wire."""

    netns: int
    began_ns: int
    ended_ns: int
    calls: dict[str, list[Call]]
    packets: list[Packet]

    def calls_of(self, variant: str, scenario: str) -> list[Call]:
        """Return the calls of a scenario that are messages: those that did not say EAGAIN."""
        calls = [call for call in self.calls[variant] if call.scenario == scenario]
        return [call for call in calls if call.error != "EAGAIN"]

    @cached_property
    def streams(self) -> dict[Ends, list[Packet]]:
        """The packets by the ports from and to which they go."""
        streams: dict[Ends, list[Packet]] = defaultdict(list)
        for packet in self.packets:
            streams[packet.source_port, packet.destination_port].append(packet)
        return streams

    def first_seq(self, ends: Ends) -> int:
        """Return the number of a stream's first byte, as the wire had it."""
        return next(p.seq for p in self.streams[ends] if "SYN" in p.flags) + 1 & MASK

    def stream(self, ends: Ends) -> bytes:
        """Return the bytes that the wire carried."""
        start, data = self.first_seq(ends), bytearray()
        for packet in self.streams[ends]:
            if packet.payload:
                at = packet.seq - start & MASK
                data[at : at + len(packet.payload)] = packet.payload
        return bytes(data)


class Recording:
    """What one run of tcprism told of all scenarios."""

    def __init__(self, hook: str, payload: int, truth: Truth, tracer: Tracer) -> None:
        self.hook = hook
        self.payload = payload
        self.truth = truth
        self.events = tracer.events
        self.ledger = tracer.ledger
        self._by_port: dict[int, list[Event]] = defaultdict(list)
        for event in self.events:
            ports = (event["local_port"], event["remote_port"])
            self._by_port[max(ports) & ~1].append(event)  # the server's: even; the client's: one up

    def events_of(self, variant: str, scenario: str) -> list[Event]:
        """Return the events on a scenario's connection."""
        port = workload.VARIANTS[variant][2] + 2 * workload.scenarios().index(scenario)
        return self._by_port[port]


Runs = dict[tuple[str, int], Tracer]


def needed(items: list[pytest.Item]) -> list[tuple[str, int]]:
    """Return the runs that the chosen tests look at; one is there in any case."""
    chosen = {
        item.callspec.params.get("recording")
        for item in items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    return [run for run in [*WHOLE, CUT_SHORT] if run in chosen] or WHOLE[:1]


@pytest.fixture(scope="module")
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Truth, Runs]:
    """All scenarios in all variants, traced by every hook with every payload size at once."""
    wanted = needed(request.session.items)
    directory = tmp_path_factory.mktemp("message")
    for bits in programs.TARGETS:
        workload.build(bits)
    with namespace() as netns:
        common = ["--netns", netns.path, "--kinds", "send,recv", "--ring-size", "4M"]
        runs = {
            directory / f"{hook}-{payload}": [*common, "--hooks", hook, "--payload", str(payload)]
            for hook, payload in wanted
        }
        with tracing_all(runs) as tracers:
            truth = perform(netns, directory)
    return truth, dict(zip(wanted, tracers, strict=True))


def perform(netns: Netns, directory: Path) -> Truth:
    """Run the scenarios and capture the wire."""
    began = time.monotonic_ns()
    with capturing(netns, "lo", directory / "lo.pcap", "127.0.0.1"):
        calls = {
            variant: workload.run_calls(netns, variant, directory / f"{variant}.truth")
            for variant in workload.VARIANTS
        }
    packets = read_packets(directory / "lo.pcap")
    return Truth(netns.inode, began, time.monotonic_ns(), calls, packets)


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0]}-{run[1]}")
def recording(request: pytest.FixtureRequest, recorded: tuple[Truth, Runs]) -> Recording:
    """One hook's and payload size's run; the tests of this module look at it."""
    truth, tracers = recorded
    hook, payload = request.param
    return Recording(hook, payload, truth, tracers[hook, payload])


def by_thread(calls: list[Call], events: list[Event]) -> Iterator[tuple[Call, Event]]:
    """Pair each thread's calls with its events; there must be as many of these as of those."""
    told: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        told[event["tid"]].append(event)
    for tid in {call.tid for call in calls}:
        yield from zip([call for call in calls if call.tid == tid], told.pop(tid, []), strict=True)
    assert not told, "events of threads that made no calls"


def check_call(recording: Recording, call: Call, event: Event) -> None:
    """Who, what, how much, how it ended."""
    expected = {
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
    assert {name: event[name] for name in expected} == expected


def check_requested(recording: Recording, call: Call, event: Event) -> None:
    """What the caller asked for; only the arguments of sending system calls tell tracepoints."""
    unknown = call.path in ("io_uring", "spliced") and recording.hook == "tracepoint"
    assert event["requested"] in ({call.requested, None} if unknown else {call.requested})


def reasons_allowed(recording: Recording, call: Call) -> set[str | None]:
    """Return the reasons that an event may have for being without payload."""
    if call.path in ("spliced", "discarded"):
        return {call.path}
    if call.path == "io_uring" and recording.hook == "tracepoint":
        return {"io_uring", None}
    return {"fault", None} if call.path == "cold" else {None}


def check_payload(recording: Recording, call: Call, event: Event) -> None:
    """The bytes that the call moved, as far as was asked, or why they are not there."""
    reason = event["payload_unavailable"]
    captured = base64.b64decode(event["payload"] or "")
    if call.bytes == 0:
        assert (captured, reason) == (b"", None)
        return
    assert reason in reasons_allowed(recording, call)
    assert captured == (b"" if reason else call.data[: recording.payload])
    assert event["payload_truncated"] == (not reason and call.bytes > recording.payload)


def check_seq(recording: Recording, call: Call, event: Event) -> None:
    """The number that the wire gave the first byte, so that ranges join without gaps."""
    if call.bytes:
        ends = (call.local_port, call.remote_port)
        first = recording.truth.first_seq(ends if call.kind == "send" else ends[::-1])
        assert event["seq"] == first + call.offset & MASK


CHECKS = (check_call, check_requested, check_payload, check_seq)


def differences(recording: Recording, variant: str, scenario: str) -> Iterator[str]:
    """Tell where a scenario's events differ from what its calls really did."""
    calls = recording.truth.calls_of(variant, scenario)
    try:
        pairs = list(by_thread(calls, recording.events_of(variant, scenario)))
    except (ValueError, AssertionError) as error:
        yield f"{variant}: {error}"
        return
    for call, event in pairs:
        for check in CHECKS:
            try:
                check(recording, call, event)
            except AssertionError as error:
                yield f"{variant}: {check.__name__}: {call}: {error}"


@pytest.mark.parametrize("scenario", workload.scenarios())
def test_scenario(recording: Recording, scenario: str) -> None:
    """Each call is one event that is right in every respect, in all variants of the scenario."""
    variants = ["32-bit"] if scenario == "i386" else list(workload.VARIANTS)
    if not any(recording.truth.calls_of(variant, scenario) for variant in variants):
        pytest.skip(f"this kernel does not have {scenario}")
    found = [text for variant in variants for text in differences(recording, variant, scenario)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("variant", workload.VARIANTS)
def test_where(recording: Recording, variant: str) -> None:
    """Addresses, family and network namespace are those of the connection."""
    ip = ADDRESSES[variant]
    base = workload.VARIANTS[variant][2]
    events = [e for e in recording.events if base <= e["remote_port"] < base + 1000]
    where = {(e["family"], e["local_ip"], e["remote_ip"], e["netns"], e["uid"]) for e in events}
    assert where == {(6 if ":" in ip else 4, ip, ip, recording.truth.netns, 0)}


def test_nothing_else(recording: Recording) -> None:
    """There is an event for each call and no other."""
    calls = sum(
        len(recording.truth.calls_of(variant, scenario))
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
        if event["socket"] is not None and event["error"] is None:
            cookies[event["local_port"], event["remote_port"]].add(event["socket"])
    assert all(len(of_end) == 1 for of_end in cookies.values())
    assert len({cookie for of_end in cookies.values() for cookie in of_end}) == len(cookies)


def test_time(recording: Recording) -> None:
    """Events come in the order of their times, and these are within the run."""
    times = [event["ts_ns"] for event in recording.events]
    assert times == sorted(times)
    assert recording.truth.began_ns < times[0]
    assert times[-1] < recording.truth.ended_ns


def test_duration(recording: Recording) -> None:
    """The call's duration is known to the hooks that see its beginning."""
    durations = [event["duration_ns"] for event in recording.events]
    longest = recording.truth.ended_ns - recording.truth.began_ns
    if recording.hook == "tracepoint":
        assert set(durations) == {None}
    else:
        assert all(0 < duration < longest for duration in durations)


@pytest.mark.parametrize("variant", workload.VARIANTS)
def test_the_truth_is_what_the_wire_carried(recorded: tuple[Truth, Runs], variant: str) -> None:
    """The workload's own log agrees with tcpdump, so the other tests compare with facts."""
    truth, _ = recorded
    sent: dict[Ends, bytes] = defaultdict(bytes)
    for call in truth.calls[variant]:
        if call.kind == "send":
            sent[call.local_port, call.remote_port] += call.data
    for ends, data in sent.items():
        assert truth.stream(ends) == data
