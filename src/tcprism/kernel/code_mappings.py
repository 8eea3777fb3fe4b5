"""Each file that a process maps to execute it, from now on: PERF_RECORD_MMAP2."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator

import numpy as np

from tcprism.errors import KernelRefused, PermissionMissing
from tcprism.tls.mappings import Mapping

_PERF_EVENT_OPEN = 298  # on x86-64
_FD_CLOEXEC = 8
_ALL_PROCESSES = _NO_GROUP = -1

# struct perf_event_attr, up to its fifth version (include/uapi/linux/perf_event.h).
_ATTRIBUTES = struct.Struct("<IIQQQQQ72x")
_TYPE_SOFTWARE, _COUNT_DUMMY = 1, 9
_EXCLUDE_KERNEL, _MMAP, _MMAP2 = 1 << 5, 1 << 8, 1 << 23

# struct perf_event_mmap_page: the first page; the ring follows, a power of two of pages.
_HEAD, _TAIL = 1024 // 8, 1032 // 8
_RING = 1 << 17  # as good as a hundred starts of programs

_RECORD = struct.Struct("<IHH")
_RECORD_LOST, _RECORD_MMAP2 = 2, 10
# pid, tid, address, length, page offset, device, inode and its generation, protection, flags
_MAPPING = struct.Struct("<IIQQQIIQQII")
_UNKNOWN_PIDS = (0, 0xFFFFFFFF)  # of a process outside our pid namespace


class CodeMappings:
    """Reports mappings on all CPUs. Raises PermissionMissing and KernelRefused when opened."""

    def __init__(self) -> None:
        self._buffers: list[mmap.mmap] = []
        self.lost = False
        try:
            for cpu in _online():
                self._buffers.append(_open(cpu))
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Mapping]:
        """Return what has come since the last call, pids as in our own namespace.

        Sets `lost` if not all found room.
        """
        found = []
        for buffer in self._buffers:
            for kind, data in _records(buffer):
                if kind == _RECORD_LOST:
                    self.lost = True
                elif kind == _RECORD_MMAP2:
                    found.append(_mapping(data))
        return [each for each in found if each.inode and each.pid not in _UNKNOWN_PIDS]

    def close(self) -> None:
        """End the reports."""
        for buffer in self._buffers:
            buffer.close()
        self._buffers.clear()


def _mapping(data: bytes) -> Mapping:
    pid, _, start, size, _, major, minor, inode, generation, *_ = _MAPPING.unpack_from(data)
    path = data[_MAPPING.size :].partition(b"\0")[0]
    return Mapping(pid, start, start + size, os.makedev(major, minor), inode, path, generation)


def _online() -> list[int]:
    """Return the numbers of the CPUs that are in use."""
    with open("/sys/devices/system/cpu/online") as file:
        ranges = [part.split("-") for part in file.read().split(",")]
    return [cpu for part in ranges for cpu in range(int(part[0]), int(part[-1]) + 1)]


def _open(cpu: int) -> mmap.mmap:
    attributes = _ATTRIBUTES.pack(
        _TYPE_SOFTWARE, _ATTRIBUTES.size, _COUNT_DUMMY, 0, 0, 0, _EXCLUDE_KERNEL | _MMAP | _MMAP2
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        ctypes.c_long(_PERF_EVENT_OPEN),
        attributes,
        ctypes.c_long(_ALL_PROCESSES),
        ctypes.c_long(cpu),
        ctypes.c_long(_NO_GROUP),
        ctypes.c_ulong(_FD_CLOEXEC),
    )
    if descriptor < 0:
        raise _refusal(ctypes.get_errno())
    try:
        return mmap.mmap(descriptor, mmap.PAGESIZE + _RING)  # which keeps the event open
    except OSError as error:
        raise _refusal(error.errno or errno.ENOMEM) from error
    finally:
        os.close(descriptor)


def _refusal(number: int) -> PermissionMissing | KernelRefused:
    what = "seeing which libraries programs load"
    if number in (errno.EACCES, errno.EPERM):
        return PermissionMissing(f"{what} needs CAP_PERFMON, run as root")
    return KernelRefused(f"{what} needs perf_event_open(), which fails: {os.strerror(number)}")


def _records(buffer: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Return the type and the rest of each record in a ring, and make room for more."""
    words = np.frombuffer(buffer, np.uint64, mmap.PAGESIZE // 8)
    head, tail = int(words[_HEAD]), int(words[_TAIL])
    if head == tail:
        return
    start, size = tail % _RING, head - tail
    data = buffer[mmap.PAGESIZE + start : mmap.PAGESIZE + min(start + size, _RING)]
    data += buffer[mmap.PAGESIZE : mmap.PAGESIZE + size - len(data)]
    words[_TAIL] = head
    place = 0
    while place < size:
        kind, _, length = _RECORD.unpack_from(data, place)
        yield kind, data[place + _RECORD.size : place + length]
        place += length
