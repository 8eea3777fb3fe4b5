"""`tcprism serve` under a mixed load: what it takes must not grow, and its ledger be exact.

With --full, half an hour at a rate that leaves the machine to others.
"""

from __future__ import annotations

import shutil
import time
from functools import partial

from benchmarks.rounds import Rounds
from benchmarks.servers import PROGRAMS, servers
from benchmarks.table import Table, at_most
from tests.support.serving import Server, serving
from tests.support.soak import AB, REQUESTS, RETRANSMITS, Soaked, soak, unbalanced

GROWTH = at_most(1.05, "{:.3f}")
_LOADS = (*AB, ("redis-benchmark", "-q", "-t", "get,set", "-n", "5000"))
_SAMPLED = ("memory", "descriptors", "series")


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"\nsoak: not measured, this needs {', '.join(missing)}")
        return
    seconds, pause = rounds.pick(40, 120, 1800), rounds.pick(1, 1, 5)
    options = ("--requests",)
    with servers() as netns, serving(*options, "--netns", netns.path) as server:
        found = soak(netns, server, seconds, _LOADS, partial(time.sleep, pause))
        server.stop()
    _print(found, server, f"serve --requests under a mixed load for {seconds} s")


def _print(found: Soaked, server: Server, title: str) -> None:
    columns = ("", "first", "in the middle", "at the end", "growth", "target", "")
    table = Table(title, columns)
    for name in _SAMPLED:
        values = [getattr(each, name) for each in found.samples]
        shown = [_shown(name, values[at]) for at in (0, len(values) // 2, -1)]
        table.add(name, *shown, *GROWTH.cells(found.growth(name)))
    table.print()
    print(
        f"  requests: {found.told[REQUESTS]:,.0f} (ab counts {found.requests:,});"
        f" retransmissions: {found.told[RETRANSMITS]:,.0f} (RetransSegs: {found.retransmitted:,})"
    )
    kinds = ", ".join(unbalanced(server))
    print(f"  ledger: {f'DOES NOT BALANCE ({kinds})' if kinds else 'exact'}")


def _shown(name: str, value: int) -> str:
    return f"{value / 1e6:.0f} MB" if name == "memory" else str(value)
