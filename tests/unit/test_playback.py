"""Going through recorded batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest

from tcprism.events import Batch
from tcprism.pipeline import flow
from tcprism.recording.reader import Recording
from tcprism.sources.playback import Playback
from tcprism.stages import Stage
from tcprism.stages.limits import First, Until

from .records import messages, segments

SECOND = 1_000_000_000


def batch(*moments: float) -> Batch:
    fields = [{"ts_ns": int(moment * SECOND)} for moment in moments]
    return Batch([messages(*fields[::2]), segments(*fields[1::2])])


def moments(batches: Iterable[Batch]) -> list[float]:
    return [event.ts_ns / SECOND for each in batches for event in each]


WHOLE = [batch(1, 1.5, 2), batch(2.5), batch(), batch(3, 4)]
ALL = [1, 1.5, 2, 2.5, 3, 4]


class Recorded(Recording):
    """A recording that has these batches."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self.stopped = False

    def batches(self) -> Iterator[Batch]:
        return iter(self._batches)

    def close(self) -> None:
        self.stopped = True


class Clock:
    """Goes on when somebody waits."""

    reached = False

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def enough(self) -> None:
        self.reached = True


def shown(stages: Sequence[Stage], clock: Clock, speed: float = 0.0) -> Iterator[Batch]:
    """Play it all back."""
    for each, pause in flow(Playback(Recorded(WHOLE), speed, clock), stages, clock):
        yield each
        clock.wait(pause)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_first(count: int) -> None:
    clock = Clock()
    assert moments(shown([First(count, clock.enough)], clock)) == ALL[:count]
    assert clock.reached == (count <= len(ALL))


@pytest.mark.parametrize(("seconds", "count"), [(0.4, 1), (0.5, 2), (1.6, 4), (2, 5), (9, 6)])
def test_until(seconds: float, count: int) -> None:
    clock = Clock()
    assert moments(shown([Until(seconds, clock.enough)], clock)) == ALL[:count]


@pytest.mark.parametrize("speed", [0.5, 1, 10])
def test_each_event_has_its_turn(speed: float) -> None:
    clock, turns = Clock(), []
    for piece in shown([], clock, speed):
        turns += [(event.ts_ns / SECOND, clock.now) for event in piece]
    assert [moment for moment, _ in turns] == ALL
    for moment, at in turns:
        assert at == pytest.approx(100 + (moment - 1) / speed)


def test_what_is_late_is_not_waited_for() -> None:
    clock = Clock()
    source = Playback(Recorded(WHOLE), 1, clock)
    seen = []
    while not source.ended:
        seen.append(source.read())
        clock.now += 100
        assert source.pause() == 0
    assert moments(seen) == ALL


def test_a_duration_may_be_longer_than_any_clock() -> None:
    clock = Clock()
    assert moments(shown([Until(1e300, clock.enough)], clock)) == ALL


def test_a_stop_reads_no_further() -> None:
    recording, clock = Recorded(WHOLE), Clock()
    clock.reached = True
    assert moments(each for each, _ in flow(Playback(recording), [], clock)) == []
    assert recording.stopped
