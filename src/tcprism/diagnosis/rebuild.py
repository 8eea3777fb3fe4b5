"""Rebuild: connections as they were, as far as events tell, where no snapshot was recorded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Rows
from tcprism.events import Batch, Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, RATE_UNKNOWN, SNAPSHOT, EventKind

ESTABLISHED = 1

# What names a connection: its namespace, and its ends.
_ENDS = ("netns", "local_ip", "remote_ip", "local_port", "remote_port")
_OWNER = ("pid", "tid", "uid", "comm", "cgroup_id")


def rebuild(batches: Iterable[Batch], moment_ns: int) -> Part:
    """Return a record for each connection that had an event up to a moment and was not closed."""
    past = rebuild_all(_until(part, moment_ns) for batch in batches for part in batch.parts)
    past.rows["ts_ns"] = moment_ns
    return past


def rebuild_all(given: Iterable[Part]) -> Part:
    """Return a record for each connection that had an event and was not closed."""
    others = [part for part in given if part.family != "snapshot"]
    parts = [part for other in others if len(part := other.take(other.rows["local_port"] != 0))]
    if not parts:
        return Part(np.zeros(0, SNAPSHOT))
    numbers, count = _number(parts)
    rows = np.zeros(count, SNAPSHOT)
    rows["inode"] = np.arange(1, count + 1)
    rows["kind"], rows["state"], rows["mss"] = EventKind.SNAPSHOT, ESTABLISHED, 1
    rows["srtt_us"] = rows["min_rtt_us"] = rows["rttvar_us"] = MICROSECONDS_UNKNOWN
    rows["delivery_rate"] = RATE_UNKNOWN
    for part, places in zip(parts, numbers, strict=True):
        _add(rows, part.rows, places, part.family)
    return Part(rows[rows["state"] != 0], context=parts[0].context)


def _until(part: Part, moment_ns: int) -> Part:
    return part.take(part.rows["ts_ns"] <= moment_ns)


def _number(parts: list[Part]) -> tuple[list[NDArray[np.intp]], int]:
    """Give each connection a number: return those of the events, and how many there are."""
    keys = np.concatenate([_keys(part.rows) for part in parts])
    distinct, places = np.unique(keys, return_inverse=True)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return np.split(places, ends), len(distinct)


def _keys(rows: Rows) -> NDArray[np.void]:
    pieces = [np.ascontiguousarray(rows[name]).view(np.uint8) for name in _ENDS]
    table = np.concatenate([piece.reshape(len(rows), -1) for piece in pieces], axis=1)
    return np.ascontiguousarray(table).view(f"V{table.shape[1]}").ravel()


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
