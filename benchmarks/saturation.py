"""Whole runs of `tcprism trace` under a flood: CPU an event, losses, and the account.

The workload counts its own calls; what tcprism received and lost must add up to that, exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.load import Done, load_namespace, put_load
from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_least, at_most
from benchmarks.tracer import MeasuredTracer, lost, total, tracing
from tests.support.netns import Netns

READER_NS = at_most(100, "{:.0f}")
IDLE = at_most(1, "{:.2f} %")
NONE_LOST = at_most(0, "{:.0f}")
RATES = {"text": at_least(150_000, "{:,.0f}"), "json": at_least(300_000, "{:,.0f}")}

SINKS = {
    "--count-only": ("--count-only",),
    "text": ("--format", "text"),
    "json": ("--format", "json"),
}
READ_RATE = 200_000
CONNECTION_RATE = 3_000
CONNECTION_KINDS = ("connect", "accept", "close", "reset", "state")
_CALM_LOOKS = 10  # so often asleep in a row, looked at so many seconds apart: nothing is left to do
_LOOK_SECONDS = 0.02
_LADDER = (
    50_000,
    75_000,
    100_000,
    150_000,
    200_000,
    250_000,
    300_000,
    350_000,
    400_000,
    500_000,
    700_000,
)
_LADDER_RING = ("--ring-size", "16M")  # so that losing begins within seconds


@dataclass(frozen=True, slots=True)
class Run:
    """What the workload did, and what became of its events."""

    done: Done
    received: int
    lost: int
    cpu_ns: int

    @property
    def rate(self) -> float:
        """Events a second, as the workload made them."""
        return self.done.events / self.done.seconds

    @property
    def cpu_ns_an_event(self) -> float:
        """Nanoseconds of CPU that tcprism took for each event it received."""
        return self.cpu_ns / self.received

    def accounted(self) -> bool:
        """Tell whether every call that the load made is in the ledger."""
        return self.received + self.lost == self.done.events


def trace_flood(netns: Netns, seconds: float, rate: int, *arguments: str) -> Run:
    """Trace a flood of 64-byte messages at so many events a second; 0: as fast as it goes."""
    with tracing(netns, "--kinds", "send,recv", *arguments) as tracer:
        before = tracer.cpu_ns
        done = put_load(netns, "flood", seconds, 64, rate)
        spent = _settled(tracer) - before
        tracer.stop()
        return Run(done, total(tracer.ledger, "received"), lost(tracer.ledger), spent)


def _settled(tracer: MeasuredTracer) -> int:
    """Wait until a sink has caught up; return its CPU time then.

    Not to use the CPU is no sign: somebody else may be using it.
    """
    asleep = 0
    while asleep < _CALM_LOOKS:
        asleep = asleep + 1 if tracer.sleeps() else 0
        time.sleep(_LOOK_SECONDS)
    return tracer.cpu_ns


def idle_percent(netns: Netns, seconds: float) -> float:
    """Return the share of a core that tcprism takes while nothing happens."""
    with tracing(netns, "--count-only") as tracer:
        time.sleep(0.5)
        before, start = tracer.cpu_ns, time.perf_counter_ns()
        time.sleep(seconds)
        return 100 * (tracer.cpu_ns - before) / (time.perf_counter_ns() - start)


def first_loss(netns: Netns, seconds: float, sink: str) -> tuple[float, float]:
    """Return the highest rate at which a sink lost nothing, and the first at which it did."""
    kept = 0.0
    for rate in _LADDER:
        run = trace_flood(netns, seconds, rate, *SINKS[sink], *_LADDER_RING)
        if run.lost:
            return kept, run.rate
        kept = max(kept, run.rate)
    return kept, float("nan")


def reading(netns: Netns, seconds: float) -> None:
    """Print what it costs to read and count."""
    table = Table("reading with --count-only", ("what", "figure", "target", "", "events/s"))
    table.add("idle", *IDLE.cells(idle_percent(netns, seconds)), "0")
    for payload in ("0", "64"):
        run = trace_flood(netns, seconds, READ_RATE, "--count-only", "--payload", payload)
        name = f"CPU ns an event, --payload {payload}"
        table.add(name, *READER_NS.cells(run.cpu_ns_an_event), f"{run.rate:,.0f}")
    table.print()


def flooded(netns: Netns, seconds: float) -> None:
    """Print what each sink keeps of the fastest flood, with default sizes."""
    table = Table(
        f"the fastest flood, {seconds} s, rings of the default size",
        ("sink", "events/s", "lost", "target", "", "CPU ns an event", "so at most", "account"),
    )
    for name, arguments in SINKS.items():
        run = trace_flood(netns, seconds, 0, *arguments)
        losses = NONE_LOST.cells(run.lost) if name == "--count-only" else (f"{run.lost:,}", "", "")
        bound = f"{1e9 / run.cpu_ns_an_event:,.0f}"
        account = "exact" if run.accounted() else f"{run.received + run.lost} of {run.done.events}"
        cells = (f"{run.rate:,.0f}", *losses, f"{run.cpu_ns_an_event:,.0f}", bound)
        table.add(name, *cells, account)
    table.print()


def connections(netns: Netns, seconds: float) -> None:
    """Print what becomes of many short connections, all kinds of events traced."""
    table = Table(
        f"{CONNECTION_RATE:,} connections a second, {seconds} s, --kinds all, default sizes",
        ("sink", "connection events", "lost", "target", "", "others", "lost of them"),
    )
    for name, arguments in SINKS.items():
        with tracing(netns, "--kinds", "all", *arguments) as tracer:
            put_load(netns, "connect/close", seconds, rate=CONNECTION_RATE)
            tracer.stop()
        theirs = {kind: row for kind, row in tracer.ledger.items() if kind in CONNECTION_KINDS}
        others = {kind: row for kind, row in tracer.ledger.items() if kind not in theirs}
        cells = NONE_LOST.cells(lost(theirs))
        events = total(theirs, "received") + lost(theirs)
        table.add(
            name, f"{events:,}", *cells, f"{total(others, 'received'):,}", f"{lost(others):,}"
        )
    table.print()


def ladder(netns: Netns, seconds: float) -> None:
    """Print from which rate the sinks that write begin to lose."""
    table = Table(
        f"paced floods of {seconds} s, {' '.join(_LADDER_RING)}",
        ("sink", "none lost at events/s", "target", "", "some lost at"),
    )
    for name, target in RATES.items():
        kept, losing = first_loss(netns, seconds, name)
        table.add(name, *target.cells(kept), f"{losing:,.0f}")
    table.print()


def run(rounds: Rounds) -> None:
    """Print the tables."""
    seconds = rounds.pick(1, 2, 5)
    with load_namespace() as netns:
        reading(netns, seconds)
        flooded(netns, seconds)
        connections(netns, rounds.pick(2, 7, 20))
        ladder(netns, seconds)
