"""Waits: times between requests and answers, from the messages of all connections."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Numbers, Rows
from tcprism.events._wire import (
    DURATION_UNKNOWN,
    MICROSECONDS_UNKNOWN,
    EventKind,
    MessageFlag,
)

ASKED, SERVED = 0, 1  # sent and waited for the answer; read and worked on the answer
SHORT_NS = 1_000_000  # an answer that comes sooner is no slow one: such ones are only counted
PAUSE_NS = 500_000_000  # who goes on after that without an answer did not wait for one
INTERVALS_MAX = 1_000_000

_PEEK = np.uint16(MessageFlag.PEEK)
_INTERVAL = np.dtype(
    [("number", np.intp), ("side", np.uint8), ("start", np.int64), ("end", np.int64)]
)
_STATE = np.dtype(
    [
        ("kind", np.uint8),  # of the latest message
        ("ts_ns", np.int64),
        ("short", np.int64, 2),  # how many waits of each side were not kept
        ("alone", np.int64, 2),  # messages that followed one of the same kind after a pause
    ]
)


@dataclass(slots=True)
class Waits:
    """Takes messages as they come; a connection has a number, as `ends.Numbers` gives it.

    It keeps the INTERVALS_MAX / 2 longest waits at the least, and counts the others.
    """

    state: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, _STATE))
    _intervals: list[NDArray[np.void]] = field(default_factory=list)
    _kept: int = 0

    def add(self, numbers: NDArray[np.intp], rows: Rows) -> None:
        """Take messages, with the number of each one's connection; below 0: not wanted."""
        wanted = (rows["bytes"] > 0) & (rows["flags"] & _PEEK == 0) & (numbers >= 0)
        numbers, rows = numbers[wanted], rows[wanted]
        if not len(numbers):
            return
        self._grow(int(numbers.max()) + 1)
        moments = rows["ts_ns"].astype(np.int64)
        order = np.lexsort((moments, numbers))
        numbers, kinds, moments = numbers[order], rows["kind"][order], moments[order]
        starts = np.r_[True, numbers[1:] != numbers[:-1]]
        before_kind, before_ns = np.r_[0, kinds[:-1]], np.r_[0, moments[:-1]]
        before_kind[starts] = self.state["kind"][numbers[starts]]
        before_ns[starts] = self.state["ts_ns"][numbers[starts]]
        ready = moments - _inside(rows[order])
        known = before_ns > 0
        for side, (first, second) in enumerate(
            ((EventKind.SEND, EventKind.RECV), (EventKind.RECV, EventKind.SEND))
        ):
            answers = known & (before_kind == first) & (kinds == second)
            self.keep(side, numbers[answers], before_ns[answers], ready[answers])
            alone = known & (before_kind == first) & (kinds == first)
            alone &= moments - before_ns > PAUSE_NS
            np.add.at(self.state["alone"][:, side], numbers[alone], 1)
        ends = np.r_[starts[1:], True]
        self.state["kind"][numbers[ends]] = kinds[ends]
        self.state["ts_ns"][numbers[ends]] = moments[ends]

    def begin(
        self, numbers: NDArray[np.intp], kinds: NDArray[np.uint8], moments: NDArray[np.int64]
    ) -> None:
        """Take what was said last before messages were watched, where none has come yet."""
        if not len(numbers):
            return
        self._grow(int(numbers.max()) + 1)
        new = (numbers >= 0) & (self.state["ts_ns"][numbers] == 0)
        self.state["kind"][numbers[new]] = kinds[new]
        self.state["ts_ns"][numbers[new]] = moments[new]

    def _grow(self, size: int) -> None:
        if size > len(self.state):
            more = np.zeros(max(size, 2 * len(self.state)) - len(self.state), _STATE)
            self.state = np.concatenate([self.state, more])

    def keep(
        self,
        side: int,
        numbers: NDArray[np.intp],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
    ) -> None:
        """Take waits of one side, nanoseconds, with the number of each one's connection."""
        if not len(numbers):
            return
        self._grow(int(numbers.max()) + 1)
        long = end - start >= SHORT_NS
        np.add.at(self.state["short"][:, side], numbers[~long], 1)
        intervals = np.zeros(int(long.sum()), _INTERVAL)
        intervals["number"], intervals["side"] = numbers[long], side
        intervals["start"], intervals["end"] = start[long], end[long]
        self._intervals.append(intervals)
        self._kept += len(intervals)
        if self._kept > INTERVALS_MAX:
            self._forget_the_shortest()

    def _forget_the_shortest(self) -> None:
        intervals = np.concatenate(self._intervals)
        lengths = intervals["end"] - intervals["start"]
        order = np.argpartition(lengths, -INTERVALS_MAX // 2)
        short, long = (
            intervals[order[: -INTERVALS_MAX // 2]],
            intervals[order[-INTERVALS_MAX // 2 :]],
        )
        np.add.at(self.state["short"], (short["number"], short["side"]), 1)
        self._intervals, self._kept = [long], len(long)

    def intervals(self, side: int) -> NDArray[np.void]:
        """Return the waits of one side: fields `number`, `start`, `end` (nanoseconds)."""
        every = np.concatenate([np.zeros(0, _INTERVAL), *self._intervals])
        chosen: NDArray[np.void] = every[every["side"] == side]
        return chosen

    def of(
        self, side: int, numbers: NDArray[np.intp]
    ) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Return the waits of some connections, and how many short ones each of them had.

        The waits' `number` is the place of the connection, in whose order they come. A number
        below 0 has none.
        """
        known = (numbers >= 0) & (numbers < len(self.state))
        short = np.zeros(len(numbers), np.int64)
        short[known] = self.state["short"][numbers[known], side]
        place_of = np.full(max(len(self.state), 1), -1)
        place_of[numbers[known]] = np.flatnonzero(known)
        waits = self.intervals(side)
        waits["number"] = place_of[waits["number"]]
        waits = waits[waits["number"] >= 0]
        return waits[np.argsort(waits["number"], kind="stable")], short


def _inside(rows: Rows) -> NDArray[np.int64]:
    """Return how long before its return a call had what it waited for.

    Data lay unread before it was received; a send had its bytes when it was called.
    """
    unread = np.where(rows["unread_us"] == MICROSECONDS_UNKNOWN, 0, rows["unread_us"])
    called = np.where(rows["duration_ns"] == DURATION_UNKNOWN, 0, rows["duration_ns"])
    inside: NDArray[np.int64] = np.where(
        rows["kind"] == EventKind.RECV, unread.astype(np.int64) * 1000, called.astype(np.int64)
    )
    return inside


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one side of each connection waited for answers, a value a connection.

    Times are microseconds, without what retransmissions took (`stalled_us`) and a round trip.
    """

    count: Numbers
    total_us: Numbers
    median_us: Numbers
    longest_us: Numbers
    stalled_us: Numbers


def answers(
    count: int,
    short: NDArray[np.int64],
    waits: NDArray[np.void],
    stalled_ns: NDArray[np.int64],
    trip_us: Numbers,
) -> Answers:
    """Add the waits of connections 0 to `count` up; `stalled_ns` is a value a wait."""
    places = waits["number"]
    rest = (waits["end"] - waits["start"] - stalled_ns) / 1000 - trip_us[places]
    rest = rest.clip(0)
    total, longest, stalled = np.zeros(count), np.zeros(count), np.zeros(count)
    np.add.at(total, places, rest)
    np.maximum.at(longest, places, rest)
    np.add.at(stalled, places, stalled_ns / 1000)
    many = np.bincount(places, minlength=count)
    order = np.lexsort((rest, places))
    starts = np.cumsum(many) - many
    # The short ones come first: the median of all is so far in among the long ones.
    middle = (many + short) // 2 - short
    within = (middle >= 0) & (many > 0)
    median = np.zeros(count)
    median[within] = rest[order][(starts + middle)[within]]
    return Answers((many + short).astype(np.float64), total, median, longest, stalled)
