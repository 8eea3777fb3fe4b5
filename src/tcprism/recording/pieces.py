"""Batches in pieces of bounded size, because sinks need several times the size of their input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tcprism.events import Batch, Part

# More than what the writer puts into a batch, so that an honest one is left whole.
_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 16 << 20


def in_pieces(batch: Batch) -> Iterator[Batch]:
    """Yield a batch in pieces of a bounded size; none is empty."""
    widths = [part.rows.itemsize + _payload_width(part) for part in batch.parts]
    sizes = list(map(len, batch.parts))
    if len(batch) <= _ROWS_AT_ONCE and np.dot(widths, sizes) <= _BYTES_AT_ONCE:
        if len(batch):
            yield batch
        return
    sums = np.cumsum(np.repeat(widths, sizes)[batch.permutation])
    steps = sums // _BYTES_AT_ONCE + np.arange(len(batch)) // _ROWS_AT_ONCE
    begin = 0
    for cut in [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(batch)]:
        yield batch.between(begin, cut)
        begin = cut


def _payload_width(part: Part) -> int:
    return 0 if part.payload is None else part.payload.shape[1]
