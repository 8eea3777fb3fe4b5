"""Ways to go through recorded batches: so many events, so much time, at some speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tcprism import interrupts
from tcprism.events import Batch

_STEP_NS = 50_000_000  # recorded time shown at once, when there is a pace to keep


def first(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Yield the earliest `count` events."""
    for batch in batches:
        yield next(batch.split(count))
        count -= len(batch)
        if count <= 0:
            return


def until(batches: Iterable[Batch], seconds: float) -> Iterator[Batch]:
    """Yield what happened in the first seconds, counted from the first event."""
    end = None
    for batch in batches:
        moments = batch["ts_ns"]
        if end is None and len(batch):
            end = int(moments[0]) + int(seconds * 1e9)
        inside = int(np.count_nonzero(moments <= (end or 0)))
        if inside:
            yield next(batch.split(inside))
        if inside < len(batch):
            return


def paced(
    batches: Iterable[Batch],
    speed: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = interrupts.sleep,
) -> Iterator[Batch]:
    """Yield events when it is their turn, `speed` times as fast as they happened."""
    began = clock()
    begin_ns = None
    for piece in _in_steps(batches):
        moment = int(piece["ts_ns"][0])
        begin_ns = moment if begin_ns is None else begin_ns
        wait = began + (moment - begin_ns) / 1e9 / speed - clock()
        if wait > 0:
            sleep(wait)
        yield piece


def _in_steps(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Cut batches where recorded time goes on by a step; none is empty."""
    for batch in batches:
        if not len(batch):
            continue
        steps = batch["ts_ns"] // _STEP_NS
        cuts = [*np.flatnonzero(np.diff(steps)) + 1, len(batch)]
        begin = 0
        for cut in cuts:
            yield batch.between(begin, int(cut))
            begin = int(cut)
