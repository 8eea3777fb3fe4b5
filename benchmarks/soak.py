"""`tcprism serve` under a mixed load: what it takes must not grow, and its ledger be exact."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.rounds import Rounds
from benchmarks.servers import PROGRAMS, servers
from benchmarks.table import Table, at_most
from tests.support.netns import Netns
from tests.support.serving import Server, samples, serving
from tests.support.tracer import parse_ledger

GROWTH = at_most(1.05, "{:.2f}")
_LOADS = (
    ("ab", "-q", "-k", "-c", "50", "-n", "5000", "http://127.0.0.1:8080/hello"),
    ("ab", "-q", "-c", "20", "-n", "1000", "http://127.0.0.1:8080/hello"),
    ("redis-benchmark", "-q", "-t", "get,set", "-n", "5000"),
)
_PAUSE = 1.0  # seconds between loads, which are bursts


class Sample(NamedTuple):
    """What `serve` takes: bytes, descriptors, series."""

    memory: int
    descriptors: int
    series: int


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"\nsoak: not measured, this needs {', '.join(missing)}")
        return
    seconds = rounds.pick(40, 120, 1800)
    with servers() as netns, serving("--requests", "--netns", netns.path) as server:
        taken = under_load(netns, server, seconds)
        server.stop()
    table = Table(
        f"serve --requests under a mixed load for {seconds} s",
        ("", "after a third", "at two thirds", "at the end", "growth", "target", ""),
    )
    for name, values in zip(Sample._fields, zip(*taken, strict=True), strict=True):
        third, later, last = (values[len(values) * n // 3 - 1] for n in (1, 2, 3))
        shown = [
            f"{value / 1e6:.0f} MB" if name == "memory" else f"{value}"
            for value in (third, later, last)
        ]
        table.add(name, *shown, *GROWTH.cells(last / third))
    table.print()
    print(f"  ledger: {'exact' if balances(server) else 'DOES NOT BALANCE'}")


def _shown(name: str, value: int) -> str:
    return f"{value / 1e6:.0f} MB" if name == "memory" else str(value)


def under_load(netns: Netns, server: Server, seconds: float) -> list[Sample]:
    """Have one load after the other for so long; return what `serve` took after each round."""
    until = time.monotonic() + seconds
    taken = []
    while time.monotonic() < until:
        for load in _LOADS:
            netns.run(*load)
            time.sleep(_PAUSE)
        taken.append(sample(server))
    return taken


def sample(server: Server) -> Sample:
    """Return what a server takes now."""
    place = Path(f"/proc/{server.process.pid}")
    pages = int((place / "statm").read_text().split()[1])
    descriptors = len(list((place / "fd").iterdir()))
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, len(samples(server.get())))


def balances(server: Server) -> bool:
    """Tell whether the ledger of a server that has ended adds up."""
    outcomes = ("filtered", "sampled_out", "submitted", "ring_full", "ring_busy", "map_full")
    return all(
        row["received"] == row["submitted"] and row["seen"] == sum(row[name] for name in outcomes)
        for row in parse_ledger(server.said).values()
    )
