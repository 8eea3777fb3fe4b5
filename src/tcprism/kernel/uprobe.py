"""uprobe_multi links, by bpf(2) itself: libbpf has them only since 1.3."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import c_uint32, c_uint64

# include/uapi/linux/bpf.h
TRACE_UPROBE_MULTI = 48
_LINK_CREATE = 28
_RETURN = 1

NR_BPF = 321  # x86-64

_library = ctypes.CDLL(None, use_errno=True)


class _LinkCreate(ctypes.Structure):
    """union bpf_attr, link_create with uprobe_multi."""

    _fields_ = (
        ("prog_fd", c_uint32),
        ("target_fd", c_uint32),
        ("attach_type", c_uint32),
        ("link_flags", c_uint32),
        ("path", c_uint64),
        ("offsets", c_uint64),
        ("ref_ctr_offsets", c_uint64),
        ("cookies", c_uint64),
        ("cnt", c_uint32),
        ("flags", c_uint32),
        ("pid", c_uint32),
        ("reserved", c_uint32),
    )


def link(program: int, path: bytes, offsets: Sequence[int], returns: bool, pid: int = 0) -> int:
    """Attach a loaded program at offsets of a file; return the link.

    In all processes, or in one (see features.uprobe_pid). The link is a descriptor: to close it
    detaches. Raises OSError.
    """
    places = (c_uint64 * len(offsets))(*offsets)
    name = ctypes.create_string_buffer(path)
    attributes = _LinkCreate(
        prog_fd=program,
        attach_type=TRACE_UPROBE_MULTI,
        path=ctypes.addressof(name),
        offsets=ctypes.addressof(places),
        cnt=len(offsets),
        flags=_RETURN if returns else 0,
        pid=pid,
    )
    return bpf(_LINK_CREATE, bytes(attributes), os.fsdecode(path))


def bpf(command: int, attributes: bytes, about: str = "bpf") -> int:
    """Call bpf(2), which returns a descriptor. Raises OSError, about a file."""
    descriptor: int = _library.syscall(NR_BPF, command, attributes, len(attributes))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), about)
    return descriptor
