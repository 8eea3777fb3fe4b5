"""What segments tell of each connection, added up as they come, if both directions are traced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.ends import Numbers, own_keys
from tcprism.diagnosis.segment_rows import CLOSED, ROW, Rows, told
from tcprism.events import Part
from tcprism.events._wire import EventKind, SegmentArrival
from tcprism.events.ledger import Ledger

KINDS = ("transmit", "receive")

# Of one connection: counts of segments, and times in microseconds.
COUNTS = (
    "zero_windows", "zero_window_us", "zero_window_longest_us",
    "late_acks", "late_acks_us", "late_acks_longest_us",
    "peer_late_acks", "peer_late_acks_us", "peer_late_acks_longest_us", "least_ack_us",
    "keepalives", "keepalives_answered", "keepalives_longest_us",
    "peer_keepalives", "peer_keepalives_longest_us",
    "reordered", "acked_again", "acked_again_bytes",
    "ce_arrived", "ece_sent", "ece_arrived", "cwr_sent", "cwr_arrived", "accurate_ecn",
    "data_arrived", "arrived", "left",
)  # fmt: skip
_PLACE = {name: place for place, name in enumerate(COUNTS)}

# TCP reads nothing of these.
_UNREAD = (
    SegmentArrival.OUTSIDE_WINDOW,
    SegmentArrival.CHECKSUM_ERROR,
    SegmentArrival.NO_SOCKET,
)
_COPIED = ("kind", "seq", "end_seq", "ack", "window", "bytes", "segs", "arrival", "flags")


def are_whole(ledger: Ledger) -> bool:
    """Tell whether no segment is missing that was traced."""
    return not any(entry.lost for entry in ledger.entries if entry.kind in KINDS)


class Tally:
    """The facts of connections by their numbers: sums, maxima and minima, 0 for none."""

    def __init__(self) -> None:
        self._table = np.zeros((0, len(COUNTS)))

    def make_room(self, count: int) -> None:
        """Have room for so many connections."""
        if count > len(self._table):
            more = np.zeros((2 * count - len(self._table), len(COUNTS)))
            self._table = np.concatenate([self._table, more])

    def add(self, name: str, numbers: NDArray[np.int64], amounts: Any = 1) -> None:
        """Add to a fact of some connections, each as often as it comes."""
        np.add.at(self._table[:, _PLACE[name]], numbers, amounts)

    def most(self, name: str, numbers: NDArray[np.int64], amounts: NDArray[np.float64]) -> None:
        """Note the highest of a fact."""
        np.maximum.at(self._table[:, _PLACE[name]], numbers, amounts)

    def least(
        self, name: str, numbers: NDArray[np.int64], amounts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Note the lowest of a fact; return what that is now of each of the connections."""
        column = self._table[:, _PLACE[name]]
        column[numbers] = np.where(column[numbers] == 0, np.inf, column[numbers])
        np.minimum.at(column, numbers, amounts)
        lowest: NDArray[np.float64] = column[numbers]
        return lowest

    def of(self, numbers: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
        """Return the facts of connections; 0 for those that are not known."""
        known = (numbers >= 0) & (numbers < len(self._table))
        found = np.zeros((len(numbers), len(COUNTS)))
        found[known] = self._table[numbers[known]]
        return {name: found[:, place] for name, place in _PLACE.items()}


class Segments:
    """Takes segments; holds the facts of each connection, and few rows for what goes on.

    `numbers` gives each connection its number.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._tally = Tally()
        self._carried = np.zeros(0, ROW)

    def add(self, parts: list[Part]) -> None:
        """Take the segments of a batch, which came later than all before."""
        rows = np.concatenate([np.zeros(0, ROW), *map(self._rows, parts)])
        rows = rows[rows["number"] >= 0]
        if not len(rows):
            return
        self._tally.make_room(len(self._numbers))
        touched = np.zeros(len(self._numbers), np.bool_)
        touched[rows["number"]] = True
        again = touched[self._carried["number"]]
        rows = np.concatenate([self._carried[again], rows])
        rows = rows[np.lexsort((rows["ts_ns"], rows["number"]))]
        self._carried = np.concatenate([self._carried[~again], told(rows, self._tally)])

    def facts(
        self, numbers: NDArray[np.intp], now_ns: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return facts of connections by their numbers; a closed window counts until `now_ns`."""
        found = self._tally.of(numbers)
        closed = self._carried[(self._carried["carried"] & CLOSED) != 0]
        since = dict(zip(closed["number"].tolist(), closed["ts_ns"].tolist(), strict=True))
        still = np.array([since.get(number, -1) for number in numbers.tolist()], np.int64)
        found["closed_us"] = np.where(still < 0, 0, (now_ns - still).clip(0) / 1000)
        found["zero_windows"] += still >= 0
        found["zero_window_us"] += found["closed_us"]
        longest = np.maximum(found["zero_window_longest_us"], found["closed_us"])
        return found | {"zero_window_longest_us": longest}

    def _rows(self, part: Part) -> Rows:
        segments = part.rows
        rows = np.zeros(len(segments), ROW)
        rows["number"] = self._numbers.of(own_keys(segments))
        rows["number"][np.isin(segments["arrival"], _UNREAD)] = -1
        rows["ts_ns"] = segments["ts_ns"]
        for name in _COPIED:
            rows[name] = segments[name]
        rows["incoming"] = segments["kind"] == EventKind.RECEIVE
        rows["alone"] = segments["packets_out"] == 0
        value, echo = (part.derived.get(name) for name in ("ts_val", "ts_ecr"))
        if value is not None and echo is not None:
            rows["stamped"] = ~np.ma.getmaskarray(value)
            rows["ts_val"], rows["ts_ecr"] = np.ma.getdata(value), np.ma.getdata(echo)
        return rows
