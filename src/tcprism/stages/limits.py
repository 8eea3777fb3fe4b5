"""Stages that pass a number of events, or a span of time, and then request a stop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcprism.events import Batch

_FOR_EVER_NS = 2.0**62


class First:
    """Lets the earliest `count` events through; calls `enough` with the last of them.

    Snapshots are no events: nothing happened when they were taken.
    """

    def __init__(self, count: int, enough: Callable[[], None]) -> None:
        self._left = count
        self._enough = enough

    def __call__(self, batch: Batch) -> Batch:
        """Return what is let through."""
        events = Batch(
            [part for part in batch.parts if part.family != "snapshot"], batch.clock_offset_ns
        )
        others = [part for part in batch.parts if part.family == "snapshot"]
        if len(events) >= self._left:
            events = events.between(0, self._left)
            self._enough()
        self._left -= len(events)
        return Batch([*others, *events.parts], batch.clock_offset_ns)


class Until:
    """Lets through what happened within `seconds` of the first event; then calls `enough`."""

    def __init__(self, seconds: float, enough: Callable[[], None]) -> None:
        self._seconds = seconds
        self._enough = enough
        self._end: int | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return what is let through."""
        if not len(batch):
            return batch
        moments = batch["ts_ns"]
        if self._end is None:
            self._end = int(moments[0]) + int(min(self._seconds * 1e9, _FOR_EVER_NS))
        inside = int(np.count_nonzero(moments <= self._end))
        if inside < len(batch):
            self._enough()
        return batch.between(0, inside)
