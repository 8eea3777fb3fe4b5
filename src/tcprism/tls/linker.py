"""Libraries that the dynamic linker finds by name: programs started later will load them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import numpy as np

_CACHE = "/etc/ld.so.cache"
_FOLDERS = (b"/lib", b"/usr/lib", b"/usr/local/lib")
_LIBRARY = re.compile(rb"\.so(?:\.|\Z)")
_MAGIC = b"glibc-ld.so.cache1.1"  # since glibc 2.2; glibc up to 2.31 writes an older form before it
_MOST = 1 << 24
_HEADER_SIZE = 48
_ENTRY = np.dtype(
    [("flags", "<i4"), ("key", "<u4"), ("path", "<u4"), ("version", "<u4"), ("hwcap", "<u8")]
)


def linked_libraries(cache: str = _CACHE, folders: Iterable[bytes] = _FOLDERS) -> list[bytes]:
    """Return the paths in the linker's cache; without one, as with musl, of its usual folders."""
    try:
        with open(cache, "rb") as file:
            return _cached(file.read(_MOST))
    except OSError:
        return [path for folder in folders for path in _in_folder(folder)]


def _in_folder(folder: bytes) -> list[bytes]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if _LIBRARY.search(name)]


def _cached(data: bytes) -> list[bytes]:
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER_SIZE:
        return []
    table = data[start:]
    count = int.from_bytes(table[20:24], "little")
    count = min(count, (len(table) - _HEADER_SIZE) // _ENTRY.itemsize)
    entries = np.frombuffer(table, _ENTRY, count, _HEADER_SIZE)
    paths = (table[place : table.find(b"\0", place)] for place in entries["path"].tolist())
    return list(dict.fromkeys(path for path in paths if path.startswith(b"/")))
