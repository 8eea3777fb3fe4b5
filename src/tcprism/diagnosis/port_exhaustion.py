"""Local ports: how many of the ports for outgoing connections are taken, per network namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tcprism.errors import MachineError
from tcprism.events.names import address, endpoint
from tcprism.helpers import find_helper

NEARLY_ALL = 0.8
_TIME_WAIT = "06"  # as /proc/net/tcp has it
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """A destination that takes nearly all local ports of a network namespace."""

    netns: int
    remote: str
    taken: int
    waiting: int
    available: int

    def __str__(self) -> str:
        return (
            f"network namespace {self.netns}: {self.taken} of {self.available} local ports are"
            f" taken by connections to {self.remote}, {self.waiting} of them in TIME_WAIT"
        )


def exhausted(pids: Iterable[tuple[int, int]]) -> Iterator[Exhaustion]:
    """Yield what is short of ports; `pids` are namespaces and processes with a socket there.

    A namespace in which none of them lives cannot be looked at.
    """
    homes = {netns: pid for netns, pid in set(pids) if _lives_in(pid, netns)}
    for netns, pid in homes.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, MachineError):
            yield from _exhausted(netns, pid)


def _lives_in(pid: int, netns: int) -> bool:
    """Tell whether a process, and not only a socket that it has open, is in a namespace."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == netns
    except OSError:
        return False


def _exhausted(netns: int, pid: int) -> Iterator[Exhaustion]:
    first, last = _port_range(pid)
    taken: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for local, remote, state in _connections(pid):
        if first <= int(local.rpartition(":")[2], 16) <= last:
            taken[remote] += 1
            waiting[remote] += state == _TIME_WAIT
    available = last - first + 1
    for remote, count in taken.items():
        if count >= NEARLY_ALL * available:
            yield Exhaustion(netns, _endpoint(remote), count, waiting[remote], available)


def _port_range(pid: int) -> tuple[int, int]:
    """Return the first and the last port; the namespace's own are only shown inside it."""
    enter = (find_helper("nsenter"), "--net", "--target", str(pid))
    command = (*enter, find_helper("cat"), _RANGE)
    text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    first, last = map(int, text.split())
    return first, last


def _connections(pid: int) -> Iterator[tuple[str, str, str]]:
    """Yield local end, remote end and state of all connections, in the kernel's own hexadecimal."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), Path(f"/proc/{pid}/net/{name}").open() as file:
            next(file)
            for line in file:
                _, local, remote, state, *_ = line.split()
                yield local, remote, state


def _endpoint(text: str) -> str:
    """Return an end as people write it: each word of the address is in the processor's order."""
    words, _, port = text.partition(":")
    packed = b"".join(
        int(words[place : place + 8], 16).to_bytes(4, "little") for place in range(0, len(words), 8)
    )
    family = 4 if len(packed) == 4 else 6
    return endpoint(address(family, packed.rjust(16, b"\0")), int(port, 16))
