"""Requests: all of them, as columns that are sorted and filtered, and records that are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events.columns import BY_NAME
from tcprism.events.names import process
from tcprism.events.requests import SPLIT, STATES, UNKNOWN_BYTES, UNKNOWN_NS, asked
from tcprism.web.expressions import Expressions
from tcprism.web.growing import Growing

UNKNOWN = -1  # in columns
_KEPT_SHARE = 0.75  # when there is no more room

KEY = ("protocol", "method", "resource", "status")
_SHOWN = (
    *KEY,
    "comm",
    "pid",
    "server_comm",
    "server_pid",
    "failed",
    "request_state",
    "waiting_for",
    "view",
    "server_source",
    "slowest_part",
    "request_ns",
    *(f"{part}_ns" for part in SPLIT),
    "request_bytes",
    "response_bytes",
    "retransmissions",
    "retransmission_wait_ns",
    "retransmission_causes",
    "start_ts_ns",
)
_COLUMNS = (
    "start", "end", "took", "sent", "received", "retransmissions", "failed", "state", "what",
    "connection",
)  # fmt: skip


class Requests:
    """Requests in the order in which they ended: the latest `limit`, or few less.

    Each has a number that stays: its place plus `forgotten`, which counts those that had to make
    room.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.forgotten = 0
        self.table = Growing(dict.fromkeys(_COLUMNS, np.int64))
        self.whats: list[str] = []  # what is asked for, with its status: texts that come again
        self._numbers: dict[tuple[str | None, ...], int] = {}
        self._parts: list[Part] = []
        self._parts_forgotten = 0
        self._expressions = Expressions()
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self.table)

    @property
    def keys(self) -> dict[tuple[str | None, ...], int]:
        """What is asked for, with its status: values of KEY in the order in which they came."""
        return self._numbers

    def add(self, part: Part, connections: NDArray[np.intp]) -> None:
        """Add requests, with the number of each one's connection, -1 where it has none."""
        if len(part) > self.limit:
            self.forgotten += len(part) - self.limit + len(self)
            self._forget(len(self._parts))
            part, connections = part.take(slice(-self.limit, None)), connections[-self.limit :]
        elif len(self) + len(part) > self.limit:
            wanted = int(self.limit * _KEPT_SHARE) - len(part)
            starts = [*self._starts[1:], len(self)]
            count = next(n for n, end in enumerate(starts, 1) if len(self) - end <= max(0, wanted))
            self.forgotten += starts[count - 1]
            self._forget(count)
        if not len(part):
            return
        rows = part.rows
        self._starts.append(len(self))
        self._parts.append(part)
        self.table.append(
            {
                "start": rows["start_ts_ns"].astype(np.int64),
                "end": rows["ts_ns"].astype(np.int64),
                "took": _known(rows["request_ns"], UNKNOWN_NS),
                "sent": _known(rows["request_bytes"], UNKNOWN_BYTES),
                "received": _known(rows["response_bytes"], UNKNOWN_BYTES),
                "retransmissions": rows["retransmissions"],
                "failed": rows["failed"] != 0,
                "state": rows["request_state"],
                "what": np.array(self._whats(part), np.int64),
                "connection": connections,
            }
        )

    def let_go(self) -> int:
        """Forget about half of them; return how many that is."""
        count = (len(self._parts) + 1) // 2
        size = sum(map(len, self._parts[:count]))
        self.forgotten += size
        self._forget(count)
        return size

    def _forget(self, count: int) -> None:
        """Forget the first parts."""
        size = sum(map(len, self._parts[:count]))
        self.table.keep(np.arange(size, len(self)))
        self._starts = [start - size for start in self._starts[count:]]
        del self._parts[:count]
        self._parts_forgotten += count
        self._forget_whats()

    def _forget_whats(self) -> None:
        """Forget the texts that no request has any more."""
        used, places = np.unique(self.table["what"], return_inverse=True)
        self.table["what"][:] = places
        keys = list(self._numbers)
        self._numbers = {keys[number]: place for place, number in enumerate(used.tolist())}
        self.whats = [self.whats[number] for number in used.tolist()]

    def connections_moved(self, moved: NDArray[np.intp]) -> None:
        """Follow connections to their new places; -1 are gone."""
        self.table["connection"][:] = moved[self.table["connection"]]

    def _whats(self, part: Part) -> list[int]:
        """Return a number each for what is asked for; equal ones have the same."""
        columns = (BY_NAME[name].to_list(part) for name in KEY)
        numbers = []
        for key in zip(*columns, strict=True):
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self.whats)
                protocol, method, resource, status = key
                self.whats.append(
                    f"{asked(protocol or '', method, resource)} {status or ''}".lower()
                )
            numbers.append(number)
        return numbers

    def evaluation(self, expression: str) -> Callable[[], NDArray[np.bool_]]:
        """Return what tells for which of the requests so far an expression holds.

        It takes long when it is called for the first time, and no lock is needed for it.
        """
        parts, forgotten = list(self._parts), self._parts_forgotten
        return lambda: self._expressions.mask(expression, parts, forgotten)

    def rows(self, wanted_places: Sequence[int]) -> list[dict[str, Any]]:
        """Return the requests at some places as JSON has them, in that order."""
        wanted = np.asarray(wanted_places, np.intp)
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for place in np.unique(places).tolist():
            those = wanted[places == place]
            part = self._parts[place].take(those - self._starts[place])
            found |= dict(zip(those.tolist(), self._shown(part, those), strict=True))
        return [found[number] for number in wanted.tolist()]

    def _shown(self, part: Part, numbers: NDArray[np.intp]) -> list[dict[str, Any]]:
        columns = {name: BY_NAME[name].to_list(part) for name in _SHOWN}
        ends = self.table["end"][numbers].tolist()
        connections = self.table["connection"][numbers].tolist()
        rows = zip(
            numbers.tolist(), connections, ends, zip(*columns.values(), strict=True), strict=True
        )
        return [
            _as_json(
                number + self.forgotten, connection, end, dict(zip(columns, values, strict=True))
            )
            for number, connection, end, values in rows
        ]

    def record(self, number: int) -> np.void:
        """Return the record of the request at a place."""
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        record: np.void = self._parts[place].rows[number - self._starts[place]]
        return record


def _as_json(number: int, connection: int, end: int, row: dict[str, Any]) -> dict[str, Any]:
    asked_for = asked(row["protocol"], row["method"], row["resource"])
    return {
        "n": number,
        "connection": None if connection < 0 else connection,
        "start": row["start_ts_ns"],
        "end": end,
        "took": row["request_ns"],
        "what": asked_for,
        "protocol": row["protocol"],
        "status": row["status"],
        "failed": row["failed"],
        "state": row["request_state"],
        "waiting_for": row["waiting_for"],
        "client": process(row["comm"], row["pid"]),
        "server": process(row["server_comm"], row["server_pid"]),
        "view": row["view"],
        "server_source": row["server_source"],
        "slowest": row["slowest_part"],
        "split": {part: row[f"{part}_ns"] for part in SPLIT},
        "sent": row["request_bytes"],
        "received": row["response_bytes"],
        "retransmissions": row["retransmissions"],
        "wait": row["retransmission_wait_ns"],
        "causes": row["retransmission_causes"],
    }


def _known(column: NDArray[Any], unknown: int) -> NDArray[np.int64]:
    return np.where(
        column == column.dtype.type(unknown), np.int64(UNKNOWN), column.astype(np.int64)
    )


def state_number(name: str) -> int:
    """Return the number that a state of requests has in columns, -1 if there is none."""
    return STATES.index(name) if name in STATES else -1
