"""Table: the TCP sockets at one moment, and what changed since the moment before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Delta, Numbers, Rows, ratio
from tcprism.events import Part
from tcprism.events._wire import SNAPSHOT

HISTORY = 16  # intervals
_OUT, _IN, _SENT, _AGAIN = range(4)  # what the history remembers of each interval

_NOTHING = Part(np.zeros(0, SNAPSHOT))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One record a socket, in the order of their inodes.

    `holders` counts the processes that have the socket open. `change` is since the table before:
    of a socket that was not there, since it was made. `history` has, per socket, bytes a second
    out and in, data segments sent and sent again, for the last HISTORY intervals.
    """

    part: Part
    holders: NDArray[np.int64]
    change: Delta
    history: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.part)

    @property
    def rows(self) -> Rows:
        """The records."""
        return self.part.rows

    @property
    def rate_out(self) -> Numbers:
        """Payload bytes a second that left for the first time."""
        return self.history[:, _OUT, -1].astype(np.float64)

    @property
    def rate_in(self) -> Numbers:
        """Payload bytes a second that came in order."""
        return self.history[:, _IN, -1].astype(np.float64)

    @property
    def throughput(self) -> NDArray[np.float32]:
        """Bytes a second in both directions, a row of HISTORY intervals a socket."""
        total: NDArray[np.float32] = self.history[:, _OUT] + self.history[:, _IN]
        return total

    @property
    def retransmit_share(self) -> Numbers:
        """Share of retransmissions in the data segments sent in the history, 0 to 1."""
        again, sent = self.history[:, _AGAIN].sum(axis=1), self.history[:, _SENT].sum(axis=1)
        return ratio(again, np.maximum(sent, again))

    def index(self, inode: int) -> int | None:
        """Return where a socket is, or None when it is gone."""
        place = int(np.searchsorted(self.rows["inode"], inode))
        found = place < len(self) and self.rows["inode"][place] == inode
        return place if found else None


def advance(previous: Table | None, part: Part) -> Table:
    """Make the table of a snapshot's records; `previous` is the one before, if there was one."""
    _, first, holders = np.unique(part.rows["inode"], return_index=True, return_counts=True)
    now = part.take(first)
    if previous is None:
        change = Delta(now.rows, now.rows, np.full(len(now), np.nan))
        return Table(now, holders, change, np.zeros((len(now), 4, HISTORY), np.float32))
    known, places = _find(previous.rows, now.rows)
    before = np.zeros(len(now), SNAPSHOT)
    raw(before)[known] = raw(previous.rows)[places]
    before["ts_ns"][~known] = previous.rows["ts_ns"].max(initial=0)
    elapsed = (now.rows["ts_ns"] - before["ts_ns"]).astype(np.float64) / 1000
    change = Delta(before, now.rows, elapsed)
    history = np.zeros((len(now), 4, HISTORY), np.float32)
    history[known, :, :-1] = previous.history[places, :, 1:]
    history[:, :, -1] = _latest(change)
    return Table(now, holders, change, history)


def empty() -> Table:
    """Return a table without sockets."""
    return advance(None, _NOTHING)


def _find(old: Rows, new: Rows) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which new records are of sockets in the old ones, and where those are.

    A number is used again one day: a socket whose counter went back is another one.
    """
    if not len(old):
        return np.zeros(len(new), np.bool_), np.zeros(0, np.intp)
    places = np.searchsorted(old["inode"], new["inode"]).clip(max=len(old) - 1)
    known = old["inode"][places] == new["inode"]
    for counter in ("bytes_received", "bytes_sent"):
        known &= old[counter][places] <= new[counter]
    return known, places[known]


def raw(rows: Rows) -> Rows:
    """View records as bytes: NumPy copies a structured array field by field."""
    return rows.view(f"V{rows.itemsize}")


def _latest(change: Delta) -> Numbers:
    seconds = change.elapsed_us / 1e6
    out, into = ratio(change.new_bytes, seconds), ratio(change.delta("bytes_received"), seconds)
    return np.stack([out, into, change.delta("data_segs_out"), change.delta("total_retrans")], 1)
