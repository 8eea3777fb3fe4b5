"""Batch: the unit that travels from the rings to the sinks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events.arrow import to_record_batch
from tcprism.events.column import Column
from tcprism.events.columns import BY_NAME
from tcprism.events.kinds import KIND_NUMBERS, RECORDS
from tcprism.events.optional import need, pyarrow
from tcprism.events.part import Part

if TYPE_CHECKING:
    from tcprism.events.event import Event

_BATCH_BYTES = 4096  # Python's objects


class Batch:
    """Events of all families, stored as they came and read in time order.

    `batch["bytes"]` is a column in time order: a plain array for a column that every event has and
    that is never null, else a masked array, masked exactly where JSON has null or lacks the key.
    Numbers and booleans keep their types, `time` is datetime64[ns], all else is objects (str; bytes
    for `payload`). Iterating makes an `Event` of each record. `clock_offset_ns` is CLOCK_REALTIME
    minus CLOCK_MONOTONIC.
    """

    def __init__(self, parts: Sequence[Part], clock_offset_ns: int = 0) -> None:
        self.parts = tuple(parts)
        self.clock_offset_ns = clock_offset_ns

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} events in {len(self.parts)} parts>"

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column in time order; KeyError if there is no such column."""
        column = BY_NAME[name]
        parts = self.parts or [Part(np.empty(0, dtype)) for dtype in RECORDS.values()]
        values = np.concatenate([_values(column, part) for part in parts])
        values = values[self.permutation]
        if name == "time":
            values = times(values, self.clock_offset_ns)
        if column.everywhere and not column.nullable:
            return values
        mask = np.concatenate([column.mask(part) for part in parts])
        return np.ma.MaskedArray(values, mask[self.permutation])

    def split(self, most: int, size: int | None = None) -> Iterator[Batch]:
        """Yield the events in time order as batches of at most `most` events, about `size` bytes.

        A batch that is small enough is left as it is.
        """
        filled = [part for part in self.parts if len(part)]
        if len(self) <= most and (size is None or sum(part.nbytes for part in filled) <= size):
            yield self
            return
        widths = [part.nbytes // len(part) if size else 0 for part in filled]
        weights = np.maximum(np.multiply(widths, most), size or 1)  # of which `whole` are enough
        whole = most * (size or 1)
        shares = np.repeat(weights, [len(part) for part in filled])[self.permutation]
        steps = (np.cumsum(shares) - shares) // whole
        begin = 0
        for cut in [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(self)]:
            yield self.between(begin, cut)
            begin = cut

    def between(self, first: int, last: int) -> Batch:
        """Return the events at the positions from `first` to before `last` in time order."""
        starts = np.cumsum([0, *map(len, self.parts)])
        chosen = np.sort(self.permutation[first:last])
        cuts = np.searchsorted(chosen, starts)
        pieces = [
            part.take(_as_slice(chosen[cuts[index] : cuts[index + 1]] - starts[index]))
            for index, part in enumerate(self.parts)
        ]
        return Batch([piece for piece in pieces if len(piece)], self.clock_offset_ns)

    def __iter__(self) -> Iterator[Event]:
        """Make events in time order."""
        from tcprism.events.event import events_of  # a large class: 8 ms at the start of a trace

        events = [
            event
            for part in self.parts
            for event in events_of(part, time_texts(part.rows["ts_ns"], self.clock_offset_ns))
        ]
        return map(events.__getitem__, self.permutation.tolist())

    @cached_property
    def permutation(self) -> NDArray[np.intp]:
        """The time order as positions in the parts laid end to end; equal times stay in order."""
        moments = [part.rows["ts_ns"] for part in self.parts]
        return np.argsort(np.concatenate(moments or [np.empty(0, np.uint64)]), kind="stable")

    @property
    def is_ordered(self) -> bool:
        """Whether the parts laid end to end are in time order already."""
        moments = np.concatenate([part.rows["ts_ns"] for part in self.parts] or [np.empty(0)])
        return bool((moments[1:] >= moments[:-1]).all())

    @cached_property
    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many events of each kind there are, and their bytes: two arrays, by its number."""
        events, size = np.zeros((2, KIND_NUMBERS), np.int64)
        for part in self.parts:
            kinds = part.rows["kind"].astype(np.intp)
            events += np.bincount(kinds, minlength=KIND_NUMBERS)
            sums = np.bincount(kinds, part.rows["bytes"], minlength=KIND_NUMBERS)
            size += sums.astype(np.int64)  # exact: a part has far less than 2 ** 53 bytes
        return events, size

    def to_arrow(self, columns: Sequence[str] | None = None) -> Any:
        """Return a pyarrow.Table in time order, with all columns or some. Raises ExtraMissing."""
        return pyarrow().Table.from_batches([to_record_batch(self, columns)])

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Return a pandas.DataFrame with Arrow's types: null stays null, whole numbers whole.

        Raises ExtraMissing.
        """
        pandas = need("pandas", "pandas")
        return self.to_arrow(columns).to_pandas(types_mapper=pandas.ArrowDtype)

    def to_polars(self, columns: Sequence[str] | None = None) -> Any:
        """Return a polars.DataFrame. Raises ExtraMissing."""
        return need("polars", "polars").from_arrow(self.to_arrow(columns))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a chart over time, and the first events as a table."""
        from tcprism.events.html import ROWS_MAX, chart, table  # with the large class of events

        return chart(self.parts) + table(list(self.between(0, ROWS_MAX)), len(self))

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        """Pass the columns to any reader of Arrow streams, such as Polars, DuckDB or pandas."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the time order as an array of part indices and one of row indices."""
        starts = np.cumsum([0, *map(len, self.parts)])
        parts = np.searchsorted(starts, self.permutation, side="right") - 1
        return parts, self.permutation - starts[parts]


def joined(*batches: Batch) -> Batch:
    """Return the events of several batches as one.

    The clock is that of the last with events that has one: a stage's own may come without.
    """
    filled = [batch for batch in batches if len(batch)]
    if len(filled) < 2:
        return filled[0] if filled else batches[0]
    parts = [part for batch in filled for part in batch.parts]
    clocks = (batch.clock_offset_ns for batch in reversed(filled) if batch.clock_offset_ns)
    return Batch(parts, next(clocks, 0))


def current_clock_offset_ns() -> int:
    """Return CLOCK_REALTIME less CLOCK_MONOTONIC now, nanoseconds."""
    return time.time_ns() - time.monotonic_ns()


def size_of(batch: Batch) -> int:
    """Return about how many bytes a batch takes."""
    payloads = sum(part.payload.nbytes for part in batch.parts if part.payload is not None)
    return _BATCH_BYTES + payloads + sum(2 * part.rows.nbytes for part in batch.parts)


def times(ts_ns: NDArray[np.uint64], clock_offset_ns: int) -> NDArray[np.datetime64]:
    """Return moments of CLOCK_MONOTONIC as datetime64[ns] in UTC."""
    return (ts_ns.astype(np.int64) + clock_offset_ns).view("datetime64[ns]")


def time_texts(ts_ns: NDArray[np.uint64], clock_offset_ns: int) -> list[str]:
    """Return moments of CLOCK_MONOTONIC as RFC 3339 texts in UTC with nanoseconds."""
    texts: list[str] = np.datetime_as_string(
        times(ts_ns, clock_offset_ns), unit="ns", timezone="UTC"
    ).tolist()
    return texts


def _as_slice(indices: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Return neighbours as a slice, which copies nothing; `indices` ascend."""
    if len(indices) and indices[-1] - indices[0] == len(indices) - 1:
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _values(column: Column, part: Part) -> NDArray[Any]:
    """Return a column of a part, zeros when the family lacks it."""
    if part.family in column.families:
        return column.values(part)
    like = column.values(Part(np.empty(0, RECORDS[next(iter(column.families))])))
    return np.zeros(len(part), like.dtype)
