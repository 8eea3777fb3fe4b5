"""Rebuild: past connections, reconstructed from events when no snapshot was recorded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import ESTABLISHED, Rows
from tcprism.diagnosis.ends import Numbers, own_keys
from tcprism.diagnosis.table import raw
from tcprism.events import Batch, Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, RATE_UNKNOWN, SNAPSHOT, EventKind
from tcprism.events.context import Context

CONNECTIONS_MAX = 65_536

# What names a connection: its namespace, and its ends.
_ENDS = ("netns", "scope_id", "local_ip", "remote_ip", "local_port", "remote_port")
_OWNER = ("pid", "tid", "uid", "comm", "cgroup_id")


def rebuild(batches: Iterable[Batch], moment_ns: int) -> Part:
    """Return a record for each connection that had an event up to a moment and was not closed."""
    past = rebuild_all(_until(part, moment_ns) for batch in batches for part in batch.parts)
    past.rows["ts_ns"] = moment_ns
    return past


def rebuild_all(given: Iterable[Part]) -> Part:
    """Return a record for each connection that had an event and was not closed."""
    rebuilt = Rebuilt()
    for part in given:
        rebuilt.add(part)
    return rebuilt.result()


class Rebuilt:
    """Takes events, and keeps a record for each connection, CONNECTIONS_MAX at the most."""

    def __init__(self) -> None:
        self._numbers = Numbers(CONNECTIONS_MAX)
        self._rows = np.zeros(0, SNAPSHOT)
        self._first_ns = np.zeros(0, np.uint64)
        self._context = Context()

    def add(self, part: Part) -> None:
        """Add what events tell. A dropped packet makes no connection."""
        if part.family == "snapshot":
            return
        named = (part.rows["local_port"] != 0) & (part.rows["kind"] != EventKind.DROP)
        events = (part if named.all() else part.take(named)).rows
        if not len(events):
            return
        numbers = self._numbers.of(own_keys(events))
        if (numbers < 0).any():
            events, numbers = events[numbers >= 0], numbers[numbers >= 0]
        self._context = part.context
        self._grow()
        np.minimum.at(self._first_ns, numbers, events["ts_ns"])
        _add(self._rows, events, numbers, part.family)

    def _grow(self) -> None:
        have, want = len(self._rows), len(self._numbers)
        if want <= have:
            return
        more = np.zeros(max(want, 2 * have) - have, SNAPSHOT)
        more["kind"], more["state"], more["mss"] = EventKind.SNAPSHOT, ESTABLISHED, 1
        more["srtt_us"] = more["min_rtt_us"] = more["rttvar_us"] = MICROSECONDS_UNKNOWN
        more["delivery_rate"] = RATE_UNKNOWN
        self._rows = np.concatenate([raw(self._rows), raw(more)]).view(SNAPSHOT)
        self._rows["inode"] = np.arange(1, len(self._rows) + 1)
        never = np.full(len(more), np.iinfo(np.uint64).max, np.uint64)
        self._first_ns = np.concatenate([self._first_ns, never])

    def result(self) -> Part:
        """Return the records of the connections that were not closed."""
        rows = self._rows[: len(self._numbers)]
        return Part(rows[rows["state"] != 0], context=self._context)

    def first_ns(self) -> NDArray[np.uint64]:
        """Return when the first event of each of those was."""
        open_ones = self._rows["state"][: len(self._numbers)] != 0
        first: NDArray[np.uint64] = self._first_ns[: len(self._numbers)][open_ones]
        return first


def _until(part: Part, moment_ns: int) -> Part:
    return part.take(part.rows["ts_ns"] <= moment_ns)


def _add(rows: Rows, events: Rows, places: NDArray[np.intp], family: str) -> None:
    for name in ("ts_ns", "socket", "family", *_ENDS):
        rows[name][places] = events[name]
    known = events["pid"] != 0
    for name in _OWNER:
        rows[name][places[known]] = events[name][known]
    if family in _ADDERS:
        _ADDERS[family](rows, events, places)


def _add_messages(rows: Rows, events: Rows, places: NDArray[np.intp]) -> None:
    for name, kind in (
        ("bytes_sent", EventKind.SEND),
        ("bytes_acked", EventKind.SEND),
        ("bytes_received", EventKind.RECV),
    ):
        np.add.at(rows[name], places, events["bytes"] * (events["kind"] == kind))


def _add_segments(rows: Rows, events: Rows, places: NDArray[np.intp]) -> None:
    np.add.at(rows["segs_out"], places, events["segs"].astype(np.uint32))
    data = events["segs"].astype(np.uint32) * (events["bytes"] > 0)
    np.add.at(rows["data_segs_out"], places, data)
    for name in ("srtt_us", "cwnd", "packets_out", "ca_state"):
        rows[name][places] = events[name]
    known = events["srtt_us"] != MICROSECONDS_UNKNOWN
    np.minimum.at(rows["min_rtt_us"], places[known], events["srtt_us"][known])


def _add_losses(rows: Rows, events: Rows, places: NDArray[np.intp]) -> None:
    again = events["kind"] == EventKind.RETRANSMIT
    segments = events["segs"].astype(np.uint32) * again
    np.add.at(rows["total_retrans"], places, segments)
    np.add.at(rows["data_segs_out"], places, segments)
    known = again & (events["srtt_us"] != MICROSECONDS_UNKNOWN)
    for name in ("srtt_us", "cwnd", "ca_state", "rto_us", "rttvar_us", "ssthresh"):
        rows[name][places[known]] = events[name][known]


def _add_connections(rows: Rows, events: Rows, places: NDArray[np.intp]) -> None:
    """What a `close` counts is right whatever events were recorded; then the connection is gone."""
    opened = np.isin(events["kind"], (EventKind.CONNECT, EventKind.ACCEPT))
    rows["state"][places[opened]] = ESTABLISHED
    changed = events["kind"] == EventKind.STATE
    rows["state"][places[changed]] = events["new_state"][changed]
    closed = events["kind"] == EventKind.CLOSE
    rows["state"][places[closed]] = 0


_ADDERS = {
    "message": _add_messages,
    "segment": _add_segments,
    "loss": _add_losses,
    "connection": _add_connections,
}
