"""The share of its throughput that traffic keeps while somebody watches it.

Each monitor's turn lies between two turns without one, and makes a pair with each of them. The
median of the pairs counts.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks import monitors
from benchmarks.load import NAMES, load_namespace, put_load
from benchmarks.rounds import Rounds
from benchmarks.table import MISSED, Table
from tests.support.netns import Netns

Rates = dict[str, float]
Shares = dict[str, dict[str, list[float]]]

_HARDER = ("200 connections", "flood")
_TIMES_BPFTRACE = 3
_POINTS_BELOW_TCPDUMP = 0.05
_RUNS = 3


def rates(netns: Netns, seconds: float) -> Rates:
    """Run every workload; return operations a second: the median of _RUNS runs.

    A run that the host or the kernel's limit for real-time tasks stopped for a while does not
    count, and what lies between runs keeps them below that limit.
    """
    return {
        name: median(put_load(netns, name, seconds).rate for _ in range(_RUNS)) for name in NAMES
    }


def one_round(netns: Netns, watching: dict[str, monitors.Monitor], seconds: float) -> Shares:
    """Give every monitor its turn; return its two pairs' shares for each workload."""
    shares: Shares = {}
    before = rates(netns, seconds)
    for name, monitor in watching.items():
        with monitor(netns):
            watched = rates(netns, seconds)
        after = rates(netns, seconds)
        shares[name] = {
            load: [watched[load] / without[load] for without in (before, after)] for load in NAMES
        }
        before = after
    return shares


def measure(rounds: int, seconds: float) -> dict[str, Rates]:
    """Return the median share by monitor and workload."""
    all_shares: Shares = defaultdict(lambda: defaultdict(list))
    with load_namespace() as netns:
        for _ in range(rounds):
            for name, loads in one_round(netns, monitors.monitors(), seconds).items():
                for load, shares in loads.items():
                    all_shares[name][load] += shares
    return {
        name: {load: median(each) for load, each in loads.items()}
        for name, loads in all_shares.items()
    }


def targets(name: str, load: str, kept: dict[str, Rates]) -> list[float]:
    """Return the shares that a monitor has to leave at least; all have to hold."""
    if name == monitors.FILTERED:
        return [0.95]
    if name in (monitors.SEGMENTS, monitors.BOTH_WAYS) and monitors.TCPDUMP in kept:
        return [kept[monitors.TCPDUMP][load] - _POINTS_BELOW_TCPDUMP]
    if name == monitors.CONNECTIONS and load in ("bulk", "ping-pong"):
        return [0.99]
    if name == monitors.MESSAGES:  # its fields are those that the bpftrace script prints
        hard = load in ("ping-pong", "flood") and monitors.BPFTRACE in kept
        peer = [_TIMES_BPFTRACE * kept[monitors.BPFTRACE][load]] if hard else []
        return [0.80 if load in _HARDER else 0.90, *peer]
    return []


def cell(name: str, load: str, kept: dict[str, Rates]) -> str:
    """Return a share, and its target if there is one, as a text."""
    share, bound = kept[name][load], max(targets(name, load, kept), default=None)
    if bound is None:
        return f"{share:.2f}"
    verdict = "" if share >= bound else f" {MISSED}"
    return f"{share:.2f} (>= {bound:.2f}){verdict}"


def run(rounds: Rounds) -> None:
    """Print the table."""
    repeats, seconds = rounds.pick(3, 10, 40), 0.05
    table = Table(f"share of throughput kept, median of {2 * repeats} pairs", ("monitor", *NAMES))
    kept = measure(repeats, seconds)
    for name in kept:
        table.add(name, *(cell(name, load, kept) for load in NAMES))
    table.print()
