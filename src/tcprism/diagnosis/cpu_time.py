"""CPU time: how long processes have run, from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from tcprism.features import machine


def cpu_times(pids: Iterable[int]) -> dict[int, int]:
    """Return the CPU time of processes in microseconds, all threads; those that are gone lack.

    So does everyone in a pid namespace, whose /proc has other ids than events.
    """
    if not machine.proc_is_of_host():
        return {}
    tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
    times = {}
    for pid in {*pids}:
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            times[pid] = (int(fields[11]) + int(fields[12])) * tick_us  # utime, stime: proc(5)
    return times
