"""Whether a uprobe_multi link for one process sees all of its threads."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import threading
from contextlib import ExitStack
from functools import cache

from tcprism.kernel import uprobe

# include/uapi/linux/bpf.h
_MAP_CREATE, _PROG_LOAD = 0, 5
_ARRAY, _MMAPABLE, _KPROBE = 2, 1 << 10, 2
_INSTRUCTION = struct.Struct("<BBhi")
_MAP_VALUE = 0x20  # the source register: BPF_PSEUDO_MAP_VALUE, in the upper half of the byte


@cache
def sees_all_threads() -> bool:
    """Try a link for this process, from one of its threads; False: none can be made, either.

    Before 46ba0e49b642 (6.10, and updates of earlier kernels) it saw only the first thread.
    """
    try:
        return _is_seen_in_a_thread()
    except OSError:
        return False


def _is_seen_in_a_thread() -> bool:
    called = ctypes.CDLL(None).getppid
    path, offset = _place_of(ctypes.cast(called, ctypes.c_void_p).value or 0)
    with ExitStack() as stack:
        seen = uprobe.bpf(_MAP_CREATE, struct.pack("<IIIII", _ARRAY, 4, 8, 1, _MMAPABLE))
        stack.callback(os.close, seen)
        program = _load(seen)
        stack.callback(os.close, program)
        stack.callback(os.close, uprobe.link(program, path, [offset], False, os.getpid()))
        thread = threading.Thread(target=called)
        thread.start()
        thread.join()
        with mmap.mmap(seen, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ) as value:
            return value[0] != 0


def _load(seen: int) -> int:
    """Load a program that writes 1 into the map."""
    steps = (
        (0x18, 1 | _MAP_VALUE, 0, seen),  # r1 = its value
        (0, 0, 0, 0),
        (0x7A, 1, 0, 1),  # *(u64 *)r1 = 1
        (0xB7, 0, 0, 0),  # return 0
        (0x95, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in steps))
    license_text = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQIIQII16sII",
        _KPROBE, len(steps), ctypes.addressof(code), ctypes.addressof(license_text),
        0, 0, 0, 0, 0, b"sees_threads", 0, uprobe.TRACE_UPROBE_MULTI,
    )  # fmt: skip
    return uprobe.bpf(_PROG_LOAD, attributes)


def _place_of(address: int) -> tuple[bytes, int]:
    """Return the file that is mapped at an address, and the offset in it. Raises OSError."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            extent, _, offset, _, _, *path = line.split(maxsplit=5)
            begin, end = (int(each, 16) for each in extent.split(b"-"))
            if begin <= address < end and path:
                return path[0].rstrip(b"\n"), address - begin + int(offset, 16)
    raise OSError("no file is mapped there")
