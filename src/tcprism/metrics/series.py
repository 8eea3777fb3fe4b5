"""The series of one instrument: a row each, in columns, at most so many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.metrics.instruments import IDENTITY, PROCESS, Instrument

SERIES_MAX = 1_000  # of an instrument
LINGER = 300.0  # seconds that a series stays after its process has ended
OTHER = "other"

Key = tuple[str, ...]
Numbers = NDArray[Any]


class Exemplar(NamedTuple):
    """One observation: its value, the cookie of its connection, when (CLOCK_REALTIME, seconds)."""

    value: float
    socket: int
    at: float


class Row(NamedTuple):
    """One series as it stands. `buckets` are not cumulative; `begun` is CLOCK_REALTIME, seconds."""

    key: Key
    value: float
    begun: float
    buckets: tuple[int, ...] = ()
    exemplars: tuple[Exemplar | None, ...] = ()


class Series:
    """The values of an instrument, a series for each key: its attributes' values, "" if unknown.

    What would be a series too many is added to one whose values are all `other`.
    """

    def __init__(self, instrument: Instrument, most: int = SERIES_MAX) -> None:
        self.instrument = instrument
        self.others = 0
        self._most = most
        self._rows: dict[Key, int] = {}
        width = len(instrument.buckets) + 1 if instrument.buckets else 0
        self._table: dict[str, Numbers] = {
            "value": np.zeros(0),
            "touched": np.zeros(0),
            "begun": np.zeros(0),
            "buckets": np.zeros((0, width), np.int64),
            "seen": np.zeros((0, width)),
            "seen_socket": np.zeros((0, width), np.uint64),
            "seen_at": np.zeros((0, width)),
        }

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        ids: NDArray[np.intp],
        keys: Sequence[Key],
        amounts: Numbers,
        sockets: Numbers | None = None,
        weights: Numbers | None = None,
    ) -> None:
        """Add amounts, or observe values; the key of each is that of `keys` at its id.

        `sockets` are the cookies of their connections, `weights` how many each stands for.
        """
        if not len(ids):
            return
        rows = self._places(ids, keys)[ids]
        amounts = np.asarray(amounts, np.float64)
        table = self._table
        sums = amounts if weights is None else amounts * weights
        table["value"] += np.bincount(rows, sums, minlength=len(table["value"]))
        table["touched"][rows] = time.monotonic()
        if self.instrument.buckets:
            self._observe(rows, amounts, sockets, weights)

    def _observe(
        self,
        rows: NDArray[np.intp],
        values: Numbers,
        sockets: Numbers | None,
        weights: Numbers | None,
    ) -> None:
        table = self._table
        width = table["buckets"].shape[1]
        bucket = np.searchsorted(self.instrument.buckets, values)  # a bound belongs to its bucket
        flat = np.bincount(rows * width + bucket, weights, minlength=table["buckets"].size)
        table["buckets"] += flat.astype(np.int64).reshape(-1, width)
        if sockets is not None:
            table["seen"][rows, bucket] = values
            table["seen_socket"][rows, bucket] = sockets
            table["seen_at"][rows, bucket] = time.time()

    def set(self, values: Mapping[Key, float]) -> None:
        """Have these series with these values. Those that are gone end if they are not totals."""
        if not self.instrument.told:
            self._keep([key in values for key in self._rows])
        keys = list(values)
        ids = np.arange(len(keys))
        places = self._places(ids, keys)
        amounts = np.fromiter(values.values(), np.float64, len(keys))
        table = self._table
        table["value"][places] = 0  # then added, for several may be in one
        np.add.at(table["value"], places, amounts)
        table["touched"][places] = time.monotonic()

    def _places(self, ids: NDArray[np.intp], keys: Sequence[Key]) -> NDArray[np.intp]:
        """Return the row of each key, made if need be."""
        places = np.empty(len(keys), np.intp)
        beyond = []
        before = len(self._rows)
        for index, key in enumerate(keys):
            place = self._rows.get(key)
            if place is None and len(self._rows) >= self._most:
                key = (OTHER,) * len(self.instrument.attributes)
                place = self._rows.get(key)
                beyond.append(index)
            if place is None:
                place = self._rows[key] = len(self._rows)
            places[index] = place
        if beyond:
            self.others += int(np.isin(ids, beyond).sum())
        self._grow()
        self._table["begun"][before : len(self._rows)] = time.time()
        return places

    def _grow(self) -> None:
        before = len(self._table["value"])
        if len(self._rows) <= before:
            return
        more = max(len(self._rows), 2 * before, 8) - before
        for name, column in self._table.items():
            fresh = np.zeros((more, *column.shape[1:]), column.dtype)
            self._table[name] = np.concatenate([column, fresh])

    def expire(self, lives: Callable[[Key], bool]) -> None:
        """End the series of processes that have ended some minutes ago; `lives` takes IDENTITY."""
        if PROCESS not in self.instrument.attributes or not self._rows:
            return
        limit = time.monotonic() - LINGER
        touched = self._table["touched"][: len(self._rows)].tolist()
        own = len(IDENTITY)
        self._keep(
            [at > limit or lives(key[:own]) for key, at in zip(self._rows, touched, strict=True)]
        )

    def _keep(self, which: Sequence[bool]) -> None:
        if all(which):
            return
        kept = np.flatnonzero(which)
        keys = [key for key, stays in zip(self._rows, which, strict=True) if stays]
        self._rows = {key: place for place, key in enumerate(keys)}
        for name, column in self._table.items():
            self._table[name] = column[kept]

    def rows(self) -> Iterator[Row]:
        """Yield the series."""
        table = self._table
        for key, place in self._rows.items():
            yield Row(
                key,
                float(table["value"][place]),
                float(table["begun"][place]),
                tuple(table["buckets"][place].tolist()),
                tuple(self._exemplars(place)),
            )

    def _exemplars(self, place: int) -> Iterator[Exemplar | None]:
        table = self._table
        for value, socket, at in zip(
            table["seen"][place].tolist(),
            table["seen_socket"][place].tolist(),
            table["seen_at"][place].tolist(),
            strict=True,
        ):
            yield Exemplar(value, socket, at) if socket else None
