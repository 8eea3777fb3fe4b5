"""Requests as they are answered: added up by route, with the latest and the slowest of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.table import Table
from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag
from tcprism.events.batch import joined
from tcprism.events.connection import same_connection
from tcprism.events.optional import need
from tcprism.events.part import joined_rows
from tcprism.events.requests import UNKNOWN_BYTES, UNKNOWN_NS, WAITING_FOR
from tcprism.sinks.request_summary import ACCURACY, OTHERS, Group, grouped
from tcprism.stages.requests import Requests

KEPT = 50  # of a route, the latest and the slowest each
ROUTES_MAX = 500
PENDING_MAX = 1000
AT_ONCE_MAX = 100_000  # events: a recording may give a million, and the screen waits
_AFTER_NS = 1_000_000_000  # what belongs to a request may be noted later than its end

_ACKNOWLEDGEMENT = WAITING_FOR.index("acknowledgement")
_HALF, _MASK = 1 << 31, (1 << 32) - 1
Mask = NDArray[np.bool_]


class Route:
    """Requests that differ by values only. `latest`: newest first, `slowest`: slowest first."""

    def __init__(self, sums: Group) -> None:
        self.sums = sums
        self.latest: Part | None = None
        self.slowest: Part | None = None

    def add(self, part: Part) -> None:
        """Add requests."""
        self.sums.add(part.rows)
        latest = _joined(part, self.latest)
        newest = np.argsort(latest.rows["ts_ns"], kind="stable")[::-1]
        self.latest = latest.take(newest[:KEPT])
        timed = part.take(part.rows["request_ns"] != UNKNOWN_NS)
        slowest = _joined(timed, self.slowest)
        order = np.argsort(slowest.rows["request_ns"], kind="stable")[::-1]
        self.slowest = slowest.take(order[:KEPT])


class RequestHistory:
    """The requests in events as they come. `began_ns` is when the first of them began.

    With `made`, they are among the events; else messages are read. Raises ExtraMissing.
    """

    def __init__(self, made: bool = False) -> None:
        self._made = made
        self._sketch = need("ddsketch", "requests").DDSketch
        self._stage = Requests(alone=True)
        self.routes: dict[str, Route] = {}
        self.began_ns = 0

    def add(self, batch: Batch) -> None:
        """Add the requests that end in a batch; at most AT_ONCE_MAX of its events are read."""
        requests = batch if self._made else made(self._stage, batch)
        for part in requests.parts:
            if not self.routes:
                self.began_ns = int(part.rows["start_ts_ns"].min())
            for name, which in grouped(part, "route"):
                self._route(name).add(part.take(which))

    def _route(self, name: str) -> Route:
        if name not in self.routes and len(self.routes) >= ROUTES_MAX:
            name = OTHERS
        if name not in self.routes:
            self.routes[name] = Route(Group(self._sketch(ACCURACY)))
        return self.routes[name]

    def pending(self) -> Part | None:
        """Return the requests without a response, the oldest first."""
        return pending(self._stage)


def made(stage: Requests, batch: Batch) -> Batch:
    """Return the requests that end in a batch; at most AT_ONCE_MAX of its events are read."""
    ended = stage(batch.between(max(0, len(batch) - AT_ONCE_MAX), len(batch)))
    return joined(ended, stage.tick(0))


def pending(stage: Requests) -> Part | None:
    """Return the requests that a stage has no response to, the oldest first."""
    for part in stage.pending(PENDING_MAX).parts:
        return part.take(np.argsort(part.rows["start_ts_ns"], kind="stable"))
    return None


def proved(waiting: Part, table: Table) -> Part:
    """Return pending requests with what they wait for, as far as their socket tells.

    Where acknowledgements are read before the kernel takes them, the last one is noted only when
    the next segment comes (tcp_probe): messages alone do not tell. Of what the table does not have,
    or not since the request, nothing is told.
    """
    rows = waiting.take(np.arange(len(waiting))).rows
    for row in rows[np.isin(rows["waiting_for"], (0, _ACKNOWLEDGEMENT))]:
        same = table.rows[same_connection(table.rows, row)]
        if not len(same) or same["ts_ns"][0] < row["start_ts_ns"]:
            reason = ""
        elif same["unacked"][0] or same["unsent"][0]:
            reason = "acknowledgement"
        else:
            reason = "the server to read it" if row["server_pid"] else "response"
        found = (rows["start_ts_ns"] == row["start_ts_ns"]) & (rows["seq"] == row["seq"])
        rows["waiting_for"][found] = WAITING_FOR.index(reason)
    return replace(waiting, rows=rows)


def _joined(part: Part, more: Part | None) -> Part:
    """Return requests one after the other."""
    if more is None:
        return part
    concatenate: Any = np.ma.concatenate
    derived = {
        name: concatenate([column, more.derived[name]]) for name, column in part.derived.items()
    }
    return Part(joined_rows([part, more]), None, derived, part.context)


def concerns(request: np.void, part: Part) -> Mask:
    """Tell which events are about bytes of a request or of its response.

    That are messages, the segments that carry and acknowledge them, retransmissions and drops.
    """
    rows = part.rows
    found = np.zeros(len(rows), np.bool_)
    if part.family == "message":
        known = (rows["flags"] & int(MessageFlag.SEQ_UNKNOWN)) == 0
    elif part.family == "delivery" or part.family == "segment":
        known = np.ones(len(rows), np.bool_)
    elif part.family == "loss":
        known = np.isin(rows["kind"], (EventKind.RETRANSMIT, EventKind.DROP))
    else:
        return found
    begun, done = int(request["start_ts_ns"]), int(request["ts_ns"])
    known = known & (rows["ts_ns"] >= begun) & (rows["ts_ns"] <= done + _AFTER_NS)
    asked = int(request["seq"]), int(request["request_bytes"])
    response = int(request["response_seq"]), int(request["response_bytes"])
    for ours, here, there in ((True, "local", "remote"), (False, "remote", "local")):
        at_end = known & _is(rows[f"{here}_ip"], request["local_ip"])
        at_end &= _is(rows[f"{there}_ip"], request["remote_ip"])
        at_end &= rows[f"{here}_port"] == request["local_port"]
        at_end &= rows[f"{there}_port"] == request["remote_port"]
        asks = part.outgoing() == ours
        found |= at_end & asks & _carry(part, *asked)
        found |= at_end & ~asks & _carry(part, *response)
        if part.family == "segment":
            found |= at_end & asks & _acknowledge(part, *response)
            found |= at_end & ~asks & _acknowledge(part, *asked)
    return found


def _is(addresses: NDArray[np.uint8], address: NDArray[np.uint8]) -> Mask:
    same: Mask = (addresses == address).all(axis=1)
    return same


def _carry(part: Part, seq: int, size: int) -> Mask:
    """Tell which events are about some of the bytes from a sequence number on."""
    if size == UNKNOWN_BYTES:
        return np.zeros(len(part), np.bool_)
    after = _after(part.rows["seq"], seq)
    carry: Mask = (after < size) & (after + part.rows["bytes"].astype(np.int64) > 0)
    return carry


def _acknowledge(part: Part, seq: int, size: int) -> Mask:
    """Tell which segments do nothing but acknowledge some of the bytes from a number on."""
    if size == UNKNOWN_BYTES:
        return np.zeros(len(part), np.bool_)
    after = _after(part.rows["ack"], seq)
    acknowledge: Mask = (part.rows["bytes"] == 0) & (after > 0) & (after <= size)
    return acknowledge


def _after(numbers: NDArray[np.uint32], seq: int) -> NDArray[np.int64]:
    """Return how far sequence numbers are behind one, which may be below 0."""
    distance: NDArray[np.int64] = ((numbers.astype(np.int64) - seq + _HALF) & _MASK) - _HALF
    return distance
