"""The latest duplicate ACKs that arrived, found again by what they show to be missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, EventKind, SegmentArrival
from tcprism.events.connection import connection_keys

ACKS_MAX = 65_536
_FOUND_MAX = 4_096  # connections whose ACKs are sorted out at once
RANGES_MAX = 16  # that a retransmission shows
_BLOCKS = 4  # of an option: its 40 bytes have no room for more (RFC 2018, section 3)
_SEQ = 1 << 32

# TCP does not read the acknowledgement of these.
_UNREAD = (
    SegmentArrival.OUTSIDE_WINDOW,
    SegmentArrival.CHECKSUM_ERROR,
    SegmentArrival.NO_SOCKET,
)
_ACK = np.dtype(
    [
        ("ts_ns", np.uint64),
        ("ack", np.uint32),
        ("duplicate", np.bool_),  # RFC 5681, whether or not it has SACK blocks
        ("blocks", np.uint32, (_BLOCKS, 2)),  # first byte and the one after the last; 0, 0: none
    ]
)
Found = dict[str, Any]


class DuplicateAcks:
    """Remembers the latest ACKS_MAX duplicate ACKs, with the SACK blocks where those are known.

    `forgotten` counts the retransmissions that may have been caused by one that had to go.
    """

    def __init__(self, size: int = ACKS_MAX) -> None:
        self._acks = np.zeros(size, _ACK)
        self._connections = np.zeros(size, np.uint64)  # by itself, as it is looked through
        self._added = 0
        self._found: dict[int, _Connection] = {}
        self.forgotten = 0

    def add(self, segments: Part) -> None:
        """Take segments that came later than all before."""
        rows = segments.rows
        wanted = (rows["kind"] == EventKind.RECEIVE) & ~np.isin(rows["arrival"], _UNREAD)
        duplicate = rows["arrival"] == SegmentArrival.DUPLICATE_ACK
        sacks = segments.derived.get("sack")
        wanted &= duplicate if sacks is None else duplicate | ~np.ma.getmaskarray(sacks)
        places = np.flatnonzero(wanted)[-len(self._acks) :]
        if not len(places):
            return
        acks = np.zeros(len(places), _ACK)
        for name in ("ts_ns", "ack"):
            acks[name] = rows[name][places]
        acks["duplicate"] = duplicate[places]
        if sacks is not None:
            for place, text in enumerate(sacks[places].filled("").tolist()):
                for number, block in enumerate(_blocks(text)):
                    acks["blocks"][place, number] = block
        at = (self._added + np.arange(len(acks))) % len(self._acks)
        self._acks[at], self._connections[at] = acks, connection_keys(rows[places])
        self._added += len(acks)
        self._found.clear()

    def cause_of(self, row: np.void, connection: np.uint64, since_ns: int) -> Found:
        """Return the columns of a fast retransmission; those of none where no ACK is found.

        What caused it came after its first byte was last sent, at `since_ns` if that was seen.
        """
        if not self._added:
            return {}
        if self._added > len(self._acks) and self._is_gone(row, since_ns):
            self.forgotten += 1
            return {}
        seq, end_seq = int(row["seq"]), int(row["end_seq"])
        acks = self._of(connection).between(since_ns, int(row["ts_ns"]), seq)
        acks, ranges = _showing(acks, seq, end_seq)
        if not len(acks):
            return {}
        moments = acks["ts_ns"]
        found: Found = {
            "duplicate_acks": len(acks),
            "duplicate_ack_first_ts_ns": int(moments.min()),
            "duplicate_ack_last_ts_ns": int(moments.max()),
        }
        if ranges:
            found["sack_blocks"] = ", ".join(f"{a}:{b}" for a, b in ranges[:RANGES_MAX])
        return found

    def _of(self, connection: np.uint64) -> _Connection:
        """Return the ACKs of a connection: many of its segments may be asked about at once."""
        key = int(connection)
        if key not in self._found:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            self._found[key] = _Connection(self._acks[self._connections == connection])
        return self._found[key]

    def _is_gone(self, row: np.void, since_ns: int) -> bool:
        """Tell whether an ACK may have come so early that it had to go: no timer expired since."""
        rto = int(row["rto_us"])
        longest = 0 if rto == MICROSECONDS_UNKNOWN else int(row["ts_ns"]) - rto * 1000
        return int(self._acks["ts_ns"][self._added % len(self._acks)]) > max(since_ns, longest)


class _Connection:
    """The ACKs of a connection in order of time, with the furthest byte that each tells of.

    At hundreds of thousands of ACKs a second, few are looked at for each segment.
    """

    def __init__(self, acks: NDArray[np.void]) -> None:
        self._acks = acks[np.argsort(acks["ts_ns"], kind="stable")]
        self._moments = self._acks["ts_ns"].copy()
        if not len(acks):
            return
        ack, blocks = self._acks["ack"].copy(), self._acks["blocks"]
        places = np.cumsum(np.r_[0, _distance(ack[1:], ack[:-1])], dtype=np.int64)
        begins = places[:, None] + _distance(blocks[:, :, 0], ack[:, None])
        begins = np.where(blocks[:, :, 0] != blocks[:, :, 1], begins, places[:, None])
        furthest = np.maximum(places, begins.max(axis=1))
        self._furthest = np.maximum.accumulate(furthest)
        self._latest = int(places[-1]), ack[-1]

    def between(self, since_ns: int, until_ns: int, seq: int) -> NDArray[np.void]:
        """Return the ACKs later than `since_ns`, up to `until_ns`, that may tell `seq` to be lost.

        Those before the first that told of `seq` or of a later byte cannot.
        """
        if not len(self._acks):
            return self._acks
        moments = np.array([since_ns, until_ns], np.uint64)
        first, last = np.searchsorted(self._moments, moments, "right")
        place, ack = self._latest
        told = np.searchsorted(self._furthest, place + int(_distance(seq, ack)))
        return self._acks[max(first, told) : last]


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yield the blocks of a `sack`, as in 1001:2001, 3001:4001."""
    for block in filter(None, text.split(", ")[:_BLOCKS]):
        begin, end = block.split(":")
        yield int(begin), int(end)


