"""A file for Arrow to write to, which may neither close it nor ask a pipe for its position."""

from __future__ import annotations

from typing import BinaryIO


class CountingFile:
    """Passes on what is written and counts it; `size` is the bytes so far."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        """Return how much was written."""
        return self.size

    def flush(self) -> None:
        """Hand over what is buffered."""
        self._file.flush()

    def close(self) -> None:
        """Leave the file open: it is not ours."""
        self._file.flush()
