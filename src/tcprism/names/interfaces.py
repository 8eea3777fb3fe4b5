"""Names of network interfaces, in any network namespace that has a process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tcprism.events.escape import escape


class Interfaces:
    """Reads an interface's name when it is first asked for.

    Only interfaces with an IPv6 address have one here: others are in no link-local connection.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], str | None] = {}

    def name(self, netns: int, index: int) -> str | None:
        """Return the name of the interface with an index in a network namespace (its inode)."""
        if (netns, index) not in self._names:
            self._names[netns, index] = None
            for process in _processes_in(netns):
                for number, name in _interfaces_of(process):
                    self._names[netns, number] = name
                break
        return self._names[netns, index]


def _processes_in(netns: int) -> Iterator[Path]:
    """Yield the /proc of processes that are in a network namespace, ours first."""
    for process in (Path("/proc/self"), *Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):  # it has just ended
            if os.stat(process / "ns/net").st_ino == netns:
                yield process


def _interfaces_of(process: Path) -> Iterator[tuple[int, str]]:
    """Yield index and name of each interface that a process has, from net/if_inet6."""
    with contextlib.suppress(OSError):
        for line in (process / "net/if_inet6").read_bytes().splitlines():
            fields = line.split(maxsplit=5)
            yield int(fields[1], 16), escape(fields[5])
