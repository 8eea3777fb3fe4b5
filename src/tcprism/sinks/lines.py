"""What the line formats share: texts of whole columns, and lines put in time order.

A line is joined from fragments, a list of strings a column: joining strings costs a fifth of
formatting them, and texts that repeat (who talks to whom) are made once and looked up.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.memory import keep_freed_memory
from tcprism.sinks import Sink

Render = Callable[[Part], Iterable[str]]
Key = TypeVar("Key")

NANOSECONDS = 1_000_000_000

# A text of an identity takes up to a kilobyte in JSON; the others are short, but there is a cache a
# column.
IDENTITIES = 1 << 14
CACHE_ENTRIES = 1 << 12
EVENTS_AT_ONCE = 2048  # keeps the fragments in the processor's cache
LINES_AT_ONCE = 128
PAYLOAD_BYTES_AT_ONCE = 1 << 20  # keeps memory small when payloads are long

# From the socket to the address family a record says who talks to whom, byte after byte.
IDENTITY_FIRST, IDENTITY_LAST = "socket", "family"


class Memo(dict[Key, str], Generic[Key]):
    """A function's texts, remembered; emptied when it has grown too large."""

    def __init__(self, function: Callable[[Key], str]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, key: Key) -> str:
        if len(self) >= CACHE_ENTRIES:
            self.clear()
        text = self[key] = self.function(key)
        return text

    def texts(self, keys: Iterable[Key]) -> list[str]:
        """Return each key's text."""
        return list(map(self.__getitem__, keys))


class SecondTexts(Memo[int]):
    """Seconds since the epoch as text, in local time or UTC."""

    def __init__(self, form: str, *, local: bool) -> None:
        convert = time.localtime if local else time.gmtime
        super().__init__(lambda second: time.strftime(form, convert(second)))


class TimeOfDay:
    """Moments of CLOCK_MONOTONIC in nanoseconds as the local time of day, to the microsecond."""

    def __init__(self) -> None:
        self._seconds = SecondTexts("%H:%M:%S", local=True)

    def begin(self, moments: NDArray[np.uint64], clock_offset_ns: int) -> LineBuilder:
        """Return lines that begin with the times."""
        since_epoch = moments.astype(np.int64) + clock_offset_ns
        line = LineBuilder()
        line.texts(self._seconds.texts((since_epoch // NANOSECONDS).tolist()))
        line.text(".")
        line.texts(digits(since_epoch % NANOSECONDS // 1000, 6))
        return line


class LineBuilder:
    """Lines in the making: fixed texts and columns of texts, in the order of the line."""

    def __init__(self) -> None:
        self._fragments: list[Iterable[str]] = []
        self._text = ""

    def text(self, text: str) -> None:
        """Go on with a text that is the same in all lines."""
        self._text += text

    def texts(self, texts: Iterable[str]) -> None:
        """Go on with one text for each line."""
        if self._text:
            self._fragments.append(repeat(self._text))
        self._fragments.append(texts)
        self._text = ""

    def lines(self) -> list[str]:
        """Return the lines; there is at least one column of texts."""
        if self._text:
            self._fragments.append(repeat(self._text))
        return list(map("".join, zip(*self._fragments, strict=False)))


def digits(values: NDArray[np.int64], width: int) -> list[str]:
    """Return numbers below 10 ** width in decimal with leading zeros.

    NumPy makes an array of the characters; that costs a third of formatting each number.
    """
    characters = np.empty((len(values), width), np.uint32)
    rest = values.astype(np.uint32)
    for place in range(width - 1, -1, -1):
        quotient = rest // 10
        characters[:, place] = rest - quotient * 10
        rest = quotient
    characters += ord("0")
    texts: list[str] = characters.view(f"U{width}").ravel().tolist()
    return texts


class IdentityCache:
    """The texts that depend only on the identity of records, rendered once for each identity."""

    def __init__(self, render: Render) -> None:
        self.render = render
        self.known: dict[bytes, str] = {}

    def texts(self, part: Part) -> list[str]:
        """Return the text of each record."""
        keys = _identities(part)
        try:
            return list(map(self.known.__getitem__, keys))
        except KeyError:
            self._learn(part, keys)
            return list(map(self.known.__getitem__, keys))

    def _learn(self, part: Part, keys: list[bytes]) -> None:
        if len(self.known) + len(keys) > IDENTITIES:
            self.known.clear()
        rows = {key: index for index, key in enumerate(keys) if key not in self.known}
        new = part.take(np.fromiter(rows.values(), np.intp))
        self.known.update(zip(rows, self.render(new), strict=True))


def _identities(part: Part) -> list[bytes]:
    fields: Any = part.rows.dtype.fields
    start = fields[IDENTITY_FIRST][1]
    end = fields[IDENTITY_LAST][1] + fields[IDENTITY_LAST][0].itemsize
    view = np.dtype(
        {
            "names": ["identity"],
            "formats": [f"V{end - start}"],
            "offsets": [start],
            "itemsize": part.rows.itemsize,
        }
    )
    identities: list[bytes] = part.rows.view(view)["identity"].tolist()
    scopes = part.rows["scope_id"]
    if scopes.any():  # a field elsewhere in the record, and seldom there
        scoped = zip(identities, np.ascontiguousarray(scopes).view("V4").tolist(), strict=True)
        identities = list(map(b"".join, scoped))
    return identities


class LineSink(Sink):
    """Writes lines in time order to a binary file; a subclass says what they are."""

    header = ""

    def __init__(self, file: BinaryIO) -> None:
        keep_freed_memory()
        self._file = file
        self._begun = False

    @abstractmethod
    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events; `clock_offset_ns` is that of their batch."""

    def write(self, batch: Batch) -> None:
        """Write a batch in time order."""
        self._begin()
        write_lines(self._file, batch, self.lines)

    def close(self) -> None:
        """Write what the file still buffers."""
        self._begin()
        self._file.flush()

    def _begin(self) -> None:
        if not self._begun:
            self._file.write(self.header.encode("ascii"))
        self._begun = True


def write_lines(file: BinaryIO, batch: Batch, render: Callable[[Part, int], list[str]]) -> None:
    """Write a batch's lines in time order; `render` takes a part and the clocks' offset."""
    for piece in batch.split(_events_at_once(batch)):
        lines = [line for part in piece.parts for line in render(part, piece.clock_offset_ns)]
        ordered = list(map(lines.__getitem__, piece.permutation.tolist()))
        for start in range(0, len(ordered), LINES_AT_ONCE):
            file.write("".join(ordered[start : start + LINES_AT_ONCE]).encode("ascii"))
    file.flush()


def _events_at_once(batch: Batch) -> int:
    widths = [1, *(part.payload.shape[1] for part in batch.parts if part.payload is not None)]
    return min(EVENTS_AT_ONCE, PAYLOAD_BYTES_AT_ONCE // int(max(widths)))
