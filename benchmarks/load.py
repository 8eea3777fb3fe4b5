"""Traffic over loopback, for some seconds, in a namespace of its own and on a CPU of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.build import PROGRAMS
from tests.support.netns import Netns, namespace
from tests.support.programs import compiled

PORT = 7
LOAD_CPU = 0
MONITOR_CPU = 1
_REAL_TIME = 1  # so that what else runs on the machine costs the workload nothing

NAMES = {
    "bulk": "bulk",
    "ping-pong": "pingpong",
    "connect/close": "connect",
    "200 connections": "many",
    "flood": "flood",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a load did, by its own account: `sends` and `receives` are calls that returned."""

    operations: int
    seconds: float
    cpu_seconds: float
    sends: int
    receives: int

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    @property
    def events(self) -> int:
        """Messages that a monitor should have seen."""
        return self.sends + self.receives


def put_load(netns: Netns, name: str, seconds: float, size: int = 64, rate: int = 0) -> Done:
    """Put a load, by its name in NAMES, on a namespace and LOAD_CPU.

    `rate` is events a second of "flood", connections a second of "connect/close"; 0: no limit.
    """
    pinned = ["taskset", "-c", str(LOAD_CPU)]
    if not rate:  # one that is paced sleeps, and keeps nobody waiting
        pinned = ["chrt", "-f", str(_REAL_TIME), *pinned]
    program = str(compiled(PROGRAMS / "load.c"))
    arguments = [NAMES[name], str(seconds), str(PORT), str(size), str(rate)]
    command = netns.command(*pinned, program, *arguments)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Done(int(output[0]), float(output[1]), float(output[2]), int(output[3]), int(output[4]))


@contextmanager
def load_namespace() -> Iterator[Netns]:
    """Make a namespace in which a load has ports enough; remove it at the end."""
    with namespace() as netns:
        netns.configure("net/ipv4/ip_local_port_range", "1024 65535")
        yield netns
