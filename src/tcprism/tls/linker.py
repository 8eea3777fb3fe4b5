"""Libraries that the dynamic linker finds by name: programs started later will load them."""

from __future__ import annotations

import numpy as np

_CACHE = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"  # since glibc 2.2; glibc up to 2.31 writes an older form before it
_MOST = 1 << 24
_HEADER_SIZE = 48
_ENTRY = np.dtype(
    [("flags", "<i4"), ("key", "<u4"), ("path", "<u4"), ("version", "<u4"), ("hwcap", "<u8")]
)


def cached_libraries(cache: str = _CACHE) -> list[bytes]:
    """Return the paths in the linker's cache; none where there is no cache (musl) or no glibc's."""
    try:
        with open(cache, "rb") as file:
            data = file.read(_MOST)
    except OSError:
        return []
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER_SIZE:
        return []
    table = data[start:]
    count = int.from_bytes(table[20:24], "little")
    count = min(count, (len(table) - _HEADER_SIZE) // _ENTRY.itemsize)
    entries = np.frombuffer(table, _ENTRY, count, _HEADER_SIZE)
    paths = (table[place : table.find(b"\0", place)] for place in entries["path"].tolist())
    return list(dict.fromkeys(path for path in paths if path.startswith(b"/")))
