"""WebSocket (RFC 6455): what follows an upgrade of HTTP/1. Messages of either end, unanswered."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tcprism.protocols import REQUEST, Exchange, NotThisProtocol, Parser

_CONTINUATION, _CLOSE = 0, 8
_NAMES = {0: "", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_FINAL, _COMPRESSED, _RESERVED, _OPCODE = 0x80, 0x40, 0x30, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_CONTROL_MAX = 125
_CODE = struct.Struct(">H")
_SHORT, _LONG = 126, 127  # the length follows, in 2 or 8 bytes
_FAILED_CLOSE = range(1002, 3000)  # 1000 and 1001: done, going away


class Frame(NamedTuple):
    """A frame: `head` bytes, the mask included, and `length` bytes of payload."""

    opcode: int
    final: bool
    head: int
    length: int


class WebSocket(Parser):
    """Reads frames; `resource` is what was upgraded."""

    protocol = "websocket"

    def __init__(self, show_values: bool = False, resource: str = "") -> None:
        super().__init__(show_values)
        self._resource = resource
        self._begun: list[Exchange | None] = [None, None]  # messages in fragments, of each end
        self._size = [0, 0]  # bytes of them
        self._lost = [False, False]  # whether there may be fragments of what was not seen

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read the heads of frames, pass over the rest."""
        place = 0
        while place < len(data) and (frame := _frame(side, data, place)):
            end = place + frame.head + frame.length
            if frame.opcode == _CLOSE and frame.length and len(data) < place + frame.head + 2:
                break
            self._take(side, frame, at + place, at + end)
            if frame.opcode == _CLOSE and frame.length:
                self._closed(side, data, place + frame.head)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take whole frames only: two bytes of a payload may look like the start of one."""
        place = 0
        try:
            while place < len(data) and (frame := _frame(side, data, place)):
                place += frame.head + frame.length
        except NotThisProtocol:
            return -1
        return 0 if place == len(data) else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """A message with a gap in it ends nobody knows where."""
        self._lost[side] = True
        if message := self._begun[side]:
            message.gap = True
            self.done.append(message)
            self._begun[side] = None

    def ended(self, side: int, at: int) -> None:
        """Let go a message that was not sent to its end."""
        if message := self._begun[side]:
            self.done.append(message)
            self._begun[side] = None

    def pending(self) -> Iterator[Exchange]:
        """Yield the messages that have not been sent to their end."""
        return (message for message in self._begun if message)

    def _take(self, side: int, frame: Frame, begin: int, end: int) -> None:
        message = self._begun[side]
        if frame.opcode >= _CLOSE:
            self._finish(side, self._message(side, frame, begin), end)
            return
        if frame.opcode == _CONTINUATION:
            if message is None:
                self._unknown_fragment(side, frame)
                return
        elif message is not None:
            raise NotThisProtocol
        else:
            message = self._message(side, frame, begin)
            self._size[side], self._lost[side] = 0, False
        self._size[side] += end - begin
        if not frame.final:
            self._begun[side] = message
            return
        self._begun[side] = None
        self._finish(side, message, end)
        if side == REQUEST:
            message.request_bytes = self._size[side]
        else:
            message.response_bytes = self._size[side]

    def _message(self, side: int, frame: Frame, begin: int) -> Exchange:
        message = Exchange("websocket", _NAMES[frame.opcode], self._resource, answered=False)
        if side == REQUEST:
            message.begin = begin
        else:
            message.begin, message.response_begin = None, begin
        return message

    def _finish(self, side: int, message: Exchange, end: int) -> None:
        if side == REQUEST:
            message.end = end
        else:
            message.response_end = end
        self.done.append(message)

    def _unknown_fragment(self, side: int, frame: Frame) -> None:
        if not self._lost[side]:
            raise NotThisProtocol
        self._lost[side] = not frame.final

    def _closed(self, side: int, data: bytes, place: int) -> None:
        """Note the code of a close frame, the first of its payload; a client's is masked."""
        (code,) = _CODE.unpack_from(data, place)
        if side == REQUEST:
            code ^= _CODE.unpack_from(data, place - 4)[0]
        message = self.done[-1]
        message.status = str(code)
        message.failed = side != REQUEST and code in _FAILED_CLOSE


def _frame(side: int, data: bytes, place: int) -> Frame | None:
    """Return the frame whose head is at a place; None: it is not whole. Raises NotThisProtocol."""
    if len(data) < place + 2:
        return None
    first, second = data[place], data[place + 1]
    opcode, final = first & _OPCODE, bool(first & _FINAL)
    length, head = second & _LENGTH, 2
    if bool(second & _MASKED) != (side == REQUEST) or first & _RESERVED or opcode not in _NAMES:
        raise NotThisProtocol
    if opcode >= _CLOSE and (
        not final or length > _CONTROL_MAX or (length == 1 and opcode == _CLOSE)
    ):
        raise NotThisProtocol
    if first & _COMPRESSED and opcode not in (1, 2):
        raise NotThisProtocol
    if length >= _SHORT:
        size = 2 if length == _SHORT else 8
        least = _SHORT if length == _SHORT else 1 << 16
        head += size
        if len(data) < place + head:
            return None
        length = int.from_bytes(data[place + 2 : place + head], "big")
        if not least <= length < 1 << 63:
            raise NotThisProtocol
    if side == REQUEST:
        head += 4
    return Frame(opcode, final, head, length) if len(data) >= place + head else None
