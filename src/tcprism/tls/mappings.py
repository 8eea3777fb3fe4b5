"""Files that running processes execute code of, from /proc/PID/maps."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tcprism.events.escape import escape

MOST_FILES = 4096  # of a process that are examined; browsers have hundreds
TOO_MANY = f"more than {MOST_FILES} files"

# Only what may be executed and has a file: the kernel writes 0 as the inode of all else.
_LINE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +(.*)$", re.M
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A file that a process maps to execute code; `device` and `inode` as in its maps.

    An inode number is used again for another file, with another `generation`, where that is known.
    """

    pid: int
    start: int
    end: int
    device: int
    inode: int
    raw_name: bytes
    generation: int = 0

    @property
    def name(self) -> str:
        """Return the path as the process sees it, escaped."""
        return escape(self.raw_name)

    def paths(self) -> Iterator[tuple[bytes, bool]]:
        """Return paths that may open the file from here, and whether it must be compared.

        The last needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. It is the mapped file itself, even
        if it was deleted or its name holds what the kernel writes otherwise.
        """
        yield self.raw_name, True
        yield b"/proc/%d/root%b" % (self.pid, self.raw_name), True
        yield b"/proc/%d/map_files/%x-%x" % (self.pid, self.start, self.end), False


def executable_mappings(pid: int) -> list[Mapping]:
    """Return one mapping for each file of a process. Raises OSError."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        text = file.read()
    found: dict[tuple[int, int], Mapping] = {}
    for line in _LINE.finditer(text):
        start, end, major, minor = (int(number, 16) for number in line.groups()[:4])
        device, inode = os.makedev(major, minor), int(line[5])
        found.setdefault((device, inode), Mapping(pid, start, end, device, inode, line[6]))
    return list(found.values())


def running() -> Iterable[int]:
    """Return the pids of all processes, kernel threads too."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open to read, and the path that opened it."""

    descriptor: int
    about: os.stat_result
    path: bytes


@contextmanager
def open_file(path: bytes) -> Iterator[OpenFile]:
    """Open a file. Raises OSError, also if it is a device or the like: opening one may act."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        about = os.fstat(place)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("not a file")
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        yield OpenFile(descriptor, about, path)
    finally:
        os.close(descriptor)


@contextmanager
def open_mapping(mapping: Mapping) -> Iterator[OpenFile]:
    """Open the file that a process maps. Raises OSError."""
    with ExitStack() as stack:
        for path, compare in mapping.paths():
            try:
                file = stack.enter_context(open_file(path))
            except OSError:
                continue
            found = file.about.st_dev, file.about.st_ino
            if not compare or found == (mapping.device, mapping.inode):
                yield file
                return
        raise OSError("cannot read")
