"""Which paths lead to the same file: a function probed twice would be counted twice."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_MOUNT = re.compile(rb"^mnt_id:\t([0-9]+)$", re.M)


@dataclass(frozen=True, slots=True)
class Identity:
    """A file, as stat() and the type of its mount tell; sizes in bytes, times in ns.

    Each mount of an overlayfs, as each container has one, gives a file of an image a device number
    of its own. The inode number, at least its lower half, and the time when the content changed are
    those of the one file below, at which the kernel attaches a uprobe (d_real_inode()).
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    overlay: bool

    @property
    def place(self) -> tuple[int, int]:
        """Return the device and the inode number."""
        return self.device, self.inode

    def same_as(self, other: Identity) -> bool:
        """Say whether both are the same file, provided that one of them has not been deleted since.

        A probe keeps a file, and so its inode number, even if its name is deleted.
        """
        if self.place == other.place:
            return True
        return (self.overlay or other.overlay) and self._content() == other._content()

    def _content(self) -> tuple[int, int, int]:
        return self.inode & 0xFFFFFFFF, self.size, self.modified_ns


def identify(descriptor: int, pid: int | None) -> Identity:
    """Return what an open file is, opened by a path of this process or, without one, of our own."""
    about = os.fstat(descriptor)
    return Identity(
        about.st_dev,
        about.st_ino,
        about.st_size,
        about.st_mtime_ns,
        _mount_type(descriptor, pid) == b"overlay",
    )


def _mount_type(descriptor: int, pid: int | None) -> bytes | None:
    """Return the type of the file system through which a file was opened; None if unknown."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            mount = _MOUNT.search(file.read())
        with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
            mounts = file.read()
    except OSError:
        return None
    if not mount:
        return None
    # The kernel escapes spaces in names, so " - " is what separates the fields.
    line = re.search(rb"^%b .* - ([^ ]+) " % mount[1], mounts, re.M)
    return line[1] if line else None
