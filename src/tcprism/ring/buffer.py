"""One ring, mapped into this process and read with NumPy.

The layout is ours (bpf/include/tcprism/ring.h): a table of records of one size, cut into lanes, and
a table of the lanes (struct lane), which says how far each is written and read. One writer at a
time is in a lane, and a record is whole when it is counted, so what is there is read as a table.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import LANE

# More than this at once falls out of the CPU's cache and is read at half the speed or less; of less
# than this, NumPy's calls cost more than the records.
CHUNK = 4096
CHUNK_BYTES = 1 << 20

Words = NDArray[np.uint64]


def stride(record_size: int) -> int:
    """Return the bytes from one record to the next: the kernel rounds up (array_map_alloc())."""
    return (record_size + 7) // 8 * 8


@dataclass(frozen=True, slots=True)
class Layout:
    """How a ring is cut up: `lanes`, a power of two, of `slots` records of `record_size` bytes."""

    lanes: int
    slots: int
    record_size: int

    @property
    def stride(self) -> int:
        """Bytes from one record to the next."""
        return stride(self.record_size)

    @property
    def records(self) -> int:
        """How many records the ring holds."""
        return self.lanes * self.slots


def lay_out(lanes: int, layout: Layout) -> None:
    """Tell writers where each lane of a ring lies; until then they find no room.

    `lanes` is the descriptor of the lanes' map. Raises OSError.
    """
    with mmap.mmap(lanes, layout.lanes * LANE.itemsize) as memory:
        table = np.frombuffer(memory, dtype=LANE)
        table["first"] = np.arange(layout.lanes) * layout.slots
        table["slots"] = layout.slots
        del table  # it keeps the map open


class RingBuffer:
    """A reader of one ring: `records` and `lanes` are the descriptors of its two maps."""

    def __init__(self, records: int, lanes: int, layout: Layout) -> None:
        self.layout = layout
        self._chunk = max(1, min(CHUNK, CHUNK_BYTES // layout.stride))
        self._lanes_map = mmap.mmap(lanes, layout.lanes * LANE.itemsize)
        self._records_map = mmap.mmap(
            records, layout.records * layout.stride, mmap.MAP_SHARED, mmap.PROT_READ
        )
        lay_out(lanes, layout)
        table = np.frombuffer(self._lanes_map, dtype=LANE)
        # One aligned load or store each, so that a position is never torn.
        self._writers = table["writers"].data
        self._written = table["written"].data
        self._read = table["read"].data
        self._words = np.frombuffer(self._records_map, dtype=np.uint64).reshape(layout.records, -1)

    def look(self) -> list[tuple[int, bool]]:
        """Return, for each lane, how many records wait, and whether one may be on its way."""
        writers = self._writers.tolist()  # first: who is done since has been counted
        lanes = zip(writers, self._written.tolist(), self._read.tolist(), strict=True)
        return [(written - read, writers > 0) for writers, written, read in lanes]

    def fill_level(self) -> float:
        """Return how full the ring is, 0 to 1."""
        return sum(waiting for waiting, _ in self.look()) / self.layout.records

    def read(self, lane: int, limit: int) -> Words:
        """Copy out at most `limit` records of those that wait in a lane, and free their room.

        Returns 8-byte words, a row a record. Gives no more than the cache takes, and not beyond the
        end of the lane, where the next call goes on at its start.
        """
        start = self._read[lane]
        slots = self.layout.slots
        count = min(self._written[lane] - start, limit, self._chunk, slots - start % slots)
        first = lane * slots + start % slots
        rows = self._words[first : first + count].copy()
        self._read[lane] = start + count
        return rows

    def close(self) -> None:
        """Let go of the maps; they are unmapped once no view of them is left."""
        del self._writers, self._written, self._read, self._words
        del self._lanes_map, self._records_map
