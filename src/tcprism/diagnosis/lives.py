"""Lives: what a `close` tells of a connection, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tcprism.diagnosis.delta import Delta, Rows
from tcprism.diagnosis.rebuild import rebuild_all
from tcprism.diagnosis.table import raw
from tcprism.events import Part
from tcprism.events._wire import ELAPSED_UNKNOWN, SNAPSHOT, TOTALS, EventKind

_EVENT = ("ts_ns", "socket", "cgroup_id", "pid", "tid", "uid", "netns", "comm")
_ENDS = ("local_ip", "remote_ip", "local_port", "remote_port", "owner_source", "family")


def lives(parts: Iterable[Part]) -> tuple[Part, Delta]:
    """Return each connection of recorded events, and its whole life as one change.

    Of one that was not closed only the events tell; the time that it took is unknown.
    """
    given = list(parts)
    closes = [
        part.take(part.rows["kind"] == EventKind.CLOSE)
        for part in given
        if part.family == "connection"
    ]
    ended = [_records(part.rows) for part in closes if len(part)]
    elapsed = [_elapsed(part.rows) for part in closes if len(part)]
    open_ones = rebuild_all(given)
    rows = np.concatenate([raw(r) for r in (*ended, open_ones.rows)]).view(SNAPSHOT)
    unknown = np.full(len(open_ones), np.nan)
    change = Delta(np.zeros(len(rows), SNAPSHOT), rows, np.concatenate([*elapsed, unknown]))
    return Part(rows, context=open_ones.context), change


def _records(closes: Rows) -> Rows:
    """Return what `close` events count as snapshots."""
    rows = np.zeros(len(closes), SNAPSHOT)
    for name in (*_EVENT, *_ENDS, *(TOTALS.names or ())):
        rows[name] = closes[name]
    rows["kind"], rows["state"] = EventKind.SNAPSHOT, closes["new_state"]
    return rows


def _elapsed(closes: Rows) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    known = closes["elapsed_ns"] != ELAPSED_UNKNOWN
    return np.where(known, closes["elapsed_ns"] / 1000, np.nan)
