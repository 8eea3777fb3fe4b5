"""Going through recorded batches."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tcprism.events import Batch
from tcprism.recording.playback import first, paced, until

from .records import messages, segments

SECOND = 1_000_000_000


def batch(*moments: float) -> Batch:
    fields = [{"ts_ns": int(moment * SECOND)} for moment in moments]
    return Batch([messages(*fields[::2]), segments(*fields[1::2])])


def moments(batches: Iterable[Batch]) -> list[float]:
    return [event.ts_ns / SECOND for each in batches for event in each]


WHOLE = [batch(1, 1.5, 2), batch(2.5), batch(), batch(3, 4)]
ALL = [1, 1.5, 2, 2.5, 3, 4]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_first(count: int) -> None:
    assert moments(first(WHOLE, count)) == ALL[:count]


@pytest.mark.parametrize(("seconds", "count"), [(0.4, 1), (0.5, 2), (1.6, 4), (2, 5), (9, 6)])
def test_until(seconds: float, count: int) -> None:
    assert moments(until(WHOLE, seconds)) == ALL[:count]


@pytest.mark.parametrize("speed", [0.5, 1, 10])
def test_each_event_has_its_turn(speed: float) -> None:
    now = [100.0]
    shown = []
    for piece in paced(
        WHOLE, speed, lambda: now[0], lambda wait: now.__setitem__(0, now[0] + wait)
    ):
        shown += [(event.ts_ns / SECOND, now[0]) for event in piece]
    assert [moment for moment, _ in shown] == ALL
    for moment, at in shown:
        assert at == pytest.approx(100 + (moment - 1) / speed)


def test_what_is_late_is_not_waited_for() -> None:
    waits: list[float] = []
    clock = iter(range(0, 1000, 100))
    assert moments(paced(WHOLE, 1, lambda: next(clock), waits.append)) == ALL
    assert waits == []
