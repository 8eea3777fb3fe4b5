"""Whether return probes in user space can kill a program that has a seccomp filter."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from functools import cache

from tcprism.kernel.types import kernel_types

_URETPROBE = 335  # the system call, on x86-64 alone
_FUNCTION = "__x64_sys_uretprobe"

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_MODE_FILTER = 2
_SEEN = 131  # an errno that means nothing here: ENOTRECOVERABLE
_ERRNO = 1  # any that tells the call from one that nothing filters
_INSTRUCTION = struct.Struct("<HBBI")  # of classic BPF, include/uapi/linux/filter.h


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@cache
def seccomp_sees_return_probes() -> bool:
    """Tell whether seccomp filters apply to the system call by which a return probe reports.

    Since 6.11 a return probe makes the traced program call uretprobe(), of which few filters know:
    the program is killed, or crashes. 6.14 lets the call pass (cf6cb56ef244), and so do updates of
    earlier kernels. Raises KernelRefused.
    """
    return bool(kernel_types().function_id(_FUNCTION)) and not passes_filters(_URETPROBE)


def passes_filters(number: int) -> bool:
    """Try uretprobe() in a child that filters it; one that no probe has caused ends in SIGILL."""
    child = os.fork()
    if not child:
        try:
            _call_filtered(number)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGILL


def _call_filtered(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGILL, signal.SIG_DFL)
    instructions = (
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, number),  # is it this one?
        (0x06, 0, 0, 0x0005_0000 | _ERRNO),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
    )
    code = b"".join(_INSTRUCTION.pack(*each) for each in instructions)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    program = _Program(len(instructions), code)
    libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program))
    libc.syscall(ctypes.c_long(number))
