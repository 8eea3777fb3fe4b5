"""The latest events, with access to any line."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.batch import size_of

LIMIT = 100_000
MEMORY = 128 << 20  # bytes

Chooser = Callable[[Part], NDArray[np.bool_]]


class EventHistory:
    """The latest events in the order in which they came: at most LIMIT, and what came with those.

    They take no more than about MEMORY bytes, but for what comes at once.

    `choose` tells of each event whether it is wanted; None takes all. `forgotten` counts the
    events that had to make room.
    """

    def __init__(self, choose: Chooser | None = None, limit: int = LIMIT) -> None:
        self._choose = choose
        self._limit = limit
        self._batches: list[Batch] = []
        self._ends: list[int] = []  # counted from the first event that ever came
        self._bytes = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else self.forgotten) - self.forgotten

    def add(self, batch: Batch) -> None:
        """Take the events that are wanted, and forget the oldest."""
        if self._choose:
            batch = chosen(batch, self._choose)
        if not len(batch):
            return
        self._ends.append((self._ends[-1] if self._ends else 0) + len(batch))
        self._batches.append(batch)
        self._bytes += size_of(batch)
        while len(self._batches) > 1 and (
            len(self) - len(self._batches[0]) >= self._limit or self._bytes > MEMORY
        ):
            self.forgotten = self._ends.pop(0)
            self._bytes -= size_of(self._batches.pop(0))

    def batches(self) -> list[Batch]:
        """Return all that is remembered."""
        return list(self._batches)

    def between(self, first: int, last: int) -> list[Batch]:
        """Return the events from one place up to another, oldest first, in batches."""
        first, last = first + self.forgotten, last + self.forgotten
        found = []
        for index in range(bisect_right(self._ends, first), len(self._batches)):
            start = self._ends[index] - len(self._batches[index])
            if start >= last:
                break
            found.append(self._batches[index].between(max(0, first - start), last - start))
        return found


def chosen(batch: Batch, choose: Chooser) -> Batch:
    """Return the events of a batch that are wanted."""
    parts = [part.take(choose(part)) for part in batch.parts]
    return Batch([part for part in parts if len(part)], batch.clock_offset_ns)
