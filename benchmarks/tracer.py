"""Runs `tcprism trace` as its users do, on a CPU of its own, and reads its account."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workload import MONITOR_CPU, Netns

PATIENCE = 60.0
COMMAND = (sys.executable, "-m", "tcprism")

Ledger = dict[str, dict[str, int]]


def _pinned(command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(MONITOR_CPU), *command]


class Tracer:
    """One run: it has its hooks on when this is made; after `stop()` there is the ledger."""

    def __init__(self, *arguments: str, command: str = "trace") -> None:
        self.process = subprocess.Popen(
            _pinned([*COMMAND, command, "-v", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        self._stderr = self.process.stderr
        self._said = self._stderr.readline()
        if not self._said.startswith("tracing"):
            raise RuntimeError(self._said + self._stderr.read())
        self.ledger: Ledger = {}

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

    def stop(self) -> None:
        """Stop it as Ctrl-C does and read its ledger."""
        self.process.send_signal(signal.SIGINT)
        self.ledger = parse_ledger(self._stderr.read().splitlines())
        if self.process.wait(PATIENCE):
            raise RuntimeError(f"tcprism ended with {self.process.returncode}")

    def close(self) -> None:
        """End it whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._stderr.close()


def parse_ledger(lines: Sequence[str]) -> Ledger:
    """Return the ledger's table: numbers by kind and column."""
    start = next(i for i, line in enumerate(lines) if re.match(r"\s*kind\s+seen", line))
    columns = lines[start].split()[1:]
    rows = (line.split() for line in lines[start + 1 :] if re.match(r"\s*\w+\s+\d", line))
    return {
        row[0]: dict(zip(columns, (int(n.replace(",", "")) for n in row[1:]), strict=True))
        for row in rows
    }


def total(ledger: Ledger, *columns: str) -> int:
    """Return a sum over all kinds."""
    return sum(account[column] for account in ledger.values() for column in columns)


def lost(ledger: Ledger) -> int:
    """Return how many events were lost, whatever the cause."""
    return total(ledger, "ring_full", "map_full", "missed")


@contextmanager
def tracing(
    netns: Netns, *arguments: str, command: str = "trace", output: Path | None = None
) -> Iterator[Tracer]:
    """Trace a namespace, to a file that is thrown away or to `output`, until the body ends."""
    with tempfile.TemporaryDirectory() as directory:
        file = output or Path(directory, "events")
        tracer = Tracer("--netns", netns.name, "--output", str(file), *arguments, command=command)
        try:
            yield tracer
            if tracer.process.poll() is None:
                tracer.stop()
        finally:
            tracer.close()
