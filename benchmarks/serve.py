"""Servers at their full rate under `tcprism serve`, which keeps its default budget.

Blocks of short turns with it lie between blocks without, and each block is compared with those
beside it by its median: machines change their speed from minute to minute. Before they count, serve
has had the load for as long as it takes until nothing changes any more. The CPU time is that of the
load's own process, in which hooks run too. After them, one turn more counts how often hooks ran.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.bpf import statistics
from benchmarks.rounds import Rounds
from benchmarks.servers import LOADS, PROGRAMS, RATE, servers
from benchmarks.table import Table, at_least
from tests.support.netns import Netns
from tests.support.serving import Server, serving

KEPT = at_least(0.97, "{:.2f}")
_REQUESTS = 100_000  # of a turn
_SETTLED = 6.0  # seconds without a change
_PATIENCE = 40.0
_EFFORT = "tcprism_effort_reduction"


class Turn(NamedTuple):
    """One run of a load, or the median of some: requests a second, and its CPU seconds."""

    rate: float
    cpu: float


class Block(NamedTuple):
    """Turns under serve: their median, and the budget's state and the hooks' runs at the end."""

    turn: Turn
    used: float
    step: float
    runs: int


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"\nserve: not measured, this needs {', '.join(missing)}")
        return
    repeats, turns = rounds.pick(1, 3, 10), rounds.pick(3, 5, 5)
    table = Table(
        f"traffic kept with serve and its default budget, median of {2 * repeats} pairs",
        ("load", "serve", "requests/s", "kept", "target", "", "quartiles", "CPU", "budget used",
         "steps down", "hooks run a request"),
    )  # fmt: skip
    with servers() as netns:
        for name in ("ab -k -c 200", "redis-benchmark"):
            load = tuple(word.format(_REQUESTS) for word in LOADS[name][0])
            for options in ((), ("--requests",)):
                shown = " ".join(options) or "defaults"
                table.add(name, shown, *_measured(netns, load, (repeats, turns), options))
    table.print()


def _measured(
    netns: Netns, load: tuple[str, ...], size: tuple[int, int], options: tuple[str, ...]
) -> Iterator[str]:
    repeats, turns = size
    with_it: list[Block] = []
    without = [_turns(netns, load, turns)]
    for _ in range(repeats):
        with_it.append(_watched(netns, load, turns, options))
        without.append(_turns(netns, load, turns))
    pairs = list(_pairs(without, [block.turn for block in with_it]))
    kept = [one.rate / other.rate for one, other in pairs]
    yield f"{median(block.turn.rate for block in with_it):,.0f}"
    yield from KEPT.cells(median(kept))
    low, _, high = quantiles(kept, method="inclusive")
    yield f"{low:.2f} to {high:.2f}"
    yield f"{median(other.cpu / one.cpu for one, other in pairs):.2f}"
    yield f"{median(block.used for block in with_it):.2f}"
    yield f"{median(block.step for block in with_it):.0f}"
    yield f"{median(block.runs for block in with_it) / _REQUESTS:.3f}"


def _pairs(without: list[Turn], with_it: list[Turn]) -> Iterator[tuple[Turn, Turn]]:
    """Yield each block under serve with those before and after it."""
    for one, before, after in zip(with_it, without, without[1:], strict=False):
        yield one, before
        yield one, after


def _turns(netns: Netns, load: tuple[str, ...], count: int) -> Turn:
    turns = [_turn(netns, load) for _ in range(count)]
    return Turn(median(one.rate for one in turns), median(one.cpu for one in turns))


def _turn(netns: Netns, load: tuple[str, ...]) -> Turn:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = netns.run(*load)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (rate,) = {match[1] or match[2] for match in RATE.finditer(said)}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Turn(float(rate), cpu)


def _watched(netns: Netns, load: tuple[str, ...], count: int, options: tuple[str, ...]) -> Block:
    with serving("--netns", netns.path, *options, usual_budget=True) as server:
        _settle(netns, load, server)
        turn = _turns(netns, load, count)
        used, step = server.sum("tcprism_budget_usage_ratio"), server.sum(_EFFORT)
        with statistics():
            before = _runs(server)
            _turn(netns, load)
            runs = _runs(server) - before
        server.stop()
    return Block(turn, used, step, runs)


def _runs(server: Server) -> int:
    """Return how often the programs of a serve have run, each counted once."""
    runs: dict[str, int] = {}
    for info in Path(f"/proc/{server.process.pid}/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except FileNotFoundError:  # it was closed meanwhile
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "run_cnt" in fields:
            runs[fields["prog_id"]] = int(fields["run_cnt"])
    return sum(runs.values())


def _settle(netns: Netns, load: tuple[str, ...], server: Server) -> None:
    """Have the load until for a while there was no change."""
    begin = changed = time.monotonic()
    step = -1.0
    while time.monotonic() - changed < _SETTLED and time.monotonic() - begin < _PATIENCE:
        netns.run(*load)
        if (now := server.sum(_EFFORT)) != step:
            step, changed = now, time.monotonic()
