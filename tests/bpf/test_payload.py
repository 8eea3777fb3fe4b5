"""Payload out of the caller's memory: shapes, limits, faults, and many programs at once."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcprism.events._wire import PAYLOAD_CLASSES, EventKind, PayloadReason
from tests.support.recorder import COMPAT_IOVEC, FLAT, IOVEC, USER_IOVEC, Message, Recorder

IOVECS = {"kernel": IOVEC, "user": USER_IOVEC, "compat": COMPAT_IOVEC}
SEGMENTS_MAX = 128
UNKNOWN = 0xFFFFFFFF
PAGE = mmap.PAGESIZE
LIMITS = (0, 64, 1000, 16384)
CPUS = os.cpu_count() or 1
_MAP_32BIT = 0x40  # a 32-bit caller has its memory below 4 GiB; include/uapi/asm/mman.h


class Memory:
    """Memory below 4 GiB, with one page in the middle that cannot be read."""

    def __init__(self, pages: int) -> None:
        self.size = pages * PAGE
        self._map = mmap.mmap(-1, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
        self.bytes = random.Random(7).randbytes(self.size)
        self._map[:] = self.bytes
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.hole = self.size // 2
        library = ctypes.CDLL(None, use_errno=True)
        if library.mprotect(ctypes.c_void_p(self.base + self.hole), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def at(self, start: int, size: int) -> bytes:
        """Return bytes as they were before the page was locked."""
        return self.bytes[start : start + size]


@dataclass(frozen=True, slots=True)
class Vector:
    """An iovec in user memory: where it is, and what keeps it alive."""

    base: int
    count: int
    keep: object


def vector(memory: Memory, shape: int, segments: list[tuple[int, int]]) -> Vector:
    """Make an iovec of segments, each a start in the memory and a length."""
    layout = "=II" if shape == COMPAT_IOVEC else "=QQ"
    raw = b"".join(struct.pack(layout, memory.base + start, size) for start, size in segments)
    keep = ctypes.create_string_buffer(raw, max(1, len(raw)))
    return Vector(ctypes.addressof(keep), len(segments), keep)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory(32)


@pytest.fixture(scope="module", params=LIMITS)
def recorder(request: pytest.FixtureRequest, compiled: Callable[[str], Path]) -> Iterator[Recorder]:
    made = Recorder(compiled("payload"), request.param, CPUS)
    yield made
    made.close()


def expected_ring(length: int) -> int:
    return min((size for size in PAYLOAD_CLASSES if size >= length), default=0) if length else 0


def check(message: Message, payload: bytes, requested: int, moved: int, limit: int) -> None:
    assert message.payload == payload
    assert message.requested == requested
    assert message.ring == expected_ring(len(payload))
    faulted = not payload and moved > 0 and limit > 0
    assert message.unavailable == (PayloadReason.FAULT if faulted else PayloadReason.AVAILABLE)


SEGMENTATIONS = {
    "none": [],
    "one": [300],
    "empty ones": [0, 5, 0, 0, 7, 0],
    "many": [1, 63, 64, 65, 900, 3000, 2],
    "as many as are looked at": [3] * SEGMENTS_MAX,
    "larger than the largest record": [9000, 9000, 9000],
}


@pytest.mark.parametrize("shape", IOVECS)
@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segments_come_together(recorder: Recorder, memory: Memory, shape: str, name: str) -> None:
    """As many bytes as were moved, the limit allows and the segments have."""
    sizes = SEGMENTATIONS[name]
    starts = [sum(sizes[:index]) * 2 for index in range(len(sizes))]  # with gaps
    segments = list(zip(starts, sizes, strict=True))
    made = vector(memory, IOVECS[shape], segments)
    whole = b"".join(memory.at(*segment) for segment in segments)
    for moved in sorted({min(moved, len(whole)) for moved in (0, 1, 64, 65, 1 << 20)}):
        message = recorder.record(IOVECS[shape], made.base, made.count, 0, moved)
        check(message, whole[: min(moved, recorder.limit)], len(whole), moved, recorder.limit)


@pytest.mark.parametrize("shape", IOVECS)
def test_an_iovec_that_was_begun(recorder: Recorder, memory: Memory, shape: str) -> None:
    """The iterator's offset is one into the first segment."""
    made = vector(memory, IOVECS[shape], [(0, 100), (500, 50)])
    message = recorder.record(IOVECS[shape], made.base, 2, 40, 110)
    whole = memory.at(40, 60) + memory.at(500, 50)
    check(message, whole[: recorder.limit], 110, 110, recorder.limit)


