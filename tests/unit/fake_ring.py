"""A ring that no kernel fills: the same two tables in files, written by the test."""

from __future__ import annotations

import os
from collections.abc import Iterable
from mmap import mmap

import numpy as np

from tcprism.events import Part
from tcprism.events._wire import LANE
from tcprism.ring.buffer import Layout


class FakeRing:
    """A ring's records and lanes; `start` records have gone through each lane before."""

    def __init__(self, layout: Layout, start: int = 0) -> None:
        self.layout = layout
        self.records = os.memfd_create("records")
        self.lanes = os.memfd_create("lanes")
        os.truncate(self.records, layout.records * layout.stride)
        os.truncate(self.lanes, layout.lanes * LANE.itemsize)
        self._memory = mmap(self.records, layout.records * layout.stride)
        self.table = np.frombuffer(mmap(self.lanes, layout.lanes * LANE.itemsize), dtype=LANE)
        self.table["written"] = self.table["read"] = start
        self.table["next"] = start % layout.slots

    def waiting(self, lane: int = 0) -> int:
        """Return how many records of a lane have not been read."""
        return int(self.table["written"][lane] - self.table["read"][lane])

    def has_room(self, lane: int = 0) -> bool:
        """Tell whether a writer would find room in a lane."""
        return self.waiting(lane) < int(self.table["slots"][lane])

    def append(self, record: bytes, lane: int = 0) -> None:
        """Write a record behind the last of a lane, as bpf/include/tcprism/ring.h does."""
        assert self.has_room(lane)
        position = self.table[lane]
        at = int(position["first"] + position["next"]) * self.layout.stride
        self._memory[at : at + len(record)] = record
        position["next"] = (position["next"] + 1) % position["slots"]
        position["written"] += 1

    def close(self) -> None:
        """Give the memory back; whoever mapped the descriptors keeps it."""
        self._memory.close()
        del self.table
        os.close(self.records)
        os.close(self.lanes)


def records_of(part: Part) -> Iterable[bytes]:
    """Return the bytes that the kernel would write for the records of a part."""
    payload = [b""] * len(part) if part.payload is None else [row.tobytes() for row in part.payload]
    return [row.tobytes() + rest for row, rest in zip(part.rows, payload, strict=True)]
