"""How long BPF programs run: the kernel measures it while somebody asks for it.

To measure one run costs as much as a small program itself, so only samples are measured.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from tcprism.kernel import confinement
from tcprism.kernel.uprobe import NR_BPF

_OBJ_GET_INFO, _ENABLE_STATS = 15, 32  # enum bpf_cmd, 5.8+; BPF_STATS_RUN_TIME is 0
_SAMPLE, _EVERY = 0.02, 1.0  # seconds
_SAMPLES = struct.Struct("<QQ")  # ns: how long was measured, how long programs ran then
_NOBODY = (65534, 65534)

# What the child still does, arch/x86/entry/syscalls/syscall_64.tbl.
_CALLS = {
    "read": 0,
    "close": 3,
    "poll": 7,
    "mmap": 9,
    "munmap": 11,
    "brk": 12,
    "rt_sigreturn": 15,
    "madvise": 28,
    "futex": 202,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
}

_library = ctypes.CDLL(None, use_errno=True)


def _measure() -> int:
    """Have the kernel measure all programs until the returned descriptor is closed.

    Needs CAP_SYS_ADMIN. Raises OSError.
    """
    attributes = ctypes.c_uint32(0)
    descriptor: int = _library.syscall(NR_BPF, _ENABLE_STATS, ctypes.byref(attributes), 4)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "BPF_ENABLE_STATS")
    return descriptor


class RunTime:
    """Has the kernel measure 20 ms of each second, from a child that can do nothing else.

    The child keeps CAP_SYS_ADMIN for that, listens to nobody and ends with this process. `run_ns`
    returns how long `programs`, which are descriptors, have run while measured. Others may have the
    kernel measure, too, at other times. Raises OSError where it does not measure, or not for us.
    """

    def __init__(self, run_ns: Callable[[], int], programs: Iterable[int]) -> None:
        os.close(_measure())
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)  # struct _SAMPLES
        theirs, self._ours = os.pipe()
        self._child = os.fork()
        if not self._child:
            try:
                _sample(theirs, self._shared, run_ns, programs)
            finally:
                os._exit(0)
        os.close(theirs)
        self._total_ns = 0.0
        self._before = time.monotonic_ns(), 0, 0

    def seconds(self) -> float:
        """Return how long programs have run in all, as far as the samples tell."""
        at, measured_before, ran_before = self._before
        measured, ran = _SAMPLES.unpack_from(self._shared)
        if measured > measured_before:
            now = time.monotonic_ns()
            share = (now - at) / (measured - measured_before)
            self._total_ns += (ran - ran_before) * share
            self._before = now, measured, ran
        return self._total_ns / 1e9

    def close(self) -> None:
        """End the child."""
        os.close(self._ours)
        os.waitpid(self._child, 0)


def _sample(
    parent: int, shared: mmap.mmap, run_ns: Callable[[], int], programs: Iterable[int]
) -> None:
    """Measure again and again until the other end of a pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in {*map(int, os.listdir("/proc/self/fd"))} - {parent, *programs}:
        with suppress(OSError):
            os.close(descriptor)
    user = None if os.geteuid() else _NOBODY
    confinement.drop_capabilities(user, (confinement.CAP_SYS_ADMIN,))
    confinement.restrict_files((), (), ())
    confinement.allow_system_calls(_CALLS.values(), (_OBJ_GET_INFO, _ENABLE_STATS))
    ended = select.poll()
    ended.register(parent, select.POLLIN)
    measured = ran = 0
    while not ended.poll((_EVERY - _SAMPLE) * 1000):
        descriptor = _measure()
        began, before = time.monotonic_ns(), run_ns()
        time.sleep(_SAMPLE)
        ran += run_ns() - before
        measured += time.monotonic_ns() - began
        os.close(descriptor)
        _SAMPLES.pack_into(shared, 0, measured, ran)
