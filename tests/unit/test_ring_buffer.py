"""Reading one ring, against what was written to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.ring.buffer import CHUNK, Layout, RingBuffer, Words

from .fake_ring import FakeRing


@contextmanager
def rings(
    slots: int, record_size: int, lanes: int = 1, start: int = 0
) -> Iterator[tuple[FakeRing, RingBuffer]]:
    """Give a ring and a reader of it."""
    fake = FakeRing(Layout(lanes, slots, record_size), start)
    reader = RingBuffer(fake.records, fake.lanes, fake.layout)
    try:
        yield fake, reader
    finally:
        reader.close()
        fake.close()


def records(rows: Words, record_size: int) -> list[bytes]:
    """Return records without the bytes that fill them up to a multiple of 8."""
    return [row.tobytes()[:record_size] for row in rows]


def waiting(reader: RingBuffer) -> list[int]:
    """Return how many records wait in each lane."""
    return [waiting for waiting, _ in reader.look()]


def numbered(number: int, size: int) -> bytes:
    """Return a record that no other equals, each byte different from its neighbours."""
    return bytes((number * 7 + index * 3) % 256 for index in range(size))


LANES = 4
steps = st.lists(
    st.tuples(st.lists(st.integers(0, LANES - 1), max_size=40), st.integers(1, 50)), max_size=8
)


@settings(max_examples=60)
@given(steps, st.integers(1, 40), st.integers(1, 200), st.integers(0, 1 << 40))
def test_every_record_is_read_once_and_in_the_order_of_its_lane(
    pattern: list[tuple[list[int], int]], slots: int, record_size: int, start: int
) -> None:
    """Write to lanes until they are full, read some of each, and again."""
    with rings(slots, record_size, LANES, start) as (fake, reader):
        expected: list[deque[bytes]] = [deque() for _ in range(LANES)]
        number = 0
        for writers, limit in pattern:
            for lane in writers:
                if fake.has_room(lane):
                    expected[lane].append(numbered(number, record_size))
                    fake.append(numbered(number, record_size), lane)
                    number += 1
            assert waiting(reader) == [len(lane) for lane in expected]
            for lane, left in enumerate(expected):
                found = records(reader.read(lane, limit), record_size)
                assert found == [left.popleft() for _ in found]
                assert len(found) <= limit
                assert found or not left
        while any(waiting(reader)):
            for lane, left in enumerate(expected):
                found = records(reader.read(lane, slots), record_size)
                assert found == [left.popleft() for _ in found]
        assert not any(expected)


def test_lanes_lie_side_by_side_and_do_not_overlap() -> None:
    with rings(10, 8, LANES) as (fake, reader):
        assert fake.table["first"].tolist() == [0, 10, 20, 30]
        for lane in range(LANES):
            for number in range(10):
                fake.append(bytes([lane, number, *bytes(6)]), lane)
            assert not fake.has_room(lane)
        for lane in range(LANES):
            expected = [bytes([lane, number, *bytes(6)]) for number in range(10)]
            assert records(reader.read(lane, 10), 8) == expected


def test_an_empty_ring() -> None:
    with rings(100, 16) as (_, reader):
        assert reader.read(0, 10).shape == (0, 2)
        assert (waiting(reader), reader.fill_level()) == ([0], 0.0)


def test_a_read_ends_at_the_end_of_its_lane() -> None:
    with rings(4, 8, start=3) as (fake, reader):
        for number in range(4):
            fake.append(numbered(number, 8))
        assert records(reader.read(0, 10), 8) == [numbered(0, 8)]
        assert records(reader.read(0, 10), 8) == [numbered(number, 8) for number in (1, 2, 3)]


def test_no_more_than_a_chunk_at_once() -> None:
    count = CHUNK + 100
    with rings(1 << 14, 8) as (fake, reader):
        for number in range(count):
            fake.append(number.to_bytes(8, "little"))
        assert reader.read(0, count)[:, 0].tolist() == list(range(CHUNK))
        assert waiting(reader) == [100]
        assert reader.read(0, count)[:, 0].tolist() == list(range(CHUNK, count))


def test_fill_level_is_the_share_of_all_lanes() -> None:
    with rings(8, 248, lanes=2) as (fake, reader):
        for _ in range(8):
            fake.append(bytes(248), 1)
        assert reader.fill_level() == 0.5


def test_who_is_about_to_write_is_seen() -> None:
    with rings(8, 8, lanes=2) as (fake, reader):
        fake.table["writers"][1] = 1
        assert reader.look() == [(0, False), (0, True)]


@pytest.mark.parametrize("count", [1, 2])
def test_rows_are_copies(count: int) -> None:
    """Once its room is given back, the kernel may overwrite a record, and the ring be unmapped."""
    with rings(16, 8) as (fake, reader):
        for _ in range(count):
            fake.append(b"to keep.")
        rows = reader.read(0, count)
        while fake.has_room():
            fake.append(b"another.")
        assert records(rows, 8) == [b"to keep."] * count
    assert records(rows, 8) == [b"to keep."] * count
