"""A ring buffer that no kernel made: the same layout in a file, filled by the test."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable

from tcprism.events import Part

BUSY = 1 << 31  # BPF_RINGBUF_BUSY_BIT, include/uapi/linux/bpf.h
DISCARD = 1 << 30  # BPF_RINGBUF_DISCARD_BIT
PAGE = mmap.PAGESIZE


class FakeRing:
    """The consumer's page, the producer's page, and the data.

    A file cannot be mapped twice in a row by one call, so the data is written at both places.
    """

    def __init__(self, size: int, start: int = 0) -> None:
        self.size = size
        self.descriptor = os.memfd_create("ring")
        os.truncate(self.descriptor, 2 * PAGE + 2 * size)
        self._memory = mmap.mmap(self.descriptor, 2 * PAGE + 2 * size)
        self._store(0, start)
        self._store(PAGE, start)

    def _store(self, offset: int, position: int) -> None:
        self._memory[offset : offset + 8] = struct.pack("=Q", position)

    def _load(self, offset: int) -> int:
        return int.from_bytes(self._memory[offset : offset + 8], "little")

    @property
    def consumer(self) -> int:
        """The position up to which the reader has given room back."""
        return self._load(0)

    @property
    def producer(self) -> int:
        """The position up to which room is reserved."""
        return self._load(PAGE)

    def fits(self, record_size: int) -> bool:
        """Tell whether the kernel would find room for a record."""
        return self.producer + span(record_size) - self.consumer <= self.size - 1

    def append(self, record: bytes, flags: int = 0) -> int:
        """Write a record behind the last and return its position."""
        position = self.producer
        self._write(position, struct.pack("=II", len(record) | flags, 0) + record)
        self._store(PAGE, position + span(len(record)))
        return position

    def mark(self, position: int, length: int, flags: int = 0) -> None:
        """Set the state of a record, as its writer does when it is finished."""
        self._write(position, struct.pack("=I", length | flags))

    def _write(self, position: int, data: bytes) -> None:
        for offset, byte in enumerate(data, position):
            at = 2 * PAGE + offset % self.size
            self._memory[at] = self._memory[at + self.size] = byte

    def walk(self, limit: int) -> tuple[list[bytes], bool]:
        """Read at most `limit` records one by one; also tell whether no unfinished one was met."""
        records: list[bytes] = []
        position = self.consumer
        for _ in range(limit):
            if position >= self.producer:
                break
            start = 2 * PAGE + position % self.size
            (header,) = struct.unpack_from("=I", self._memory, start)
            if header & BUSY:
                return records, False
            length = header & ~DISCARD
            if not header & DISCARD:
                records.append(self._memory[start + 8 : start + 8 + length])
            position += span(length)
        return records, True

    def close(self) -> None:
        """Give the memory back; whoever mapped the descriptor keeps it."""
        self._memory.close()
        os.close(self.descriptor)


def span(record_size: int) -> int:
    """Return the room that a record takes: its header, and all of it a multiple of 8 bytes."""
    return (8 + record_size + 7) // 8 * 8


def records_of(part: Part) -> Iterable[bytes]:
    """Return the bytes that the kernel would write for the records of a part."""
    payload = [b""] * len(part) if part.payload is None else [row.tobytes() for row in part.payload]
    return [row.tobytes() + rest for row, rest in zip(part.rows, payload, strict=True)]
