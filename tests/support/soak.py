"""`tcprism serve` under a load for long: what it takes, and what it counts against the truth."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.conversation import send_over_loss
from tests.support.netns import Netns
from tests.support.serving import Server, samples
from tests.support.tracer import parse_ledger
from tests.support.unseen import unseen

REQUESTS = "http_client_request_duration_seconds_count"
RETRANSMITS = "system_network_tcp_retransmits_total"
_HELLO = "http://127.0.0.1:8080/hello"
AB = (
    ("ab", "-q", "-k", "-c", "50", "-n", "5000", _HELLO),
    ("ab", "-q", "-c", "20", "-n", "1000", _HELLO),
)
_COMPLETE = re.compile(r"Complete requests:\s+(\d+)")
_OUTCOMES = ("filtered", "sampled_out", "submitted", "ring_full", "ring_busy", "map_full")
_LOSSY_PORT = 9000


class Sample(NamedTuple):
    """What `serve` takes at a moment (CLOCK_MONOTONIC, seconds): bytes, descriptors, series."""

    at: float
    memory: int
    descriptors: int
    series: int


@dataclass
class Soaked:
    """What a run took, and what others count of it."""

    samples: list[Sample] = field(default_factory=list)
    requests: int = 0  # by ab
    retransmitted: int = 0  # RetransSegs, but for what no BPF program sees
    told: dict[str, float] = field(default_factory=dict)  # by serve, of REQUESTS and RETRANSMITS
    _latest: dict[str, float] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Add what counters have grown by, as Prometheus does: series end, and begin again."""
        found: dict[str, float] = {}
        for name, labels, value in samples(text):
            if name in (REQUESTS, RETRANSMITS):
                key = f"{name} {sorted(labels.items())}"
                found[key] = found.get(key, 0.0) + value
        for key, value in found.items():
            before = self._latest.get(key, 0.0)
            name = key.split()[0]
            more = value - before if value >= before else value
            self.told[name] = self.told.get(name, 0.0) + more
        self._latest |= found

    def growth(self, name: str) -> float:
        """Return how much larger a figure is at the end than in the middle, by a line fitted to it.

        The first half is left out: series are new when something happens for the first time.
        """
        half = self.samples[len(self.samples) // 2 :]
        at = np.array([sample.at for sample in half])
        slope, begin = np.polyfit(at - at[0], [getattr(each, name) for each in half], 1)
        return float((begin + slope * (at[-1] - at[0])) / begin)


def soak(
    netns: Netns,
    server: Server,
    seconds: float,
    loads: Sequence[Sequence[str]] = AB,
    pause: Callable[[], None] = lambda: None,
) -> Soaked:
    """Have one load after the other for so long; take a sample after each round.

    nginx answers at port 8080 of the namespace.
    """
    found = Soaked()
    before = netns.tcp_counters()["RetransSegs"]
    netns.drop_every(20, _LOSSY_PORT)
    with unseen("tcp_retransmit_skb", "saddr=127.0.0.1 ") as hidden:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for load in loads:
                said = _COMPLETE.search(netns.run(*load))
                found.requests += int(said[1]) if said else 0
                pause()
            send_over_loss(netns, _LOSSY_PORT)
            found.samples.append(_sample(server))
            found.read(server.get())
        netns.await_closed()
    found.retransmitted = netns.tcp_counters()["RetransSegs"] - before - len(hidden)
    counted = {REQUESTS: found.requests, RETRANSMITS: found.retransmitted}
    deadline = time.monotonic() + 30
    while found.told != counted and time.monotonic() < deadline:
        found.read(server.get())
        time.sleep(0.1)
    return found


def _sample(server: Server) -> Sample:
    place = Path(f"/proc/{server.process.pid}")
    pages = int((place / "statm").read_text().split()[1])
    descriptors = len(list((place / "fd").iterdir()))
    series = len(samples(server.get()))
    return Sample(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE"), descriptors, series)


def unbalanced(server: Server) -> list[str]:
    """Return the kinds of which the ledger of a server that has ended does not add up."""
    return [
        kind
        for kind, row in parse_ledger(server.said).items()
        if row["received"] != row["submitted"] or row["seen"] != sum(row[n] for n in _OUTCOMES)
    ]