def _showing(
    acks: NDArray[np.void], seq: int, end_seq: int
) -> tuple[NDArray[np.void], list[tuple[int, int]]]:
    """Choose the ACKs that show a segment to be missing, and merge the later bytes they tell of."""
    ack, begin, end = acks["ack"][:, None], acks["blocks"][:, :, 0], acks["blocks"][:, :, 1]
    before = _distance(seq, ack) >= 0  # acknowledges none of the segment
    told = (begin != end) & (_distance(end, ack) > 0)  # and not twice (RFC 2883)
    arrived = told & (_distance(end, seq) > 0) & (_distance(begin, end_seq) < 0)
    later = told & before & (_distance(begin, end_seq) >= 0) & ~arrived.any(axis=1)[:, None]
    shows = later.any(axis=1) | acks["duplicate"] & (acks["ack"] == np.uint32(seq))
    return acks[shows], _merged(acks["blocks"][later].tolist(), seq)


def _distance(one: Any, other: Any) -> NDArray[np.int32]:
    """Return how far a sequence number is behind another (RFC 9293, section 3.4)."""
    return (np.asarray(one, np.uint32) - np.asarray(other, np.uint32)).view(np.int32)


def _merged(blocks: list[list[int]], seq: int) -> list[tuple[int, int]]:
    """Return the ranges that blocks cover together, in the order of the stream behind `seq`."""
    merged: list[list[int]] = []
    for begin, end in sorted(((a - seq) % _SEQ, (b - seq) % _SEQ) for a, b in blocks):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return [((a + seq) % _SEQ, (b + seq) % _SEQ) for a, b in merged]
