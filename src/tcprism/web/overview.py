"""Overview: what happened over time, in buckets that grow wider as time goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, EventKind
from tcprism.events.names import STATES
from tcprism.events.part import Rows
from tcprism.web.sums import CAUSES

BUCKETS_MAX = 4096
POINTS_MAX = 240  # of what is shown
_NARROWEST_NS = 10_000_000
_ESTABLISHED = STATES.index("ESTABLISHED")
_COUNTED = (
    "sent",
    "received",
    "trip_us",
    "trips",
    "failed",
    "resets",
    "requests",
    "failures",
    "drops",
)
_ROWS = (*_COUNTED, *CAUSES)

Moments = NDArray[np.int64]


class Overview:
    """Adds up events by time. At most BUCKETS_MAX buckets: when there are more, two become one."""

    def __init__(self) -> None:
        self.width_ns = _NARROWEST_NS
        self._first: int | None = None
        self._used = 0
        self._sums = np.zeros((len(_ROWS), BUCKETS_MAX))

    def add(self, part: Part) -> None:
        """Add events. Those from before the first that came count as of its time."""
        adder = _ADDERS.get(part.family)
        if adder is None or not len(part):
            return
        moments = part.rows["ts_ns"].astype(np.int64)
        if self._first is None:
            self._first = int(moments.min())
        while (int(moments.max()) - self._first) // self.width_ns >= BUCKETS_MAX:
            self._widen()
        places = np.maximum(0, moments - self._first) // self.width_ns
        self._used = max(self._used, int(places.max()) + 1)
        for name, values in adder(part.rows).items():
            np.add.at(self._sums[_ROWS.index(name)], places, values)

    def _widen(self) -> None:
        folded = self._sums.reshape(len(_ROWS), -1, 2).sum(axis=2)
        self._sums[:, : BUCKETS_MAX // 2] = folded
        self._sums[:, BUCKETS_MAX // 2 :] = 0
        self.width_ns *= 2
        self._used = (self._used + 1) // 2

    def series(self, first_ns: int) -> dict[str, Any]:
        """Return at most POINTS_MAX points of each series; rates are per second.

        `t` are beginnings of the buckets, nanoseconds since `first_ns`.
        """
        fold = max(1, -(-self._used // POINTS_MAX))
        count = -(-self._used // fold)
        sums = np.zeros((len(_ROWS), count * fold))
        sums[:, : self._used] = self._sums[:, : self._used]
        sums = sums.reshape(len(_ROWS), count, fold).sum(axis=2)
        row = dict(zip(_ROWS, sums, strict=True))
        width = self.width_ns * fold
        seconds = width / 1e9
        begun = (self._first or first_ns) - first_ns
        known = row["trips"] > 0
        trips = np.divide(row["trip_us"], row["trips"], out=np.zeros(count), where=known)
        return {
            "t": (begun + width * np.arange(count)).tolist(),
            "width": width,
            "sent": (row["sent"] / seconds).tolist(),
            "received": (row["received"] / seconds).tolist(),
            "trip_us": [
                value if there else None for value, there in zip(trips, known.tolist(), strict=True)
            ],
            "requests": (row["requests"] / seconds).tolist(),
            "failures": row["failures"].tolist(),
            "failed": row["failed"].tolist(),
            "resets": row["resets"].tolist(),
            "drops": row["drops"].tolist(),
            "causes": {name: row[name].tolist() for name in CAUSES},
        }


def _messages(rows: Rows) -> dict[str, NDArray[Any]]:
    size = rows["bytes"].astype(np.float64)
    return {
        "sent": size * (rows["kind"] == EventKind.SEND),
        "received": size * (rows["kind"] == EventKind.RECV),
    }


def _segments(rows: Rows) -> dict[str, NDArray[Any]]:
    known = rows["srtt_us"] != MICROSECONDS_UNKNOWN
    return {"trip_us": np.where(known, rows["srtt_us"], 0), "trips": known}


def _losses(rows: Rows) -> dict[str, NDArray[Any]]:
    again = rows["kind"] == EventKind.RETRANSMIT
    causes = {
        name: rows["segs"] * (again & (rows["cause"] == number))
        for number, name in enumerate(CAUSES, 1)
    }
    return {"drops": rows["kind"] == EventKind.DROP, **causes}


def _connections(rows: Rows) -> dict[str, NDArray[Any]]:
    asked = rows["kind"] == EventKind.CONNECT
    return {
        "failed": asked & (rows["new_state"] != _ESTABLISHED),
        "resets": rows["kind"] == EventKind.RESET,
    }


def _requests(rows: Rows) -> dict[str, NDArray[Any]]:
    return {"requests": np.ones(len(rows)), "failures": rows["failed"] != 0}


_ADDERS = {
    "message": _messages,
    "segment": _segments,
    "loss": _losses,
    "connection": _connections,
    "request": _requests,
}
