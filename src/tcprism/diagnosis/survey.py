"""Survey: many looks at all connections, as one change of each."""

from __future__ import annotations

import itertools

import numpy as np

from tcprism.diagnosis.delta import CONDITIONS, Delta
from tcprism.diagnosis.table import raw
from tcprism.events import Part
from tcprism.events._wire import SNAPSHOT

GAP_NS = 20_000_000  # no pause within a snapshot is so long, none between two is shorter


def looks_of(part: Part) -> list[Part]:
    """Return each of the snapshots in a part: recordings put several into one."""
    ends = np.flatnonzero(np.diff(part.rows["ts_ns"].astype(np.int64)) > GAP_NS) + 1
    edges = [0, *ends.tolist(), len(part)]
    return [part.take(slice(a, b)) for a, b in itertools.pairwise(edges) if b > a]


class Survey:
    """Takes the records of one snapshot after the other."""

    def __init__(self) -> None:
        self._looks: list[Part] = []

    def add(self, part: Part) -> None:
        """Add a snapshot, with one record a socket."""
        _, first = np.unique(part.rows["inode"], return_index=True)
        self._looks.append(part.take(first))

    def result(self) -> tuple[Part, Delta]:
        """Return the last record of each socket, and what became of it since the first look.

        A socket that came later has counted from nothing, since the look before it was seen.
        """
        looks = [look for look in self._looks if len(look)]
        if not looks:
            empty = np.zeros(0, SNAPSHOT)
            return Part(empty), Delta(empty, empty, np.zeros(0))
        rows = np.concatenate([raw(look.rows) for look in looks]).view(SNAPSHOT)
        rows = raw(rows)[np.lexsort((rows["ts_ns"], rows["inode"]))].view(SNAPSHOT)
        _, starts, counts = np.unique(rows["inode"], return_index=True, return_counts=True)
        first, last = rows[starts], rows[starts + counts - 1]
        before = self._before(first)
        seen = {
            name: np.add.reduceat(held(rows).astype(np.float64), starts) / counts
            for name, held in CONDITIONS.items()
        }
        elapsed = (last["ts_ns"] - before["ts_ns"]).astype(np.float64) / 1000
        return Part(last, context=looks[-1].context), Delta(before, last, elapsed, seen)

    def _before(
        self, first: np.ndarray[tuple[int], np.dtype[np.void]]
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return the first records; of sockets that were not in the first look, empty ones."""
        moments = np.array([int(look.rows["ts_ns"].max(initial=0)) for look in self._looks])
        late = first["ts_ns"] > moments[0]
        before = first.copy()
        raw(before)[late] = np.zeros(1, SNAPSHOT).view(f"V{SNAPSHOT.itemsize}")
        places = np.searchsorted(moments, first["ts_ns"][late]) - 1
        before["ts_ns"][late] = moments[places]
        return before
