"""The lanes of a ring under contention: each record comes once and whole, or is counted as lost."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tcprism.events._wire import LANES_A_CPU, SEGMENT, EventKind
from tcprism.kernel.object import BpfObject
from tcprism.ring.buffer import Layout, RingBuffer, Words
from tests.support.bpf import run_syscall_program

RECORDS = 50_000  # by each writer
ALLOWED = sorted(os.sched_getaffinity(0))
CPUS = len(ALLOWED)


@contextmanager
def ring(path: Path, layout: Layout) -> Iterator[tuple[BpfObject, RingBuffer]]:
    """Load the program with a ring cut up like that."""
    with BpfObject(path) as bpf:
        entries = {"segment": layout.records, "segment_lanes": layout.lanes}
        bpf.configure({"last_lane": layout.lanes - 1}, entries)
        bpf.load()
        buffer = RingBuffer(bpf.map_fd("segment"), bpf.map_fd("segment_lanes"), layout)
        yield bpf, buffer
        buffer.close()


def read_all(buffer: RingBuffer) -> list[Words]:
    return [
        buffer.read(lane, waiting) for lane, (waiting, _) in enumerate(buffer.look()) if waiting
    ]


def write(
    bpf: BpfObject, buffer: RingBuffer, writers: int, read: bool = False, pause: int = 0
) -> list[Words]:
    """Have threads write at once, and read meanwhile or after; return the records as rows.

    With a `pause`, in rounds of an empty loop, writers stay longer in a lane.
    """
    descriptor = bpf.program_fd("write_records")
    start = threading.Barrier(writers)

    def work(writer: int) -> None:
        os.sched_setaffinity(0, {ALLOWED[writer % len(ALLOWED)]})
        start.wait()
        run_syscall_program(descriptor, struct.pack("=3I", writer, RECORDS, pause))

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    rows: list[Words] = []
    while read and any(thread.is_alive() for thread in threads):
        rows += read_all(buffer)
    for thread in threads:
        thread.join()
    while more := read_all(buffer):
        rows += more
    return rows


def counts(bpf: BpfObject) -> dict[str, int]:
    """Return the kernel's counters of the kind that the program writes."""
    counters = bpf.counters()[EventKind.TRANSMIT]
    return {name: int(counters[name]) for name in counters.dtype.names or ()}


def check(rows: list[Words], counted: dict[str, int], attempted: int) -> None:
    """Each record is whole and came once, and the kernel's counters account for all others."""
    words = np.concatenate([row[:, : SEGMENT.itemsize // 8] for row in rows])
    first = words[:, :1]
    assert (words == first + np.arange(words.shape[1], dtype=np.uint64)).all(), "a torn record"
    assert len(np.unique(first)) == len(first), "a record came twice"
    assert len(first) == counted["submitted"]
    assert counted["seen"] == attempted
    lost = counted["ring_full"] + counted["ring_busy"]
    assert counted["submitted"] + lost == attempted


@pytest.mark.parametrize("writers", [1, CPUS, 4 * CPUS])
def test_each_record_comes_once_and_whole(writers: int, compiled: Callable[[str], Path]) -> None:
    """More threads than CPUs: the kernel may preempt them while they are in a lane."""
    lanes = 1 << (LANES_A_CPU * CPUS - 1).bit_length()
    with ring(compiled("lanes"), Layout(lanes, 1 << 14, SEGMENT.itemsize)) as (bpf, buffer):
        rows = write(bpf, buffer, writers, read=True)
        check(rows, counts(bpf), writers * RECORDS)
        assert not any(writing for _, writing in buffer.look()), "a writer never left its lane"


@pytest.mark.skipif(len(ALLOWED) < 2, reason="needs two CPUs")
def test_writers_that_collide_are_counted_as_such(compiled: Callable[[str], Path]) -> None:
    """One lane, with room for all that two threads write: it is never full."""
    with ring(compiled("lanes"), Layout(1, 2 * RECORDS, SEGMENT.itemsize)) as (bpf, buffer):
        rows = write(bpf, buffer, 2, pause=1000)
        check(rows, counts(bpf), 2 * RECORDS)
        assert counts(bpf)["ring_busy"] > 0
        assert counts(bpf)["ring_full"] == 0


def test_a_lane_that_somebody_is_in(compiled: Callable[[str], Path]) -> None:
    with ring(compiled("lanes"), Layout(1, RECORDS, SEGMENT.itemsize)) as (bpf, buffer):
        buffer._writers[0] = 1
        assert write(bpf, buffer, 1) == []
        assert counts(bpf)["ring_busy"] == RECORDS


def test_a_ring_without_room(compiled: Callable[[str], Path]) -> None:
    with ring(compiled("lanes"), Layout(2, 10, SEGMENT.itemsize)) as (bpf, buffer):
        check(write(bpf, buffer, 1), counts(bpf), RECORDS)
        assert counts(bpf)["submitted"] == 20
        assert counts(bpf)["ring_busy"] == 0


def test_a_full_lane_beside_one_that_somebody_is_in(compiled: Callable[[str], Path]) -> None:
    """A larger ring would have had room."""
    with ring(compiled("lanes"), Layout(2, 10, SEGMENT.itemsize)) as (bpf, buffer):
        buffer._writers[0] = 1
        check(write(bpf, buffer, 1), counts(bpf), RECORDS)
        assert counts(bpf)["submitted"] == 10
        assert counts(bpf)["ring_full"] == RECORDS - 10
