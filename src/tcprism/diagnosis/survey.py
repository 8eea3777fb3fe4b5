"""Survey: many snapshots of all connections, as one change of each."""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import CONDITIONS, Delta, Rows
from tcprism.diagnosis.table import raw
from tcprism.events import Part
from tcprism.events._wire import SNAPSHOT
from tcprism.events.context import Context

GAP_NS = 20_000_000  # no pause within a snapshot is so long, none between two is shorter
SOCKETS_MAX = 65_536
_LATE = 1.6  # times the usual pause: one snapshot is missing, or nearly

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Pause:
    """A gap between snapshots: when it began (CLOCK_MONOTONIC), and how long it was."""

    start_ns: int
    seconds: float


def snapshots_of(part: Part) -> list[Part]:
    """Return each of the snapshots in a part: recordings put several into one."""
    ends = np.flatnonzero(np.diff(part.rows["ts_ns"].astype(np.int64)) > GAP_NS) + 1
    edges = [0, *ends.tolist(), len(part)]
    return [part.take(slice(a, b)) for a, b in itertools.pairwise(edges) if b > a]


class Survey:
    """Takes the records of one snapshot after the other, and keeps two of each socket.

    It holds SOCKETS_MAX sockets; `forgotten` counts those that had to make room.
    """

    def __init__(self) -> None:
        self._moments = array("Q")
        self._keys: Keys = np.zeros(0, np.uint64)
        self._before = raw(np.zeros(0, SNAPSHOT))
        self._last = raw(np.zeros(0, SNAPSHOT))
        self._snapshots = np.zeros(0)
        self._held = np.zeros((0, len(CONDITIONS)))
        self._context = Context()
        self.forgotten = 0

    def add(self, part: Part) -> None:
        """Add a snapshot; of a socket that several processes have, one record counts."""
        if not len(part):
            return
        keys, first = np.unique(part.rows["inode"], return_index=True)
        rows = part.take(first).rows
        self._context = part.context
        before = self._moment(int(part.rows["ts_ns"].max()))
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), np.bool_)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        held = np.stack([condition(rows) for condition in CONDITIONS.values()], 1)
        at = places[known]
        self._begin_again(at, rows[known], before)
        self._last[at] = raw(rows)[known]
        self._snapshots[at] += 1
        self._held[at] += held[known]
        if not known.all():
            self._insert(keys[~known], raw(rows)[~known].view(SNAPSHOT), held[~known], before)

    def _begin_again(self, at: NDArray[np.intp], rows: Rows, before_ns: int) -> None:
        """A number is used again one day: a socket whose counters went back is another one."""
        last = self._last.view(SNAPSHOT)[at]
        other = (last["bytes_received"] > rows["bytes_received"]) | (
            last["bytes_sent"] > rows["bytes_sent"]
        )
        before = np.zeros(int(other.sum()), SNAPSHOT)
        before["ts_ns"] = before_ns
        self._before[at[other]] = raw(before)
        self._snapshots[at[other]] = 0
        self._held[at[other]] = 0

    def _moment(self, moment: int) -> int:
        """Note when a snapshot was; return when the one before was, 0 for the first."""
        if self._moments and moment - self._moments[-1] < GAP_NS:
            self._moments[-1] = max(moment, self._moments[-1])  # the rest of the same one
        else:
            self._moments.append(moment)
        return self._moments[-2] if len(self._moments) > 1 else 0

    def _insert(self, keys: Keys, rows: Rows, held: NDArray[np.bool_], before_ns: int) -> None:
        """A socket that came later has counted from nothing, since the snapshot before it."""
        before = np.zeros(len(rows), SNAPSHOT)
        before["ts_ns"] = before_ns
        merged = np.concatenate([self._keys, keys])
        order = np.argsort(merged, kind="stable")
        self._keys = merged[order]
        self._before = np.concatenate([self._before, raw(before if before_ns else rows)])[order]
        self._last = np.concatenate([self._last, raw(rows)])[order]
        self._snapshots = np.concatenate([self._snapshots, np.ones(len(rows))])[order]
        self._held = np.concatenate([self._held, held.astype(np.float64)])[order]
        if len(self._keys) > SOCKETS_MAX:
            self._forget()

    def _forget(self) -> None:
        """Let half of the sockets go, those that have not been seen for longest."""
        self.forgotten += len(self._keys) - SOCKETS_MAX // 2
        moments = self._last.view(SNAPSHOT)["ts_ns"]
        kept = np.sort(np.argsort(moments, kind="stable")[-SOCKETS_MAX // 2 :])
        self._keys, self._before = self._keys[kept], self._before[kept]
        self._last, self._held = self._last[kept], self._held[kept]
        self._snapshots = self._snapshots[kept]

    def result(self) -> tuple[Part, Delta]:
        """Return the last record of each socket, and what became of it since the first snapshot."""
        before, last = self._before.view(SNAPSHOT), self._last.view(SNAPSHOT)
        shares = self._held / self._snapshots[:, None]
        seen = {name: shares[:, place] for place, name in enumerate(CONDITIONS)}
        elapsed = (last["ts_ns"] - before["ts_ns"]).astype(np.float64) / 1000
        change = Delta(before, last, elapsed, seen, self._snapshots)
        return Part(last, context=self._context), change

    @property
    def snapshots(self) -> int:
        """The number of snapshots."""
        return len(self._moments)

    @property
    def end_ns(self) -> int:
        """When the last snapshot was, 0 before the first."""
        return self._moments[-1] if self._moments else 0

    def pauses(self, pace: float) -> list[Pause]:
        """Return the gaps between snapshots that are too long for one every `pace` seconds."""
        moments = np.array(self._moments, np.int64)
        seconds = np.diff(moments) / 1e9
        usual = max(pace, float(np.median(seconds))) if len(seconds) else pace
        late = np.flatnonzero(seconds > _LATE * usual)
        return [Pause(int(moments[place]), float(seconds[place])) for place in late.tolist()]
