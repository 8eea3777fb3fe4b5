"""The cgroup v2 root, to which the packet programs are attached."""

from __future__ import annotations

import ctypes
import errno
import os
import time

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

_SHARE = 0.02  # of the time, for looks at all cgroups


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

    Needs CAP_DAC_READ_SEARCH; raises PermissionError without.
    """
    handle = _Handle(8, _FILEID_KERNFS, cgroup_id)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_PATH)
    if descriptor < 0:
        if ctypes.get_errno() == errno.EPERM:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return None
    try:
        path, top = (os.readlink(f"/proc/self/fd/{number}") for number in (descriptor, root))
    finally:
        os.close(descriptor)
    return "/" + path.removeprefix(top).lstrip("/")


class Paths:
    """From the id of a cgroup to its path, as `path_of`, if need be by a look at all cgroups.

    A cgroup's id is its inode. Raises BlockingIOError when it is too soon for another look.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, str] = {}
        self._next = 0.0

    def __call__(self, cgroup_id: int) -> str | None:
        """Return the path of a cgroup, None if it is gone."""
        if self._root < 0:
            return None
        try:
            return path_of(self._root, cgroup_id)
        except PermissionError:
            if cgroup_id not in self._known:
                self._look()
            return self._known.get(cgroup_id)

    def _look(self) -> None:
        begun = time.monotonic()
        if begun < self._next:
            raise BlockingIOError("all cgroups were looked at a moment ago")
        self._known = {
            os.fstat(descriptor).st_ino: path.removeprefix(".") or "/"
            for path, _, _, descriptor in os.fwalk(".", dir_fd=self._root)
        }
        now = time.monotonic()
        self._next = now + (now - begun) / _SHARE


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call that Python has no function for. Raises OSError."""
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "cgroup2")
    return result
