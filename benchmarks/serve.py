"""Servers at their full rate under `tcprism serve`, which keeps its default budget.

Turns with it lie between turns without, and make a pair with each of them. Before it counts, a turn
has had the load for as long as it takes until nothing changes any more. The CPU time is that of the
load's own process, in which hooks run too: it does not depend on what else the machine does.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from benchmarks.rounds import Rounds
from benchmarks.servers import LOADS, PROGRAMS, RATE, servers
from benchmarks.table import Table, at_least
from tests.support.netns import Netns
from tests.support.serving import Server, serving

KEPT = at_least(0.97, "{:.2f}")
_SETTLED = 6.0  # seconds without a change
_PATIENCE = 40.0
_EFFORT = "tcprism_effort_reduction"


class Turn(NamedTuple):
    """One run of a load: requests a second, its CPU seconds, and the budget's state at the end."""

    rate: float
    cpu: float
    used: float = 0.0
    step: float = 0.0


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"\nserve: not measured, this needs {', '.join(missing)}")
        return
    repeats, count = rounds.pick(1, 3, 6), rounds.pick(50_000, 100_000, 300_000)
    table = Table(
        f"traffic kept with serve and its default budget, median of {2 * repeats} pairs",
        ("load", "serve", "requests/s", "kept", "target", "", "CPU", "budget used", "steps down"),
    )
    with servers() as netns:
        for name in ("ab -k -c 200", "redis-benchmark"):
            load = tuple(word.format(count) for word in LOADS[name][0])
            for options in ((), ("--requests",)):
                shown = " ".join(options) or "defaults"
                table.add(name, shown, *_measured(netns, load, repeats, options))
    table.print()


def _measured(
    netns: Netns, load: tuple[str, ...], repeats: int, options: tuple[str, ...]
) -> Iterator[str]:
    turns = [_turn(netns, load)]
    for _ in range(repeats):
        turns += [_watched(netns, load, options), _turn(netns, load)]
    ours = turns[1::2]
    yield f"{median(one.rate for one in ours):,.0f}"
    yield from KEPT.cells(median(_shares([one.rate for one in turns])))
    yield f"{1 / median(_shares([one.cpu for one in turns])):.2f}"
    yield f"{median(one.used for one in ours):.2f}"
    yield f"{median(one.step for one in ours):.0f}"


def _shares(values: list[float]) -> list[float]:
    """Return what each value of a turn with serve is of those before and after it."""
    pairs = enumerate(pairwise(values))
    return [b / a if number % 2 == 0 else a / b for number, (a, b) in pairs]


def _turn(netns: Netns, load: tuple[str, ...]) -> Turn:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = netns.run(*load)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (rate,) = {match[1] or match[2] for match in RATE.finditer(said)}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Turn(float(rate), cpu)


def _watched(netns: Netns, load: tuple[str, ...], options: tuple[str, ...]) -> Turn:
    with serving("--netns", netns.path, *options, usual_budget=True) as server:
        _settle(netns, load, server)
        turn = _turn(netns, load)
        used = server.sum("tcprism_budget_usage")
        step = server.sum(_EFFORT)
        server.stop()
    return turn._replace(used=used, step=step)


def _settle(netns: Netns, load: tuple[str, ...], server: Server) -> None:
    """Have the load until for a while there was no change."""
    begin = changed = time.monotonic()
    step = -1.0
    while time.monotonic() - changed < _SETTLED and time.monotonic() - begin < _PATIENCE:
        netns.run(*load)
        if (now := server.sum(_EFFORT)) != step:
            step, changed = now, time.monotonic()
