"""Batches in pieces of bounded size, because sinks need several times the size of their input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part

_ROWS_AT_ONCE = 1 << 15
_BYTES_AT_ONCE = 8 << 20


def in_pieces(batch: Batch) -> Iterator[Batch]:
    """Yield a batch in pieces of a bounded size; none is empty."""
    sizes = [part.rows.itemsize + _widths(part) for part in batch.parts]
    if len(batch) <= _ROWS_AT_ONCE and sum(map(np.sum, sizes)) <= _BYTES_AT_ONCE:
        if len(batch):
            yield batch
        return
    sums = np.cumsum(np.concatenate(sizes)[batch.permutation])
    steps = sums // _BYTES_AT_ONCE + np.arange(len(batch)) // _ROWS_AT_ONCE
    begin = 0
    for cut in [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(batch)]:
        yield batch.between(begin, cut)
        begin = cut


def _widths(part: Part) -> NDArray[np.int64]:
    return np.full(len(part), 0 if part.payload is None else part.payload.shape[1], np.int64)
