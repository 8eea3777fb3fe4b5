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

HEADER = 8  # u32 length and flags, u32 page offset
_BUSY = 0x80000000
_DISCARDED = 0x40000000
# More than this at once falls out of the CPU's cache and is read at half the speed or less; of less
# than this, NumPy's calls cost more than the records.
CHUNK = 4096
CHUNK_BYTES = 1 << 20

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records as 8-byte words, one row each, out of `taken` that were read.

    `table` has the kernel's header in its first column: to copy it along is quicker than to leave
    it out. `complete` if no unfinished record stopped the reader. Discarded ones are taken and give
    no row.
    """

    table: Words
    taken: int
    complete: bool

    @property
    def rows(self) -> Words:
        """The records without the header."""
        return self.table[:, 1:]


class RingBuffer:
    """A reader of one ring. `size` and `record_size` are in bytes; `descriptor` is the map's."""

    def __init__(self, descriptor: int, size: int, record_size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self.stride = HEADER + (record_size + 7) // 8 * 8
        self._chunk = max(1, min(CHUNK, CHUNK_BYTES // self.stride))
        self._consumer_map = mmap.mmap(descriptor, page, mmap.MAP_SHARED, offset=0)
        self._producer_map = mmap.mmap(
            descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        # One aligned load or store each, so that a position is never torn.
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._producer_map)[:8].cast("Q")
        self._data = np.frombuffer(self._producer_map, dtype=np.uint64, offset=page)
        self._lengths = self._data.view(np.uint32)
        self._finished_length = record_size

    def available(self) -> int:
        """Return how many records wait to be read; the last ones may be unfinished."""
        return int(self._producer[0] - self._consumer[0]) // self.stride

    def fill_level(self) -> float:
        """Return how full the ring is, 0 to 1."""
        return int(self._producer[0] - self._consumer[0]) / self.size

    def read(self, limit: int) -> Chunk:
        """Copy out at most `limit` records, and not more than the cache takes; free their room."""
        count = min(self.available(), limit, self._chunk)
        start = self._consumer[0]
        first, words = (start & (self.size - 1)) // 8, self.stride // 8
        lengths = self._lengths[2 * first : 2 * (first + count * words) : 2 * words]
        whole = bool((lengths == self._finished_length).all())
        finished = count if whole else _finished(lengths)
        kept = None if whole else (lengths[:finished] & _DISCARDED) == 0
        table = self._data[first : first + finished * words].copy().reshape(finished, words)
        self._consumer[0] = start + finished * self.stride
        return Chunk(table if kept is None else table[kept], finished, finished == count)

    def close(self) -> None:
        """Let go of the maps; they are unmapped once no view of them is left."""
        del self._consumer, self._producer, self._data, self._lengths
        del self._consumer_map, self._producer_map


def _finished(lengths: NDArray[np.uint32]) -> int:
    """Return how many records lie before the first that its writer has not finished."""
    busy = (lengths & _BUSY) != 0
    return int(busy.argmax()) if busy.any() else len(lengths)