@pytest.mark.parametrize("shape", ["user", "compat"])
def test_segments_that_are_too_many(recorder: Recorder, memory: Memory, shape: str) -> None:
    """What was asked for is unknown then."""
    made = vector(memory, IOVECS[shape], [(number, 1) for number in range(SEGMENTS_MAX + 1)])
    message = recorder.record(IOVECS[shape], made.base, made.count, 0, SEGMENTS_MAX + 1)
    payload = memory.at(0, SEGMENTS_MAX)[: recorder.limit]
    check(message, payload, UNKNOWN, SEGMENTS_MAX + 1, recorder.limit)


@pytest.mark.parametrize("shape", IOVECS)
def test_a_segment_that_cannot_be_read(recorder: Recorder, memory: Memory, shape: str) -> None:
    """What comes before it is there; what was asked for is known all the same."""
    segments = [(0, 10), (memory.hole - 5, 10), (100, 10)]
    made = vector(memory, IOVECS[shape], segments)
    message = recorder.record(IOVECS[shape], made.base, 3, 0, 30)
    check(message, memory.at(0, 10)[: recorder.limit], 30, 30, recorder.limit)


@pytest.mark.parametrize("shape", ["user", "compat"])
def test_an_iovec_that_cannot_be_read(recorder: Recorder, memory: Memory, shape: str) -> None:
    message = recorder.record(IOVECS[shape], memory.base + memory.hole, 2, 0, 30)
    check(message, b"", UNKNOWN, 30, recorder.limit)


@pytest.mark.parametrize("size", [0, 1, 64, 65, 256, 257, 1000, 16384, 20000])
def test_a_flat_buffer(recorder: Recorder, memory: Memory, size: int) -> None:
    message = recorder.record(FLAT, memory.base, 0, 17, size)
    check(message, memory.at(17, min(size, recorder.limit)), UNKNOWN, size, recorder.limit)


def test_a_flat_buffer_that_cannot_be_read(recorder: Recorder, memory: Memory) -> None:
    """Its record is in the ring that the payload would have needed."""
    message = recorder.record(FLAT, memory.base + memory.hole - 1, 0, 0, 64)
    assert message.payload == b""
    if recorder.limit:
        assert message.unavailable == PayloadReason.FAULT


@contextmanager
def reading(recorder: Recorder) -> Iterator[list[Message]]:
    """Read all the time while the body runs."""
    messages: list[Message] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            messages.extend(recorder.read())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield messages
    finally:
        done.set()
        thread.join()
        messages += recorder.read()


def test_programs_at_once_do_not_mix_their_payload(compiled: Callable[[str], Path]) -> None:
    """On one CPU and on all: a record has the bytes of one writer alone, or is counted as lost."""
    writers, times, size = 4 * CPUS, 400, 3000
    recorder = Recorder(compiled("payload"), 16384, cpus=1)  # few lanes, so that they collide
    texts = [bytes([65 + writer]) * size for writer in range(writers)]
    buffers = [ctypes.create_string_buffer(text, size) for text in texts]
    start = threading.Barrier(writers)

    def work(writer: int) -> None:
        base = ctypes.addressof(buffers[writer])
        raw = b"".join(struct.pack("=QQ", base + at, 1000) for at in range(0, size, 1000))
        segments = ctypes.create_string_buffer(raw, len(raw))
        start.wait()
        recorder.run(USER_IOVEC, ctypes.addressof(segments), 3, 0, size, times)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(writers)]
    with reading(recorder) as messages:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counters = recorder.bpf.counters()[EventKind.SEND]
    recorder.close()
    assert {message.payload for message in messages} <= set(texts)
    assert len(messages) == counters["submitted"] > 0
    lost = counters["ring_full"] + counters["ring_busy"]
    assert counters["submitted"] + lost == counters["seen"] == writers * times
