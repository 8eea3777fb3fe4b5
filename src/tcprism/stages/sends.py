"""The latest sends, found again by their connection and by the bytes that they wrote.

They are in a ring of columns. Beside each stands a mark, two bytes that follow from its connection:
a million of them are compared in the time of a few calls, so that to remember a send costs nothing
more, however rarely something is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SENDS_MAX = 1_000_000
# What is sent again was written lately: a short look, then longer ones. What came at once is not in
# order, so what a send is not inside of is told by a long look only.
_SHORT_LOOK = 256
_LOOKS = (16_384, 65_536, 262_144, SENDS_MAX)

_MARK = 0xFFFF
_SEQ = 1 << 32
_HALF = 1 << 31

Writes = NDArray[np.void]


class Place(NamedTuple):
    """Where a byte lies among a connection's sends.

    `inside` one: that is `write`, and `offset` how far behind its first byte. `behind` the last
    one, whose end has the sequence number `end`. `between` two, or `before` all that there are.
    """

    where: Literal["inside", "behind", "between", "before"]
    write: np.void | None = None
    offset: int = 0
    end: int = 0


class Sends:
    """Remembers the latest sends, each with what a record of `dtype` says of it."""

    def __init__(self, dtype: np.dtype[np.void], size: int = SENDS_MAX) -> None:
        self.size = size  # how many are remembered at most
        self._added = 0
        # What is not written yet takes no memory.
        self._writes = np.zeros(size, dtype)
        self._marks = np.zeros(size, np.uint16)
        self._connections = np.zeros(size, np.uint64)
        self._seqs = np.zeros(size, np.uint32)
        self._sizes = np.zeros(size, np.uint32)

    def __len__(self) -> int:
        return min(self._added, self.size)

    @property
    def room(self) -> int:
        """How many bytes the sends take, once it remembers all that it can."""
        return sum(column.nbytes for column in self._columns())

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self._writes, self._marks, self._connections, self._seqs, self._sizes

    def shrink(self, size: int) -> None:
        """Remember at most so many from now on, which are no more than before."""
        kept = np.arange(max(self.evicted, self._added - size), self._added)
        columns = [np.zeros(size, column.dtype) for column in self._columns()]
        for column, before in zip(columns, self._columns(), strict=True):
            column[kept % size] = before[kept % self.size]
        self._writes, self._marks, self._connections, self._seqs, self._sizes = columns
        self.size = size

    @property
    def evicted(self) -> int:
        """How many had to go."""
        return max(0, self._added - self.size)

    def add(
        self,
        connections: NDArray[np.uint64],
        seqs: NDArray[np.uint32],
        sizes: NDArray[np.uint32],
        writes: Writes,
    ) -> None:
        """Remember sends, which came after all others."""
        marks = connections & np.uint64(_MARK)
        raw = writes.view(f"V{writes.itemsize}")
        table = self._writes.view(raw.dtype)
        done = 0
        while done < len(writes):
            at = self._added % self.size
            piece = slice(done, done + self.size - at)
            end = at + len(raw[piece])
            self._connections[at:end] = connections[piece]
            self._marks[at:end] = marks[piece]
            self._seqs[at:end] = seqs[piece]
            self._sizes[at:end] = sizes[piece]
            table[at:end] = raw[piece]  # NumPy copies a structured array field by field
            self._added += end - at
            done += end - at

    def find(self, connection: np.uint64, seq: np.uint32) -> Place:
        """Return where a byte lies; of several sends that have it, as numbers come again, the last.

        Sequence numbers are compared modulo 2 ** 32 (RFC 9293, section 3.4).
        """
        for begin, end in self._spans((_SHORT_LOOK,)):
            place = self._look(connection, seq, begin, end)
            if place and place.where == "inside":
                return place
        latest = True
        for begin, end in self._spans(_LOOKS):
            if not (place := self._look(connection, seq, begin, end)):
                continue
            if place.where == "behind" and not latest:
                return Place("between")
            if place.where != "before":
                return place
            latest = False
        return Place("before")

    def _look(self, connection: np.uint64, seq: np.uint32, begin: int, end: int) -> Place | None:
        """Look at a part of the ring; None: there are no sends of the connection."""
        mark = np.uint16(int(connection) & _MARK)  # a wider one would widen all others
        rows = begin + np.flatnonzero(self._marks[begin:end] == mark)
        rows = rows[self._connections[rows] == connection]
        if not len(rows):
            return None
        which = slice(begin, end) if len(rows) == end - begin else rows  # which costs less
        seqs, sizes = self._seqs[which], self._sizes[which]
        offsets = seq - seqs  # wraps as sequence numbers do
        inside = np.flatnonzero(offsets < sizes)
        if len(inside):
            return Place("inside", self._writes[rows[inside[-1]]], int(offsets[inside[-1]]))
        end_seq = _end(seqs, sizes)
        if (int(seq) - end_seq) % _SEQ < _HALF:
            return Place("behind", end=end_seq)
        return Place("between" if offsets[0] < _HALF else "before")

    def _spans(self, looks: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield the parts of the ring to look at, so many sends each, the latest first."""
        end, oldest = self._added, self.evicted
        for look in looks:
            begin = max(oldest, end - look)
            wrap = end - end % self.size  # the ring goes on at its start
            for first, last in ((max(begin, wrap), end), (begin, min(end, wrap))):
                if first < last:
                    yield first % self.size, (last - 1) % self.size + 1
            end = begin


def _end(seqs: NDArray[np.uint32], sizes: NDArray[np.uint32]) -> int:
    """Return the sequence number behind the last of some sends."""
    ends = (seqs - seqs[-1]).view(np.int32).astype(np.int64) + sizes
    return (int(seqs[-1]) + int(ends.max())) % _SEQ
