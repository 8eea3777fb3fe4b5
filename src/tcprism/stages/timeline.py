"""What became of the bytes of one direction, and when."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.events.names import cause_name

MARKS_MAX = 8_192  # of one sort; of a longer response the middle goes first
REPEATS_MAX = 256
_FOR_EVER = 1 << 62
_OVERLAPPING = 8  # segments that may have the same byte, at most
_FEW = 64  # marks that need not be forgotten

Mark = tuple[int, int]
UNMARKED: Mark = (-1, -1)


class Marks:
    """Moments, each with the offset behind the bytes that it is about; in order of offsets."""

    __slots__ = ("_reached", "ends", "marks")

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.marks: list[Mark] = []
        self._reached = -1

    def add(self, end: int, first: int, second: int, begin: int = 0) -> int:
        """Remember two numbers of the bytes before `end`; return how many marks there are.

        Of bytes before `begin` that have none so far, nothing was seen: they remain unmarked.
        """
        ends = self.ends
        if begin > self._reached:
            ends.append(begin)
            self.marks.append(UNMARKED)
        if not ends or end >= ends[-1]:
            self._reached = end
            ends.append(end)
            self.marks.append((first, second))
        else:  # another thread's, which returned later
            place = bisect_left(ends, end)
            ends.insert(place, end)
            self.marks.insert(place, (first, second))
        if len(ends) > MARKS_MAX:
            middle = slice(MARKS_MAX // 4, MARKS_MAX // 2)
            del ends[middle], self.marks[middle]
        return len(ends)

    def of(self, offset: int) -> Mark:
        """Return the mark of the byte at an offset; UNMARKED: there is none."""
        place = bisect_right(self.ends, offset)
        return self.marks[place] if place < len(self.ends) else UNMARKED

    def span(self, first: int, last: int) -> tuple[Mark, Mark]:
        """Return the marks of two bytes, which mostly have the same one."""
        ends = self.ends
        place = bisect_right(ends, first)
        if place == len(ends):
            return UNMARKED, UNMARKED
        mark = self.marks[place]
        return mark, mark if last < ends[place] else self.of(last)

    def around(self, offset: int) -> tuple[int, int]:
        """Return between which offsets all bytes have the mark of the one at an offset."""
        place = bisect_right(self.ends, offset)
        low = self.ends[place - 1] if place else 0
        return low, self.ends[place] if place < len(self.ends) else _FOR_EVER

    def forget(self, offset: int) -> None:
        """Forget what is before an offset."""
        place = bisect_right(self.ends, offset)
        del self.ends[:place], self.marks[:place]


class Arrivals(Marks):
    """Segments that arrived: marks of when, and of the offset of the first byte.

    They may come in any order, and bytes may come again.
    """

    __slots__ = ()

    def at(self, offset: int) -> int:
        """Return when the byte at an offset first arrived; -1: that was not seen."""
        place = bisect_right(self.ends, offset)
        covering = self.marks[place : place + _OVERLAPPING]
        return min((ts_ns for ts_ns, begin in covering if begin <= offset), default=-1)

    def around(self, offset: int) -> tuple[int, int]:
        """Return between which offsets all bytes arrived with the one at an offset."""
        low, high = super().around(offset)
        place = bisect_right(self.ends, offset)
        return max(low, self.marks[place][1]) if place < len(self.ends) else low, high


class Repeat(NamedTuple):
    """A retransmission: of which bytes, when, and why; it waited `bound_ns` at most."""

    begin: int
    end: int
    ts_ns: int
    cause: str
    bound_ns: int


class Timeline:
    """One direction: when bytes were written, left, were sent again, arrived and were read.

    Marks of `written` are (returned, begun), of `read` (returned, unread), of `left` (unsent,
    unacknowledged); moments are of CLOCK_MONOTONIC in nanoseconds, durations microseconds.
    """

    __slots__ = ("arrived", "left", "many", "marks", "read", "repeats", "written")

    def __init__(self) -> None:
        self.written = Marks()
        self.read = Marks()
        self.marks = (self.written, self.read)
        self.left = Marks()
        self.arrived = Arrivals()
        self.repeats: list[Repeat] = []
        self.many = _FEW  # marks that need not be forgotten

    @property
    def count(self) -> int:
        """How many moments are remembered."""
        marks = (self.written, self.read, self.left, self.arrived)
        return len(self.repeats) + sum(len(each.ends) for each in marks)

    def repeat(self, begin: int, end: int, record: np.void) -> None:
        """Remember a retransmission."""
        if len(self.repeats) == REPEATS_MAX:
            del self.repeats[0]
        cause = cause_name(int(record["cause"]))
        self.repeats.append(Repeat(begin, end, int(record["ts_ns"]), cause, _bound(record, cause)))

    def around(self, offset: int) -> tuple[int, int]:
        """Return between which offsets all bytes have the marks of the one at an offset."""
        spans = [marks.around(offset) for marks in (self.written, self.read, self.left)]
        if self.arrived.ends:
            spans.append(self.arrived.around(offset))
        return max(low for low, _ in spans), min(high for _, high in spans)

    def forget(self, offset: int) -> None:
        """Forget what is before an offset, and set when it is worth doing again."""
        for marks in (self.written, self.read, self.left, self.arrived):
            marks.forget(offset)
        self.repeats = [repeat for repeat in self.repeats if repeat.end > offset]
        # What is needed shall not be looked at each time.
        self.many = max(_FEW, 2 * len(self.written.ends), 2 * len(self.read.ends))

    def waits(self, begin: int, end: int, since_ns: int, until_ns: int) -> tuple[int, list[Repeat]]:
        """Return how long bytes waited to be sent again, and by which retransmissions.

        What was sent again after `until_ns` waited for nobody. A wait begins no earlier than the
        bytes were written, than they were sent the last time before, or than the timer that ran
        out can have been started.
        """
        if not self.repeats:
            return 0, []
        found = [
            repeat
            for repeat in self.repeats
            if repeat.begin < end and repeat.end > begin and since_ns <= repeat.ts_ns
        ]
        spans: list[tuple[int, int]] = []
        sent: dict[int, int] = {}
        for repeat in found:
            written = self.written.of(repeat.begin)
            start = max(
                since_ns,
                written[1],
                sent.get(repeat.begin, 0),
                repeat.ts_ns - repeat.bound_ns,
            )
            sent[repeat.begin] = repeat.ts_ns
            if repeat.ts_ns <= until_ns:
                spans.append((start, repeat.ts_ns))
        return _covered(spans), found


def _bound(record: np.void, cause: str) -> int:
    """Return how long ago the bytes of a retransmission can have been sent before at most.

    The timer was started when they left or later (RFC 6298, section 5). A recovery by SACK or RACK
    follows within a round trip and the reordering window, which is no longer (RFC 8985).
    """
    rto, srtt = int(record["rto_us"]), int(record["srtt_us"])
    if cause == "fast" and srtt != MICROSECONDS_UNKNOWN:
        return 2 * srtt * 1000
    return rto * 1000 if rto != MICROSECONDS_UNKNOWN else 1 << 62


def _covered(spans: list[tuple[int, int]]) -> int:
    """Return the time that some spans cover together."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
