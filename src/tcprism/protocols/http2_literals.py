"""Where literal values of headers are in messages of HTTP/2, and where bodies are."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcprism.protocols import Match, NotThisProtocol
from tcprism.protocols.hpack_literals import LONGEST, Literal, literals
from tcprism.protocols.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    FRAME,
    FRAME_SIZE,
    HEADERS,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    WITH_PRIORITY,
    fits,
    headers,
    response_match,
)

_BLOCKS = (HEADERS, PUSH_PROMISE, CONTINUATION)


def begins(data: bytes) -> bool:
    """Tell whether a message begins with a frame, and has one that shows that this is HTTP/2."""
    if data.startswith(PREFACE):
        return True
    if not data or data[0]:
        return False
    try:
        blocks = any(word & 0xFF == HEADERS for _, word, _, _ in headers(data))
    except NotThisProtocol:
        return False
    return blocks or response_match(data) is Match.YES


@dataclass
class Found:
    """What is in a message: literals at their places in it, bodies, and what nobody can tell."""

    literals: list[Literal] = field(default_factory=list)
    bodies: list[tuple[int, int]] = field(default_factory=list)
    unknown: list[tuple[int, int]] = field(default_factory=list)


class Http2Literals:
    """Reads one direction of a connection; the first message begins with a frame."""

    __slots__ = ("_ends", "_field", "_front", "_is_body", "_left", "_lost", "_skip")

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._front = b""  # of a frame, as far as it is there
        self._field = b""  # of a header block: a field that is not there to its end
        self._left = 0  # bytes to come of a header block's part in this frame
        self._skip = 0  # bytes to come of what is no header block
        self._is_body = self._ends = self._lost = False

    def read(self, data: bytes, missing: int) -> Found:
        """Return what is in a message, behind which `missing` bytes were not captured."""
        found = Found()
        amid = self._lost or self._skip or self._left or self._front
        if amid and begins(data):  # something was lost, or this looks like it
            self._restart()
        place = len(PREFACE) if data.startswith(PREFACE) else 0
        try:
            while place < len(data):
                if self._lost:
                    raise NotThisProtocol
                place = self._step(data, place, found)
        except NotThisProtocol:
            self._lost = True
            found.unknown.append((place, len(data)))
        self._pass_over(missing)
        return found

    def _pass_over(self, missing: int) -> None:
        self._lost = self._lost or missing > self._skip
        self._skip = max(self._skip - missing, 0)

    def _step(self, data: bytes, place: int, found: Found) -> int:
        """Take one piece of a message: (the rest of) what begins a frame, or of what follows."""
        if self._left:
            end = min(place + self._left, len(data))
            self._take_block(data[place:end], place, found)
            self._left -= end - place
            if not self._left and self._ends and self._field:
                raise NotThisProtocol
            return end
        if self._skip:
            end = min(place + self._skip, len(data))
            self._skip -= end - place
            if self._is_body:
                found.bodies.append((place, end))
            return end
        return self._take_front(data, place)

    def _take_block(self, data: bytes, at: int, found: Found) -> None:
        before = len(self._field)
        block = self._field + data
        if len(block) > LONGEST:
            raise NotThisProtocol
        self._field = b""
        for one in literals(block):
            if isinstance(one, int):
                self._field = block[one:]
            elif one.end > before:
                begin, end = max(one.begin, before), one.end
                found.literals.append(
                    one._replace(begin=begin - before + at, end=end - before + at)
                )

    def _take_front(self, data: bytes, place: int) -> int:
        """Take what comes before a frame's header block, or before all else that it has."""
        size = self._front_size()
        end = min(place + size - len(self._front), len(data))
        self._front += data[place:end]
        if len(self._front) == size == self._front_size():
            self._begin_frame()
        return end

    def _front_size(self) -> int:
        if len(self._front) < FRAME_SIZE:
            return FRAME_SIZE
        word, flags, _ = FRAME.unpack_from(self._front)
        kind = word & 0xFF
        size = FRAME_SIZE
        if kind in (HEADERS, PUSH_PROMISE):
            size += bool(flags & PADDED) + 5 * bool(flags & WITH_PRIORITY)
            size += 4 * (kind == PUSH_PROMISE)
        return size

    def _begin_frame(self) -> None:
        word, flags, stream = FRAME.unpack_from(self._front)
        if not fits(word, flags, stream):
            raise NotThisProtocol
        kind, left = word & 0xFF, (word >> 8) - (len(self._front) - FRAME_SIZE)
        padding = 0
        if kind in _BLOCKS:
            if flags & PADDED and kind != CONTINUATION:
                padding = self._front[FRAME_SIZE]
            if kind != CONTINUATION:
                self._field = b""
            self._left = left - padding
            self._ends = bool(flags & END_HEADERS)
            self._skip = padding
        else:
            self._skip = left
        if left < padding:
            raise NotThisProtocol
        self._is_body = kind == DATA
        self._front = b""
