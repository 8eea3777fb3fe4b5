"""What one run of each BPF program costs the kernel, net of an empty program on the same hook.

The kernel itself takes the time (bpf_stats). Both programs are on the hook together, so both see
the same machine. The median of several rounds counts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from threading import Thread

from benchmarks.bpf import Programs, Runs, runs_of, statistics
from benchmarks.build import bpf_object
from benchmarks.load import MONITOR_CPU, load_namespace, put_load
from benchmarks.rounds import Rounds
from benchmarks.table import Table, Target, at_most
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support.netns import Netns

FILTERED = at_most(40, "{:.0f}")
RECORDED = at_most(250, "{:.0f}")
EVENTS = {
    "send": ("tracepoint_send_buffer", "tracepoint_send"),
    "recv": ("tracepoint_recv",),
    "transmit": ("cgroup_transmit",),
    "receive": ("cgroup_receive",),
}
_UNUSED_PORT = 1
_TICK_SECONDS = 0.005

Averages = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of tcprism, the target of an event, the size of the messages that pass."""

    name: str
    request: Request
    target: Target | None = None
    size: int = 64


def cases() -> list[Case]:
    """Return every case of the table."""
    messages = Request(kinds=("send", "recv"), payload=0)
    segments = Request(kinds=("send", "recv", "transmit"), payload=0)
    both_ways = Request(kinds=("transmit", "receive"))
    elsewhere = Criteria(ports=((_UNUSED_PORT, _UNUSED_PORT),))
    another = Criteria(pids=(1,))
    return [
        Case("another port", replace(messages, filter=elsewhere), FILTERED),
        Case("another pid", replace(messages, filter=another), FILTERED),
        Case("another port, segments too", replace(segments, filter=elsewhere), FILTERED),
        Case("another pid, segments too", replace(segments, filter=another), FILTERED),
        Case("messages", messages, RECORDED),
        Case("messages and segments", segments, RECORDED),
        Case("segments of both directions", both_ways, RECORDED),
        Case("the same with options", replace(both_ways, options=True)),
        Case("the same with 64 bytes, too", replace(both_ways, options=True, segment_payload=64)),
        Case("messages, 64 bytes", replace(messages, payload=64)),
        Case("messages, 256 bytes", replace(messages, payload=256), None, 256),
        Case("messages, 2000 bytes", replace(messages, payload=2000), None, 2000),
    ]


class Watched(Tracing):
    """A monitor whose programs can be watched."""

    def descriptors(self) -> dict[str, int]:
        """Return the descriptors of the loaded programs by their names."""
        loaded = self._hooks._object
        return {name: loaded.program_fd(name) for name in loaded.loaded}


def measure(case: Case, netns: Netns, rounds: int, seconds: float) -> Averages:
    """Return nanoseconds a run of each program, one figure a round, net of the empty one."""
    net: Averages = defaultdict(list)
    with Programs(bpf_object("empty")) as empty, Watched(case.request) as monitor:
        empty.attach()
        baseline, watched = empty.descriptors(), monitor.descriptors()
        for _ in range(rounds):
            before = _runs(baseline), _runs(watched)
            read_during(monitor, lambda: put_load(netns, "ping-pong", seconds, case.size))
            nothing, ours = _since(before[0], baseline), _since(before[1], watched)
            for name in watched.keys() & baseline.keys():
                if not ours[name].count:  # it waits for somebody to use io_uring
                    continue
                net[name].append(ours[name].average - nothing[name].average)
                net["empty"].append(nothing[name].average)
        if lost := monitor.ledger().lost:
            raise AssertionError(f"{case.name}: {lost} events were lost, which is cheap")
    return net


def read_during(monitor: Tracing, work: Callable[[], object]) -> None:
    """Read what a monitor has while some work is done, and after."""
    thread = Thread(target=work)
    thread.start()
    while thread.is_alive():
        monitor.read()
        thread.join(_TICK_SECONDS)
    while monitor.fill_level():
        monitor.read()


def _runs(descriptors: dict[str, int]) -> dict[str, Runs]:
    return {name: runs_of(descriptor) for name, descriptor in descriptors.items()}


def _since(before: dict[str, Runs], descriptors: dict[str, int]) -> dict[str, Runs]:
    return {name: runs.since(before[name]) for name, runs in _runs(descriptors).items()}


def report(case: Case, net: Averages, table: Table) -> None:
    """Add a row for each event that the case is about: its programs' times together."""
    for event, programs in EVENTS.items():
        each = [median(net[name]) for name in programs if name in net]
        if not each:
            continue
        figure, bound, verdict = (
            case.target.cells(sum(each)) if case.target else (f"{sum(each):.0f}", "", "")
        )
        shares = " + ".join(f"{share:.0f}" for share in each) if len(each) > 1 else ""
        empty = f"{median(net['empty']):.0f}"
        table.add(case.name, event, figure, bound, verdict, shares, empty)


def run(rounds: Rounds) -> None:
    """Print the table."""
    repeats, seconds = rounds.pick(3, 9, 27), 0.2
    os.sched_setaffinity(0, {MONITOR_CPU})
    table = Table(
        "kernel: nanoseconds an event, net of an empty program on the same hooks (bpf_stats)",
        ("case", "event", "net ns", "target", "", "by program", "empty"),
    )
    with statistics(), load_namespace() as netns:
        for case in cases():
            report(case, measure(case, netns, repeats, seconds), table)
    table.print()
