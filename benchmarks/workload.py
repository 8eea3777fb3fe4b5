"""Traffic over loopback in a network namespace of its own, on a CPU of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.build import native_program

PORT = 7
WORKLOAD_CPU = 0
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
    """What a workload did, by its own account: `sends` and `receives` are calls that returned."""

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


@dataclass(frozen=True, slots=True)
class Netns:
    """A network namespace with its loopback up."""

    name: str

    @property
    def inode(self) -> int:
        """The number by which a filter knows it."""
        return os.stat(f"/run/netns/{self.name}").st_ino

    def command(self, *command: str) -> list[str]:
        """Return the command that runs a command inside."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def run(self, name: str, seconds: float, size: int = 64, events_a_second: int = 0) -> Done:
        """Run a workload, by its name in NAMES, on WORKLOAD_CPU."""
        pinned = ["taskset", "-c", str(WORKLOAD_CPU)]
        if not events_a_second:  # one that is paced sleeps, and keeps nobody waiting
            pinned = ["chrt", "-f", str(_REAL_TIME), *pinned]
        program = str(native_program("workload"))
        arguments = [NAMES[name], str(seconds), str(PORT), str(size), str(events_a_second)]
        output = subprocess.run(
            self.command(*pinned, program, *arguments), check=True, capture_output=True, text=True
        ).stdout.split()
        return Done(
            int(output[0]), float(output[1]), float(output[2]), int(output[3]), int(output[4])
        )


@contextmanager
def network_namespace() -> Iterator[Netns]:
    """Make a network namespace; remove it at the end."""
    netns = Netns(f"tcprism-bench-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", netns.name], check=True)
    try:
        subprocess.run(netns.command("ip", "link", "set", "lo", "up"), check=True)
        ports = "net.ipv4.ip_local_port_range=1024 65535"
        subprocess.run(netns.command("sysctl", "-qw", ports), check=True)
        yield netns
    finally:
        subprocess.run(["ip", "netns", "delete", netns.name], check=True)
