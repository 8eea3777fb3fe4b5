"""How long BPF programs run: the kernel measures it while somebody asks for it."""

from __future__ import annotations

import ctypes
import os

from tcprism.kernel.uprobe import NR_BPF

_ENABLE_STATS = 32  # enum bpf_cmd, 5.8+; BPF_STATS_RUN_TIME is 0

_library = ctypes.CDLL(None, use_errno=True)


def measure() -> int:
    """Have the kernel measure all programs until the returned descriptor is closed.

    Needs CAP_SYS_ADMIN. Raises OSError.
    """
    attributes = ctypes.c_uint32(0)
    descriptor: int = _library.syscall(NR_BPF, _ENABLE_STATS, ctypes.byref(attributes), 4)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "BPF_ENABLE_STATS")
    return descriptor
