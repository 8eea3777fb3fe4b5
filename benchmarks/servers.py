"""Real servers under load on all CPUs: what they keep with `tcprism requests`, and what that shows.

Its turns lie between those of `tcprism trace` of messages, and make a pair with each of them.
The last table has its memory over many connections, each with a request.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.load import load_namespace
from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_least, at_most
from benchmarks.tracer import lost, tracing
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.server import serving

KEPT = at_least(0.85, "{:.2f}")
_REDIS = ("redis-benchmark", "-q", "-t", "get", "-n")
_MEGABYTE = 1 << 20
LOADS = {  # and how many times fewer requests than of the others
    "ab -k -c 200": (
        ("ab", "-q", "-k", "-c", "200", "-n", "{}", "http://127.0.0.1:8080/hello"),
        1,
    ),
    "redis-benchmark": ((*_REDIS, "{}"), 1),
    "redis-benchmark -P 16": ((*_REDIS, "{}", "-P", "16"), 1),
    "ab -c 4, 1 MB": (("ab", "-q", "-c", "4", "-n", "{}", "http://127.0.0.1:8080/megabyte"), 25),
}
_CONNECTIONS = ("ab", "-q", "-c", "100", "-n", "{}", "http://127.0.0.1:8080/hello")
_STEPS = 10
_PATIENCE = 60.0  # seconds without another line: what is missing then was lost
GROWTH = at_most(1.05, "{:.2f}")
PROGRAMS = ("nginx", "redis-server", "ab", "redis-benchmark")
RATE = re.compile(r"Requests per second: +([\d.]+)|GET: ([\d.]+) requests per second")


class Turn(NamedTuple):
    """One run of a load: requests a second, lines that tcprism wrote, events that it lost."""

    rate: float
    lines: int
    lost: int


@contextmanager
def servers() -> Iterator[Netns]:
    """Run nginx and Redis in a namespace."""
    with ExitStack() as stack:
        netns = stack.enter_context(load_namespace())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = ("redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        stack.enter_context(serving(netns, folder / "redis.log", *redis))
        (folder / "megabyte").write_bytes(bytes(_MEGABYTE))
        stack.enter_context(nginx(netns, folder))
        yield netns


def turn(netns: Netns, command: tuple[str, ...], view: str, *arguments: str) -> Turn:
    """Run a load while tcprism watches, on any CPU."""
    with tempfile.NamedTemporaryFile() as file:
        output = Path(file.name)
        with tracing(netns, *arguments, view=view, output=output, prefix=()) as tracer:
            said = netns.run(*command)
        (found,) = {match[1] or match[2] for match in RATE.finditer(said)}
        with output.open("rb") as lines:
            return Turn(float(found), sum(1 for _ in lines) - 1, lost(tracer.ledger))


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"\nservers: not measured, this needs {', '.join(missing)}")
        return
    repeats, count = rounds.pick(1, 3, 7), rounds.pick(20_000, 100_000, 100_000)
    table = Table(
        f"traffic kept with requests, of that with trace, median of {2 * repeats} pairs",
        ("load", "requests/s", "kept", "target", "", "made", "fewest shown", "events lost"),
    )
    with servers() as netns:
        for name, (command, fewer) in LOADS.items():
            load = tuple(word.format(count // fewer) for word in command)
            table.add(name, *_measured(netns, load, repeats, count // fewer))
        table.print()
        _memory(netns, rounds.pick(10_000, 100_000, 1_000_000))


def _memory(netns: Netns, count: int) -> None:
    """Print the memory after each tenth of so many connections, when all of it is written."""
    load = [word.format(count // _STEPS) for word in _CONNECTIONS]
    sizes: list[int] = []
    with tempfile.NamedTemporaryFile() as file:
        output = Path(file.name)
        with tracing(netns, view="requests", output=output, prefix=()) as tracer:
            for step in range(1, _STEPS + 1):
                netns.run(*load)
                _await_lines(output, step * count // _STEPS)
                sizes.append(tracer.resident_bytes()[0])
        with output.open("rb") as lines:
            shown = sum(1 for _ in lines) - 1
    table = Table(
        f"memory of requests over {count:,} connections, MB without the rings",
        (
            "",
            *(f"{tenth}/{_STEPS}" for tenth in range(1, _STEPS + 1)),
            "last/half",
            "",
            "",
            "shown",
        ),
    )
    cells = GROWTH.cells(sizes[-1] / sizes[_STEPS // 2 - 1])
    table.add("ab -c 100", *(f"{size / 1e6:.0f}" for size in sizes), *cells, f"{shown:,}")
    table.print()


def _await_lines(output: Path, count: int) -> None:
    """Wait until so many requests have been written."""
    seen, since = 0, time.monotonic()
    while seen < count and time.monotonic() - since < _PATIENCE:
        time.sleep(0.25)
        with output.open("rb") as lines:
            now = sum(1 for _ in lines) - 1
        if now > seen:
            seen, since = now, time.monotonic()


def _measured(netns: Netns, load: tuple[str, ...], repeats: int, count: int) -> Iterator[str]:
    turns: list[Turn] = []
    for number in range(2 * repeats + 1):
        watched = ("requests",) if number % 2 else ("trace", "--kinds", "send,recv")
        turns.append(turn(netns, load, *watched))
    shares = [
        after.rate / before.rate if number % 2 == 0 else before.rate / after.rate
        for number, (before, after) in enumerate(pairwise(turns))
    ]
    ours = turns[1::2]
    yield f"{median(one.rate for one in ours):,.0f}"
    yield from KEPT.cells(median(shares))
    yield f"{count:,}"
    yield f"{min(one.lines for one in ours):,}"
    yield f"{max(one.lost for one in ours):,}"
