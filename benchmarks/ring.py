"""How fast tcprism reads a ring, against C that copies each record out of a ring of the kernel's.

Both find their ring full of the same records, written by another CPU, and empty it in turns. Rows
are copies of the records as a table; parts are what the pipeline goes on with: merged by time and
counted.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.bpf import Programs
from benchmarks.build import PROGRAMS, bpf_object
from benchmarks.load import LOAD_CPU, MONITOR_CPU
from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_least
from tcprism.events import Batch
from tcprism.events._wire import MESSAGE, SEGMENT
from tcprism.events.ledger import Received
from tcprism.ring.buffer import CHUNK, Layout, RingBuffer, stride
from tcprism.ring.rings import DEFAULT_SIZE, Rings, entries
from tests.support.programs import compiled

FIXED = at_least(0.50, "{:.2f}")
WITH_PAYLOAD = at_least(0.65, "{:.2f}")
RECORDS = {
    "message_0": MESSAGE.itemsize,
    "segment": SEGMENT.itemsize,
    "message_64": MESSAGE.itemsize + 64,
    "message_256": MESSAGE.itemsize + 256,
    "message_2048": MESSAGE.itemsize + 2048,
}
_MOST_RECORDS = DEFAULT_SIZE // 8

Reader = Callable[[], tuple[int, int]]
"""Empties the ring and returns how many records it had, and the nanoseconds of CPU that took."""


def fill(programs: Programs, name: str) -> int:
    """Fill a ring from the other CPU; return how many records it took."""
    os.sched_setaffinity(0, {LOAD_CPU})
    task = _MOST_RECORDS.to_bytes(4, "little") + bytes(4)
    submitted = int.from_bytes(programs.test_run(f"fill_{name}", task)[4:8], "little")
    os.sched_setaffinity(0, {MONITOR_CPU})
    return submitted


@contextmanager
def c_reader(descriptor: int) -> Iterator[Reader]:
    """Have a C program that empties the ring when it is asked to."""
    command = [str(compiled(PROGRAMS / "ring_consumer.c")), str(descriptor), str(DEFAULT_SIZE)]
    with subprocess.Popen(
        command, pass_fds=[descriptor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked
        assert answered

        def read() -> tuple[int, int]:
            print(file=asked, flush=True)
            records, nanoseconds = answered.readline().split()
            return int(records), int(nanoseconds)

        yield read
        asked.close()


@contextmanager
def row_reader(programs: Programs, name: str, layout: Layout) -> Iterator[Reader]:
    """Empty the ring chunk by chunk into rows."""
    lanes = programs.map_descriptor(f"{name}_lanes")
    ring = RingBuffer(programs.map_descriptor(name), lanes, layout)

    def read() -> tuple[int, int]:
        start, records = time.thread_time_ns(), 0
        for lane in range(layout.lanes):
            while count := len(ring.read(lane, CHUNK)):
                records += count
        return records, time.thread_time_ns() - start

    yield read
    ring.close()


@contextmanager
def part_reader(programs: Programs, name: str, layout: Layout) -> Iterator[Reader]:
    """Empty the ring as the pipeline does at the end of a run."""
    rings = Rings({name: layout}, programs.map_descriptor)

    def read() -> tuple[int, int]:
        start, received = time.thread_time_ns(), Received()
        while parts := rings.drain():
            received.add(Batch(parts))
        return int(received.events.sum()), time.thread_time_ns() - start

    yield read
    rings.close()


def measure(programs: Programs, name: str, layout: Layout, rounds: int) -> list[list[float]]:
    """Return nanoseconds a record, a list of rounds for each reader: C, rows, parts."""
    kernels_own = f"ringbuf_{name}"
    figures: list[list[float]] = [[], [], []]
    with (
        c_reader(programs.map_descriptor(kernels_own)) as c,
        row_reader(programs, name, layout) as rows,
        part_reader(programs, name, layout) as parts,
    ):
        readers = (kernels_own, c), (name, rows), (name, parts)
        for number in range(rounds + 1):
            for figure, (ring, read) in zip(figures, readers, strict=True):
                submitted = fill(programs, ring)
                records, nanoseconds = read()
                if records != submitted:
                    raise AssertionError(f"{name}: {records} records of {submitted} were read")
                if number:  # the first maps the memory
                    figure.append(nanoseconds / records)
    return figures


def run(rounds: Rounds) -> None:
    """Print the table."""
    table = Table(
        "ring: CPU nanoseconds a record, median of rounds; the share of C's rate",
        ("ring", "bytes", "C copy", "rows", "of C", "target", "", "parts", "of C"),
    )
    layouts = {
        name: Layout(1, DEFAULT_SIZE // stride(size), size) for name, size in RECORDS.items()
    }
    with Programs(bpf_object("ring"), entries(layouts)) as programs:
        for name, size in RECORDS.items():
            figures = measure(programs, name, layouts[name], rounds.pick(3, 9, 27))
            c, rows, parts = map(median, figures)
            target = WITH_PAYLOAD if size > MESSAGE.itemsize + 8 else FIXED
            cells = f"{c:.1f}", f"{rows:.1f}", *target.cells(c / rows)
            table.add(name, str(size), *cells, f"{parts:.1f}", f"{c / parts:.2f}")
    table.print()
