"""What this kernel offers to BPF programs, found by trying."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from tcprism.kernel import libbpf
from tcprism.kernel.types import kernel_types

# include/uapi/linux/bpf.h
_TASK_STORAGE = 29  # enum bpf_map_type
_CGROUP_SKB = 8  # enum bpf_prog_type
_CURRENT_TASK_UNDER_CGROUP = 37  # enum bpf_func_id
_PROG_TYPE_TRACING = 26
_TRACE_FENTRY = 24
_RETURN_ZERO = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])  # r0 = 0; exit


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts, as far as it is used."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


def fentry_error(function: str) -> OSError | None:
    """Return why the kernel refuses fentry on one of its functions, or None when it does not."""
    options = _LoadOptions(
        sz=ctypes.sizeof(_LoadOptions),
        expected_attach_type=_TRACE_FENTRY,
        attach_btf_id=kernel_types().function_id(function),
    )
    try:
        descriptor = libbpf.load().checked(
            "bpf_prog_load",
            _PROG_TYPE_TRACING,
            b"trial",
            b"GPL",
            _RETURN_ZERO,
            2,
            ctypes.byref(options),
        )
    except OSError as error:
        return error
    os.close(descriptor)
    return None


@cache
def has_task_storage() -> bool:
    """Tell whether this kernel has task storage, which came with 5.11."""
    return bool(libbpf.load().call("libbpf_probe_bpf_map_type", _TASK_STORAGE, None) == 1)


@cache
def packets_have_process() -> bool:
    """Tell whether a cgroup_skb program may ask for the current process (6.12 may, 6.1 not)."""
    asked = (_CGROUP_SKB, _CURRENT_TASK_UNDER_CGROUP, None)
    return bool(libbpf.load().call("libbpf_probe_bpf_helper", *asked) == 1)


@cache
def has_uprobe_multi() -> bool:
    """Tell whether this kernel has uprobe_multi links, which came with 6.6 (89ae89f53d20)."""
    return bool(kernel_types().function_id("bpf_uprobe_multi_link_attach"))
