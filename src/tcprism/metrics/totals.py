"""What connections have moved since the last look, from the kernel's totals of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import ELAPSED_UNKNOWN

REMEMBERED = 262_144  # connections
ABSENT = 60  # snapshots that one may be missing from before it is forgotten: it may linger, closed

_BY_INODE = np.uint64(1 << 63)  # no cookie comes so far

FIELDS = (
    "bytes_sent", "bytes_retrans", "bytes_received", "busy_us", "rwnd_limited_us",
    "sndbuf_limited_us",
)  # fmt: skip

Change = NDArray[Any]  # a record of FIELDS for each row
_CHANGE = np.dtype([(name, np.int64) for name in FIELDS])


class Totals:
    """Remembers what was counted of each connection, by its cookie; by its inode while it has none.

    A connection older than the first snapshot counts from there, a later one once it has a cookie
    or ends. `unaccounted` are those whose past is not known: they ended, or there was no room to
    remember them before.
    """

    def __init__(self) -> None:
        self.unaccounted = 0
        self._sockets = np.zeros(0, np.uint64)  # sorted
        self._totals = np.zeros(0, _CHANGE)
        self._absent = np.zeros(0, np.int64)
        self._since_ns = -1  # when the latest snapshot was taken that may not have been remembered
        self._forgot = False  # whether that was the latest of all

    def snapshot(self, part: Part) -> tuple[Part, Change]:
        """Return one record of each connection, and what it has moved since the last look."""
        part = part.take(part.rows["remote_port"] > 0)  # what listens is no connection
        sockets, first = np.unique(_numbers(part), return_index=True)
        part = part.take(first)
        now = _totals(part)
        places, known = self._find(sockets)
        places, known = self._find_by_inode(part, places, known)
        change = now.copy()
        _subtract(change[known], self._totals[places[known]], change, known)
        latest = int(part.rows["ts_ns"].max(initial=0))
        first_of_all = self._since_ns < 0
        # Its end has no inode, and tells of all its bytes, if it began after the first snapshot.
        later = ~known & (sockets >= _BY_INODE) & (not first_of_all)
        if first_of_all:  # all that came before us
            change = np.zeros(len(part), _CHANGE)
            self._since_ns = latest
        elif self._forgot:  # it may have been there before, and its bytes counted
            change[~known] = 0
            self.unaccounted += int((~known & ~later & _moved(now))[:REMEMBERED].sum())
        change[later] = 0
        self._forgot = self._remember(sockets[~later], now[~later])
        if self._forgot:
            self._since_ns = latest
        return part, change

    def _remember(self, sockets: NDArray[np.uint64], now: Change) -> bool:
        """Have these remembered, and some that are gone; tell whether there are too many."""
        gone = ~np.isin(self._sockets, sockets, assume_unique=True)
        gone &= self._absent < ABSENT
        kept = np.concatenate([sockets, self._sockets[gone]])
        totals = np.concatenate([now, self._totals[gone]])
        absent = np.concatenate([np.zeros(len(sockets), np.int64), self._absent[gone] + 1])
        forgets = len(kept) > REMEMBERED
        if forgets:
            kept, totals, absent = kept[:REMEMBERED], totals[:REMEMBERED], absent[:REMEMBERED]
        order = np.argsort(kept)
        self._sockets, self._totals, self._absent = kept[order], totals[order], absent[order]
        return forgets

    def close(self, part: Part) -> Change:
        """Return what connections that have ended moved since the last look."""
        change = _totals(part)
        places, known = self._find(part.rows["socket"])
        _subtract(change[known], self._totals[places[known]], change, known)
        elapsed = part.rows["elapsed_ns"]
        begun = np.where(elapsed == ELAPSED_UNKNOWN, 0, part.rows["ts_ns"] - elapsed)
        ours = begun > max(self._since_ns, 0)
        unknown = ~known & ~ours
        change[unknown] = 0
        self.unaccounted += int((unknown & _moved(_totals(part))).sum())
        gone = places[known]
        self._sockets = np.delete(self._sockets, gone)
        self._totals = np.delete(self._totals, gone)
        self._absent = np.delete(self._absent, gone)
        return change

    def _find_by_inode(
        self, part: Part, places: NDArray[np.intp], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Find those as well that had no cookie at the snapshot before."""
        before, found = self._find(part.rows["inode"] | _BY_INODE)
        return np.where(known, places, before), known | found

    def _find(self, sockets: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        places = np.searchsorted(self._sockets, sockets)
        places[places == len(self._sockets)] = 0
        if not len(self._sockets):
            return places, np.zeros(len(sockets), bool)
        return places, self._sockets[places] == sockets


def _numbers(part: Part) -> NDArray[np.uint64]:
    """Return what tells sockets apart: the kernel makes a cookie only when somebody asks for it."""
    cookies, inodes = part.rows["socket"], part.rows["inode"]
    numbers: NDArray[np.uint64] = np.where(cookies > 0, cookies, inodes | _BY_INODE)
    return numbers


def _totals(part: Part) -> Change:
    totals = np.zeros(len(part), _CHANGE)
    for name in FIELDS:
        totals[name] = part.rows[name]
    return totals


def _moved(totals: Change) -> NDArray[np.bool_]:
    moved = np.zeros(len(totals), bool)
    for name in FIELDS:
        moved |= totals[name] != 0
    return moved


def _subtract(now: Change, before: Change, change: Change, which: NDArray[np.bool_]) -> None:
    for name in FIELDS:
        change[name][which] = np.maximum(now[name] - before[name], 0)
