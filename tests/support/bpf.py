"""A BPF program by itself: its verification, and runs without a hook (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_uint32

from tcprism.kernel import libbpf

_INFO_SIZE = 256  # more than struct bpf_prog_info, include/uapi/linux/bpf.h
_VERIFIED_INSNS = 216  # its offset there; 5.16+


class _TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts, libbpf's bpf.h."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run_syscall_program(descriptor: int, context: bytes) -> bytes:
    """Run a "syscall" program (5.14+) once with a context; return what it made of that.

    It runs in the calling thread, which other Python threads do not wait for.
    """
    return _run(descriptor, context)[1]


def run_raw_program(descriptor: int, argument: bytes) -> int:
    """Run a "raw_tp" program (5.10+) once, its argument the address of these bytes.

    Returns what it returned. It runs in the calling thread.
    """
    memory = ctypes.create_string_buffer(argument, len(argument))
    return _run(descriptor, ctypes.addressof(memory).to_bytes(8, "little"))[0]


def verified_instructions(descriptor: int) -> int:
    """Return how many instructions the verifier has followed; 0 where the kernel does not tell."""
    info, size = ctypes.create_string_buffer(_INFO_SIZE), c_uint32(_INFO_SIZE)
    libbpf.load().checked("bpf_obj_get_info_by_fd", descriptor, info, byref(size))
    told = size.value > _VERIFIED_INSNS
    return int.from_bytes(info.raw[_VERIFIED_INSNS : _VERIFIED_INSNS + 4], "little") if told else 0


def has_object(kind: str, identifier: int) -> bool:
    """Tell whether the kernel has a "prog", "map" or "link" with an id."""
    try:
        name = f"bpf_{kind}_get_fd_by_id"
        descriptor = libbpf.load().checked(name, c_uint32(identifier))
    except FileNotFoundError:
        return False
    os.close(descriptor)
    return True


def _run(descriptor: int, context: bytes) -> tuple[int, bytes]:
    memory = ctypes.create_string_buffer(context, len(context))
    options = _TestRunOptions(
        sz=ctypes.sizeof(_TestRunOptions),
        ctx_in=ctypes.addressof(memory),
        ctx_size_in=len(context),
    )
    libbpf.load().checked("bpf_prog_test_run_opts", descriptor, byref(options))
    return int(options.retval), memory.raw
