"""Runs tcprism on a CPU of its own, and measures what it takes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import MONITOR_CPU
from tests.support.netns import Netns
from tests.support.tracer import Ledger, Tracer

PINNED = ("taskset", "-c", str(MONITOR_CPU))


class MeasuredTracer(Tracer):
    """One run, with its CPU time and memory."""

    @property
    def cpu_ns(self) -> int:
        """Nanoseconds of CPU of its main thread."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0])

    def sleeps(self) -> bool:
        """Tell whether it waits for something, and not just for a CPU."""
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "S"

    def resident_bytes(self) -> tuple[int, int]:
        """Return the resident memory: without the mapped rings, and of the rings."""
        rings = other = 0
        of_ring = False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                of_ring = "bpf-map" in line
            elif line.startswith("Rss:"):
                size = int(line.split()[1]) << 10
                rings, other = (rings + size, other) if of_ring else (rings, other + size)
        return other, rings


def total(ledger: Ledger, *columns: str) -> int:
    """Return a sum over all kinds."""
    return sum(account[column] for account in ledger.values() for column in columns)


def lost(ledger: Ledger) -> int:
    """Return how many events were lost, whatever the cause."""
    return total(ledger, "ring_full", "ring_busy", "map_full", "missed")


@contextmanager
def tracing(
    netns: Netns,
    *arguments: str,
    view: str = "trace",
    output: Path | None = None,
    prefix: tuple[str, ...] = PINNED,
) -> Iterator[MeasuredTracer]:
    """Trace a namespace, to a file that is thrown away or to `output`, until the body ends."""
    with tempfile.TemporaryDirectory() as directory:
        file = output or Path(directory, "events")
        chosen = ("--netns", netns.name, *arguments)
        tracer = MeasuredTracer(file, *chosen, prefix=prefix, view=view, written=())
        try:
            tracer.await_attached()
            yield tracer
            tracer.interrupt()
            if status := tracer.wait():
                raise RuntimeError(f"tcprism ended with {status}")
        finally:
            tracer.close()
