"""What it costs to record a message out of several segments, against one out of a single buffer.

The programs run by themselves, without traffic, and write to rings that are emptied between rounds.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from statistics import median

from benchmarks.build import ROOT, bpf_object
from benchmarks.load import MONITOR_CPU
from benchmarks.rounds import Rounds
from benchmarks.table import Table
from tests.support.recorder import FLAT, USER_IOVEC, Recorder

TIMES = 1000  # messages a round: the rings have room for them
CASES = ((64, 1), (64, 2), (256, 1), (256, 3), (256, 16), (2000, 3), (16000, 3))


def _iovec(base: int, size: int, segments: int) -> ctypes.Array[ctypes.c_char]:
    each = size // segments
    ends = [(number + 1) * each for number in range(segments - 1)] + [size]
    starts = [0, *ends[:-1]]
    pairs = (struct.pack("=QQ", base + a, b - a) for a, b in zip(starts, ends, strict=True))
    raw = b"".join(pairs)
    return ctypes.create_string_buffer(raw, len(raw))


def _nanoseconds(recorder: Recorder, shape: int, base: int, segments: int, size: int) -> float:
    start = time.perf_counter_ns()
    recorder.run(shape, base, segments, 0, size, TIMES)
    spent = time.perf_counter_ns() - start
    if len(recorder.read()) != TIMES:
        raise AssertionError(f"{size} bytes: messages were lost, which is cheap")
    return spent / TIMES


def run(rounds: Rounds) -> None:
    """Print the table: the ratio is the median of those of each round."""
    os.sched_setaffinity(0, {MONITOR_CPU})
    table = Table(
        "messages out of several segments, against one buffer of the same bytes",
        ("bytes", "segments", "ns, one buffer", "ns, segments", "ratio"),
    )
    path = bpf_object("payload", ROOT / "tests/bpf/programs")
    recorder = Recorder(path, 16384, os.cpu_count() or 1, 256 << 20)
    for size, segments in CASES:
        memory = ctypes.create_string_buffer(size)
        base = ctypes.addressof(memory)
        iovec = _iovec(base, size, segments)
        flat, gathered = [], []
        for _ in range(rounds.pick(5, 25, 75)):
            flat.append(_nanoseconds(recorder, FLAT, base, 0, size))
            vector = ctypes.addressof(iovec)
            gathered.append(_nanoseconds(recorder, USER_IOVEC, vector, segments, size))
        ratio = median(b / a for a, b in zip(flat, gathered, strict=True))
        times = (f"{median(flat):.0f}", f"{median(gathered):.0f}")
        table.add(str(size), str(segments), *times, f"{ratio:.2f}")
    recorder.close()
    table.print()
