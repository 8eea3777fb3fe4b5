"""One BPF ring buffer, mapped into this process and read with NumPy.

The layout is the kernel's (kernel/bpf/ringbuf.c): a page with the consumer's position, a page with
the producer's, then the data mapped twice in a row, so that a record never wraps. Every record of
one of our rings has the same size, hence a run of records is a table, and is read as one.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEADER = 8  # u32 length and flags, u32 page offset
_BUSY = 0x80000000
_DISCARDED = 0x40000000
# More than this at once falls out of the CPU's cache and is read at half the speed or less.
CHUNK = 4096
CHUNK_BYTES = 1 << 20

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records as 8-byte words, one row each, out of `taken` that were read.

    `complete` if no unfinished one stopped the reader. Discarded ones are taken and give no row.
    """

    rows: Words
    taken: int
    complete: bool


class RingBuffer:
    """A reader of one ring. `size` and `record_size` are in bytes; `descriptor` is the map's."""

    def __init__(self, descriptor: int, size: int, record_size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self.stride = _HEADER + (record_size + 7) // 8 * 8
        self._chunk = max(1, min(CHUNK, CHUNK_BYTES // self.stride))
        self._consumer_map = mmap.mmap(descriptor, page, mmap.MAP_SHARED, offset=0)
        self._producer_map = mmap.mmap(
            descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        # One aligned load or store each, so that a position is never torn.
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._producer_map)[:8].cast("Q")
        self._data = np.frombuffer(self._producer_map, dtype=np.uint8, offset=page)

    def available(self) -> int:
        """Return how many records wait to be read; the last ones may be unfinished."""
        return int(self._producer[0] - self._consumer[0]) // self.stride

    def fill_level(self) -> float:
        """Return how full the ring is, 0 to 1."""
        return int(self._producer[0] - self._consumer[0]) / self.size

    def read(self, limit: int) -> Chunk:
        """Copy out at most `limit` records, and not more than the cache takes; free their room."""
        count = min(self.available(), limit, self._chunk)
        if not count:
            return Chunk(np.empty((0, self.stride // 8 - 1), np.uint64), 0, True)
        start = self._consumer[0]
        table = self._table(start & (self.size - 1), count)
        lengths = table[:, 0].astype(np.uint32)
        finished = _finished(lengths)
        rows = table[:finished, 1:].copy()  # always a copy, of a single record too
        self._consumer[0] = start + finished * self.stride
        kept = (lengths[:finished] & _DISCARDED) == 0
        return Chunk(rows if kept.all() else rows[kept], finished, finished == count)

    def _table(self, offset: int, count: int) -> Words:
        span = self._data[offset : offset + count * self.stride]
        return span.view(np.uint64).reshape(count, self.stride // 8)

    def close(self) -> None:
        """Let go of the maps; they are unmapped once no view of them is left."""
        del self._consumer, self._producer, self._data
        del self._consumer_map, self._producer_map


def _finished(lengths: NDArray[np.uint32]) -> int:
    """Return how many records lie before the first that its writer has not finished."""
    busy = (lengths & _BUSY) != 0
    return int(busy.argmax()) if busy.any() else len(lengths)
