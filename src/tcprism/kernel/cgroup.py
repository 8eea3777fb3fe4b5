"""The cgroup v2 root, to which the packet programs are attached."""

from __future__ import annotations

import ctypes
import os

from tcprism.mounts import cgroup_roots

# struct file_handle of a kernfs directory: include/linux/exportfs.h, fs/kernfs/mount.c (5.5+).
_FILEID_KERNFS = 0xFE

# The same on every architecture: include/uapi/asm-generic/unistd.h.
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


def open_cgroup_root() -> int:
    """Return a descriptor of the cgroup v2 root, where it is mounted or from a mount of our own.

    Raises OSError when this kernel has no cgroup v2.
    """
    for root in cgroup_roots():
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return mount_detached()


def mount_detached() -> int:
    """Mount cgroup v2 at no path at all; the mount goes with the descriptor. Since 5.2.

    Raises OSError.
    """
    context = _syscall(_FSOPEN, b"cgroup2", _FSOPEN_CLOEXEC)
    try:
        _syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


class _Handle(ctypes.Structure):
    """struct file_handle with a kernfs id behind it."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("id", ctypes.c_uint64),
    )


def path_of(root: int, cgroup_id: int) -> str | None:
    """Return the path of a cgroup below the mounted root behind a descriptor; None if it is gone.

    Needs CAP_DAC_READ_SEARCH.
    """
    handle = _Handle(8, _FILEID_KERNFS, cgroup_id)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_PATH)
    if descriptor < 0:
        return None
    try:
        path, top = (os.readlink(f"/proc/self/fd/{number}") for number in (descriptor, root))
    finally:
        os.close(descriptor)
    return "/" + path.removeprefix(top).lstrip("/")


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call that Python has no function for. Raises OSError."""
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "cgroup2")
    return result
