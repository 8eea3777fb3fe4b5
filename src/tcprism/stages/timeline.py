"""What became of the bytes of one direction, and when."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
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
    """Moments, each with the offset behind the bytes that it is about; in order of offsets.

    There are many of them. In arrays, one takes 24 bytes, where Python's objects would take 170.
    """

    __slots__ = ("ends", "moments", "reached")

    def __init__(self) -> None:
        self.ends = array("q")
        self.moments = array("q")  # two of each end
        self.reached = -1  # the end of the latest bytes, -1: there were none

    def add(self, end: int, first: int, second: int, begin: int = 0) -> int:
        """Remember two numbers of the bytes before `end`; return how many marks there are.

        Of bytes before `begin` that have none so far, nothing was seen: they remain unmarked.
        """
        ends, moments = self.ends, self.moments
        if begin > self.reached:
            ends.append(begin)
            moments.extend(UNMARKED)
        if not ends or end >= ends[-1]:
            self.reached = end
            ends.append(end)
            moments.append(first)
            moments.append(second)
        else:  # another thread's, which returned later
            place = bisect_left(ends, end)
            ends.insert(place, end)
            moments[2 * place : 2 * place] = array("q", (first, second))
        if len(ends) > MARKS_MAX:
            del ends[MARKS_MAX // 4 : MARKS_MAX // 2], moments[MARKS_MAX // 2 : MARKS_MAX]
        return len(ends)

    def of(self, offset: int) -> Mark:
        """Return the mark of the byte at an offset; UNMARKED: there is none."""
        place = bisect_right(self.ends, offset)
        if place == len(self.ends):
            return UNMARKED
        return self.moments[2 * place], self.moments[2 * place + 1]

    def span(self, first: int, last: int) -> tuple[Mark, Mark]:
        """Return the marks of two bytes, which mostly have the same one."""
        ends = self.ends
        place = bisect_right(ends, first)
        if place == len(ends):
            return UNMARKED, UNMARKED
        mark = self.moments[2 * place], self.moments[2 * place + 1]
        return mark, mark if last < ends[place] else self.of(last)

    def around(self, offset: int) -> tuple[int, int]:
        """Return between which offsets all bytes have the mark of the one at an offset."""
        place = bisect_right(self.ends, offset)
        low = self.ends[place - 1] if place else 0
        return low, self.ends[place] if place < len(self.ends) else _FOR_EVER

    def forget(self, offset: int) -> None:
        """Forget what is before an offset."""
        place = bisect_right(self.ends, offset)
        del self.ends[:place], self.moments[: 2 * place]


class Arrivals(Marks):
    """Segments that arrived: marks of when, and of the offset of the first byte.

    They may come in any order, and bytes may come again.
    """

    __slots__ = ()

    def at(self, offset: int) -> int:
        """Return when the byte at an offset first arrived; -1: that was not seen."""
        place = bisect_right(self.ends, offset)
        covering = self.moments[2 * place : 2 * (place + _OVERLAPPING)]
        came = zip(covering[::2], covering[1::2], strict=True)
        return min((ts_ns for ts_ns, begin in came if begin <= offset), default=-1)

    def around(self, offset: int) -> tuple[int, int]:
        """Return between which offsets all bytes arrived with the one at an offset."""
        low, high = super().around(offset)
        place = bisect_right(self.ends, offset)
        return max(low, self.moments[2 * place + 1]) if place < len(self.ends) else low, high


# Of most directions nobody sees these.
_NONE_LEFT, _NONE_ARRIVED = Marks(), Arrivals()


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

    __slots__ = ("arrived", "left", "many", "read", "repeats", "written")

    def __init__(self) -> None:
        self.written = Marks()
        self.read = Marks()
        self.left = _NONE_LEFT
        self.arrived = _NONE_ARRIVED
        self.repeats: Sequence[Repeat] = ()
        self.many = _FEW  # marks that need not be forgotten

    @property
    def count(self) -> int:
        """How many moments are remembered."""
        marks = (self.written, self.read, self.left, self.arrived)
        return len(self.repeats) + sum(len(each.ends) for each in marks)

    def leave(self, begin: int, size: int, unsent_us: int, unacked_us: int) -> None:
        """Remember when bytes left."""
        if self.left is _NONE_LEFT:
            self.left = Marks()
        self.left.add(begin + size, unsent_us, unacked_us, begin)

    def arrive(self, begin: int, size: int, ts_ns: int) -> None:
        """Remember when bytes arrived."""
        if self.arrived is _NONE_ARRIVED:
            self.arrived = Arrivals()
        self.arrived.add(begin + size, ts_ns, begin)

    def repeat(self, begin: int, end: int, record: np.void) -> None:
        """Remember a retransmission."""
        cause = cause_name(int(record["cause"]))
        latest = Repeat(begin, end, int(record["ts_ns"]), cause, _bound(record, cause))
        self.repeats = (*self.repeats[1 - REPEATS_MAX :], latest)

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
        if self.repeats:
            self.repeats = tuple(repeat for repeat in self.repeats if repeat.end > offset)
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
