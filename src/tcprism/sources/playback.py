"""Playback: a recording as a source, as fast as possible or at its original pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.recording.reader import Recording
from tcprism.stages import Stage

_STEP_NS = 50_000_000  # recorded time shown at once, when there is a pace to keep


class Playback:
    """Reads a recording `speed` times as fast as it happened; 0: as fast as possible.

    Raises RecordingError.
    """

    stages: Sequence[Stage] = ()  # a recording has what they found

    def __init__(
        self,
        recording: Recording,
        speed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recording = recording
        self._speed = speed
        self._clock = clock
        batches = recording.batches()
        self._pieces = _in_steps(batches) if speed else batches
        self._held: Batch | None = None  # until it is its turn
        self._began: tuple[float, int] | None = None
        self._now_ns = 0
        self.ended = False

    @property
    def facts(self) -> Facts:
        """What was true when the recording began."""
        return self._recording.facts

    def now_ns(self) -> int:
        """Return the moment of the latest event that was read."""
        return self._now_ns

    def read(self) -> Batch:
        """Return the next events when it is their turn; it waits for a pipe that has none yet."""
        if self._held is None:
            self._held = next(self._pieces, None)
            self.ended = self._held is None
        if self._held is None or self._wait(self._held) > 0:
            return Batch([])
        batch, self._held = self._held, None
        self._now_ns = max([self._now_ns, *(int(p.rows["ts_ns"].max()) for p in _filled(batch))])
        return batch

    def _wait(self, batch: Batch) -> float:
        """Return the seconds until it is the turn of some events."""
        if not self._speed:
            return 0.0
        moment = int(batch["ts_ns"][0])
        self._began = self._began or (self._clock(), moment)
        began, begin_ns = self._began
        return began + (moment - begin_ns) / 1e9 / self._speed - self._clock()

    def pause(self) -> float:
        """Return the seconds until it is the turn of the next events, as far as they are known."""
        return max(0.0, self._wait(self._held)) if self._held else 0.0

    def stop(self) -> None:
        """Read no further."""
        self._held = None
        self._recording.close()

    def drain(self) -> Batch:
        """Return nothing: what was not read is not wanted."""
        return Batch([])

    def ledger(self) -> Ledger:
        """Return the account of what was recorded, as far as it was read."""
        return self._recording.ledger


def _filled(batch: Batch) -> Iterator[Part]:
    return (part for part in batch.parts if len(part))


def _in_steps(batches: Iterator[Batch]) -> Iterator[Batch]:
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
