"""Losses: retransmissions, undos and drops, added up by cause, peer, process and time."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tcprism.diagnosis.connections import owners
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.scopes import shown

SECONDS = 60
NANOSECONDS = 1_000_000_000


class Losses:
    """Counts the segments of `retransmit` events, and `undo` and `drop` events, as they come."""

    def __init__(self) -> None:
        self.causes: Counter[str] = Counter()
        self.peers: Counter[str] = Counter()
        self.processes: Counter[str] = Counter()
        self._seconds: Counter[int] = Counter()

    def add(self, batch: Batch) -> None:
        """Count the losses of a batch."""
        for part in batch.parts:
            if part.family == "loss":
                self._add(part)

    def _add(self, part: Part) -> None:
        segments = np.maximum(part.rows["segs"], 1).tolist()
        for counter, names in (
            (self.causes, _causes(part)),
            (self.peers, shown(part, "remote_ip")),
            (self.processes, owners(part)),
        ):
            for name, count in zip(names, segments, strict=True):
                counter[name] += count
        for moment, count in zip(part.rows["ts_ns"].tolist(), segments, strict=True):
            self._seconds[moment // NANOSECONDS] += count
        for second in sorted(self._seconds)[: -2 * SECONDS]:
            del self._seconds[second]

    def per_second(self, now_ns: int) -> list[float]:
        """Return the segments of each of the last SECONDS seconds, oldest first."""
        last = now_ns // NANOSECONDS
        return [float(self._seconds[second]) for second in range(last - SECONDS + 1, last + 1)]


def _causes(part: Part) -> list[str]:
    """Return why each was retransmitted; events that are not retransmissions are named by kind."""
    kinds, causes = (BY_NAME[name].to_list(part) for name in ("kind", "cause"))
    return [cause or kind for kind, cause in zip(kinds, causes, strict=True)]
