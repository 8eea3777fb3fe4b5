"""Archives in cpio's `newc` format, as the kernel unpacks them into its first file system."""

from __future__ import annotations

END = "TRAILER!!!"


def entry(
    name: str,
    data: bytes = b"",
    mode: int = 0o100755,
    device: tuple[int, int] = (0, 0),
    modified: int = 0,
) -> bytes:
    """Return one file, owned by root; `modified` in seconds since 1970."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, modified, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
