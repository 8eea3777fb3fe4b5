"""Lives: what recorded events say about connections from beginning to end."""

from __future__ import annotations

import numpy as np

from tcprism.diagnosis.delta import Delta, Numbers, Rows
from tcprism.diagnosis.rebuild import Rebuilt
from tcprism.diagnosis.table import raw
from tcprism.events import Part
from tcprism.events._wire import ELAPSED_UNKNOWN, SNAPSHOT, TOTALS, EventKind

LIVES_MAX = 65_536

_EVENT = ("ts_ns", "socket", "cgroup_id", "pid", "tid", "uid", "netns", "scope_id", "comm")
_ENDS = ("local_ip", "remote_ip", "local_port", "remote_port", "owner_source", "family")


class Lives:
    """Takes recorded events; keeps LIVES_MAX connections that were closed, and as many others.

    `forgotten` counts the closed ones that there was no room for.
    """

    def __init__(self) -> None:
        self._rebuilt = Rebuilt()
        self._ended: list[Rows] = []
        self._elapsed: list[Numbers] = []
        self._kept = 0
        self.forgotten = 0

    def add(self, part: Part) -> None:
        """Take events."""
        self._rebuilt.add(part)
        if part.family != "connection":
            return
        closes = part.rows[part.rows["kind"] == EventKind.CLOSE]
        room = LIVES_MAX - self._kept
        self.forgotten += max(0, len(closes) - room)
        closes = closes[:room]
        self._kept += len(closes)
        self._ended.append(_records(closes))
        self._elapsed.append(_elapsed(closes))

    def result(self, end_ns: int) -> tuple[Part, Delta]:
        """Return each connection and its whole life as one change.

        One that was not closed is taken as from its first event to `end_ns`, and only events tell
        of it.
        """
        open_ones = self._rebuilt.result()
        since = end_ns - self._rebuilt.first_ns().astype(np.int64)
        open_ones.rows["ts_ns"] = end_ns
        rows = np.concatenate([raw(r) for r in (*self._ended, open_ones.rows)]).view(SNAPSHOT)
        elapsed = np.concatenate([*self._elapsed, since.clip(0) / 1000])
        change = Delta(np.zeros(len(rows), SNAPSHOT), rows, elapsed, snapshots=np.zeros(len(rows)))
        return Part(rows, context=open_ones.context), change


def _records(closes: Rows) -> Rows:
    """Return what `close` events count as snapshots."""
    rows = np.zeros(len(closes), SNAPSHOT)
    for name in (*_EVENT, *_ENDS, *(TOTALS.names or ())):
        rows[name] = closes[name]
    rows["kind"], rows["state"] = EventKind.SNAPSHOT, closes["new_state"]
    return rows


def _elapsed(closes: Rows) -> Numbers:
    known = closes["elapsed_ns"] != ELAPSED_UNKNOWN
    return np.where(known, closes["elapsed_ns"] / 1000, np.nan)
