"""Watch: one connection over time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import CONDITIONS, Delta, Rows
from tcprism.diagnosis.table import Table
from tcprism.events import Part
from tcprism.events.connection import same_connection

LONGEST = 600  # snapshots


@dataclass(slots=True)
class Watch:
    """The records of one socket, as snapshots come; `part` is the last of them."""

    part: Part
    snapshots: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshots = self.snapshots or [self.part.rows]

    @property
    def inode(self) -> int:
        """Which socket it is."""
        return int(self.part.rows["inode"][0])

    def look(self, table: Table) -> bool:
        """Add what a table has of the socket; False: it is gone."""
        place = table.index(self.inode)
        if place is None:
            return False
        self.part = table.part.take(np.array([place]))
        self.snapshots = [*self.snapshots[-LONGEST:], self.part.rows]
        return True

    @property
    def rows(self) -> Rows:
        """All snapshots, oldest first."""
        return np.concatenate(self.snapshots)

    def change(self) -> Delta:
        """Return what became of the connection between the first snapshot and the last."""
        rows = self.rows
        elapsed = (rows["ts_ns"][-1:] - rows["ts_ns"][:1]).astype(np.float64) / 1000
        seen = {name: held(rows).mean(keepdims=True) for name, held in CONDITIONS.items()}
        return Delta(rows[:1], rows[-1:], elapsed, seen)

    def rates(self, name: str) -> NDArray[np.float64]:
        """Return how fast a counter grew between two snapshots, per second."""
        rows = self.rows
        seconds = np.diff(rows["ts_ns"].astype(np.float64)) / 1e9
        grown = np.diff(rows[name].astype(np.float64))
        return np.divide(grown, seconds, out=np.zeros(len(grown)), where=seconds > 0)

    def concerns(self, part: Part) -> NDArray[np.bool_]:
        """Tell which events are the connection's."""
        return same_connection(part.rows, self.part.rows[0])
