"""Reading one ring, against a plain walk of the same bytes."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.ring.buffer import CHUNK, Chunk, RingBuffer

from .fake_ring import BUSY, DISCARD, FakeRing, span


@contextmanager
def rings(size: int, record_size: int, start: int = 0) -> Iterator[tuple[FakeRing, RingBuffer]]:
    """Give a ring and a reader of it."""
    fake = FakeRing(size, start)
    reader = RingBuffer(fake.descriptor, size, record_size)
    try:
        yield fake, reader
    finally:
        reader.close()
        fake.close()


def records(chunk: Chunk, record_size: int) -> list[bytes]:
    """Return the records of a chunk without the bytes that fill them up to a multiple of 8."""
    return [row.tobytes()[:record_size] for row in chunk.rows]


def read(reader: RingBuffer, limit: int, record_size: int) -> tuple[list[bytes], bool]:
    """Read some records; also tell whether the chunk is complete."""
    chunk = reader.read(limit)
    return records(chunk, record_size), chunk.complete


def numbered(number: int, size: int) -> bytes:
    """Return a record that no other equals, each byte different from its neighbours."""
    return bytes((number * 7 + index * 3) % 256 for index in range(size))


states = st.sampled_from([0, 0, 0, DISCARD, BUSY])
steps = st.lists(st.tuples(st.lists(states, max_size=40), st.integers(0, 50)), max_size=8)


@settings(max_examples=60)
@given(steps, st.integers(1, 200), st.integers(0, 1 << 40))
def test_reading_equals_a_plain_walk(
    pattern: list[tuple[list[int], int]], record_size: int, start: int
) -> None:
    """Write until the ring is full, read some, finish what was busy, and again."""
    with rings(mmap.PAGESIZE, record_size, start * 8) as (fake, reader):
        number = 0
        for flags, limit in pattern:
            busy = []
            for flag in flags:
                if not fake.fits(record_size):
                    break
                position = fake.append(numbered(number, record_size), flag)
                busy += [position] if flag == BUSY else []
                number += 1
            expected = fake.walk(limit)
            assert read(reader, limit, record_size) == expected
            for position in busy:
                fake.mark(position, record_size)
        expected = fake.walk(number)
        assert read(reader, number, record_size) == expected
        assert fake.consumer == fake.producer


@pytest.mark.parametrize("record_size", [1, 8, 12, 136, 200])
def test_records_that_wrap_come_in_one_piece(record_size: int) -> None:
    """Ring after ring is written and read; the end of the data falls at every place of a record."""
    with rings(mmap.PAGESIZE, record_size) as (fake, reader):
        split = 0
        for number in range(3 * mmap.PAGESIZE // span(record_size)):
            at = fake.append(numbered(number, record_size)) % fake.size
            split += at + span(record_size) > fake.size
            assert read(reader, 1, record_size) == ([numbered(number, record_size)], True)
        assert (split > 0) == (mmap.PAGESIZE % span(record_size) > 0)


def test_an_empty_ring() -> None:
    with rings(mmap.PAGESIZE, 16) as (_, reader):
        chunk = reader.read(10)
        assert chunk.rows.shape == (0, 2)
        assert chunk.complete
        assert (reader.available(), reader.fill_level()) == (0, 0.0)


def test_nothing_is_read_beyond_an_unfinished_record() -> None:
    with rings(mmap.PAGESIZE, 4) as (fake, reader):
        fake.append(b"one.")
        position = fake.append(b"two.", BUSY)
        fake.append(b"3...")
        assert read(reader, 10, 4) == ([b"one."], False)
        assert fake.consumer == position
        assert read(reader, 10, 4) == ([], False)
        fake.mark(position, 4)
        assert read(reader, 10, 4) == ([b"two.", b"3..."], True)


def test_an_unfinished_record_beyond_the_limit_is_not_looked_at() -> None:
    with rings(mmap.PAGESIZE, 4) as (fake, reader):
        fake.append(b"one.")
        fake.append(b"two.", BUSY)
        assert reader.read(1).complete


def test_a_discarded_record_gives_its_room_back() -> None:
    with rings(mmap.PAGESIZE, 4) as (fake, reader):
        fake.append(b"one.", DISCARD)
        assert reader.available() == 1
        assert read(reader, 10, 4) == ([], True)
        assert fake.consumer == fake.producer
        assert reader.available() == 0


def test_no_more_than_a_chunk_at_once() -> None:
    count = CHUNK + 100
    with rings(1 << 17, 8) as (fake, reader):
        for number in range(count):
            fake.append(number.to_bytes(8, "little"))
        assert reader.available() == count
        assert reader.read(count).rows[:, 0].tolist() == list(range(CHUNK))
        assert reader.available() == 100
        assert reader.read(count).rows[:, 0].tolist() == list(range(CHUNK, count))


def test_fill_level_is_the_share_of_the_bytes() -> None:
    with rings(mmap.PAGESIZE, 248) as (fake, reader):
        for _ in range(mmap.PAGESIZE // 256 // 2):
            fake.append(bytes(248))
        assert reader.fill_level() == 0.5


@pytest.mark.parametrize("count", [1, 2])
def test_rows_are_copies(count: int) -> None:
    """Once its room is given back, the kernel may overwrite a record, and the ring be unmapped."""
    with rings(mmap.PAGESIZE, 8) as (fake, reader):
        for _ in range(count):
            fake.append(b"to keep.")
        chunk = reader.read(count)
        for _ in range(2):
            while fake.fits(8):
                fake.append(b"another.")
            read(reader, CHUNK, 8)
        assert records(chunk, 8) == [b"to keep."] * count
    assert records(chunk, 8) == [b"to keep."] * count
