"""Arrow's framing: a stream is handed to Arrow message by message, when sizes have been checked.

Arrow makes room for what a message declares, and a few bytes may declare terabytes. The layout is
that of the Arrow columnar format, version V5: "Encapsulated message format", Message.fbs; tables
and vectors are FlatBuffers.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from tcprism.errors import RecordingError

DEFAULT_MEMORY = 1 << 30
LIFT = "a larger --max-memory (in Python: max_memory) lifts that"

# What a batch may unpack to, as a share of the memory: it is there as columns and as records, and
# what is written of it is longer than both.
_SHARE = 10
_ROW_BYTES = 512  # a record and what comes beside it
_NOTE_BYTES = 40  # objects in memory for a byte of JSON

_CONTINUATION = 0xFFFFFFFF
_V5 = 4  # MetadataVersion
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3  # MessageHeader
_AT_ONCE = 1 << 20
_IMPOSSIBLE = 1 << 47  # bytes: what a process can address
_DAMAGED = "it is not a recording of tcprism's, or it is damaged"


class Framed:
    """A file as Arrow reads it: from each `read` come bytes of messages that fit into `memory`.

    Raises RecordingError when one does not, or makes no sense.
    """

    closed = False

    def __init__(self, file: BinaryIO, memory: int) -> None:
        self._file = file
        self._most = memory // _SHARE
        self._dictionaries: dict[int, int] = {}  # bytes, by number
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Tell Arrow that it may read."""
        return True

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer where a message ends."""
        if not self._ready:
            self._ready = memoryview(self._message())
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def rewind(self) -> None:
        """Begin again."""
        self._file.seek(0)
        self._dictionaries, self._ready = {}, memoryview(b"")

    def _message(self) -> bytes:
        """Return the next message, or what is there of it."""
        prefix = self._take(8)
        if len(prefix) < 8:
            return prefix
        mark, length = struct.unpack("<Ii", prefix)
        if mark != _CONTINUATION:
            raise RecordingError(_DAMAGED)
        self._check(_NOTE_BYTES * length)
        head = self._take(length)
        if len(head) < length or not length:
            return prefix + head
        try:
            body = self._body(head)
        except (struct.error, ValueError, IndexError) as error:
            raise RecordingError(_DAMAGED) from error
        return prefix + head + body

    def _body(self, head: bytes) -> bytes:
        message = _Table(head, _unsigned(head, 0))
        kind = message.number(1, "<B")
        if message.number(0, "<h") != _V5 or kind not in (_SCHEMA, _DICTIONARY, _RECORDS):
            raise ValueError
        size = message.number(3, "<q")
        self._check(size)
        body = self._take(size)
        if kind == _SCHEMA or len(body) < size:
            return body
        header = message.table(2)
        records = header if kind == _RECORDS else header.table(1)
        unpacked = records.unpacked(body)
        if kind == _DICTIONARY:  # stays in memory until another takes its place
            number = header.number(0, "<q")
            before = self._dictionaries.get(number, 0) if header.number(2, "<?") else 0
            self._dictionaries[number] = before + unpacked
        kept = sum(self._dictionaries.values())
        self._check(unpacked + kept + _NOTE_BYTES * len(head))
        return body

    def _check(self, size: int) -> None:
        if not 0 <= size < _IMPOSSIBLE:
            raise RecordingError(_DAMAGED)
        if size > self._most:
            raise RecordingError(
                f"it has a batch of {size / 1e6:,.0f} MB, more than {self._most / 1e6:,.0f}: {LIFT}"
            )

    def _take(self, size: int) -> bytes:
        """Read in pieces: a size that is declared is not yet there."""
        pieces = []
        while size and (piece := self._file.read(min(size, _AT_ONCE))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class _Table:
    """A table of a FlatBuffer: fields are found by their number. Raises struct.error."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._vtable = place - _number(data, place, "<i")
        self._slots = _number(data, self._vtable, "<H") // 2 - 2

    def _field(self, number: int) -> int:
        """Return where a field is, 0 for one that is not there."""
        if number >= self._slots:
            return 0
        offset = _number(self._data, self._vtable + 4 + 2 * number, "<H")
        return self._place + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        """Return a field that is a number; 0 is not written."""
        place = self._field(number)
        return _number(self._data, place, form) if place else 0

    def table(self, number: int) -> _Table:
        """Return a field that is a table."""
        place = self._field(number)
        if not place:
            raise ValueError
        return _Table(self._data, place + _unsigned(self._data, place))

    def pairs(self, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return a vector of structs that are two numbers each."""
        place = self._field(number)
        if not place:
            return np.zeros((0, 2), np.int64)
        place += _unsigned(self._data, place)
        count = _unsigned(self._data, place)
        return np.frombuffer(self._data, "<i8", 2 * count, place + 4).reshape(count, 2)

    def unpacked(self, body: bytes) -> int:
        """Return the bytes that a RecordBatch takes, its records included."""
        rows = [self.number(0, "<q"), *self.pairs(1)[:, 0].tolist()]
        buffers = self.pairs(2).tolist()
        if self._field(3):  # compressed
            sizes = [_unpacked_size(body, place, length) for place, length in buffers if length]
        else:
            sizes = [length for _, length in buffers]
        if min(rows) < 0 or min(sizes, default=0) < 0:
            raise ValueError
        return int(sum(sizes) + _ROW_BYTES * max(rows))


def _unpacked_size(body: bytes, place: int, length: int) -> int:
    """Return the size with which a compressed buffer begins; -1 says that it is not compressed."""
    size = _number(body, place, "<q")
    return length if size == -1 else size


def _unsigned(data: bytes, place: int) -> int:
    return _number(data, place, "<I")


def _number(data: bytes, place: int, form: str) -> int:
    if place < 0:
        raise ValueError
    return int(struct.unpack_from(form, data, place)[0])
