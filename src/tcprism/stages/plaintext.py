"""The plaintext of a connection with TLS: read by parsers as a stream of its own.

A library encrypts what a process writes in one call into records that follow each other in the
stream of TCP. So each call has a place in both, and what TCP did to the records happened to the
plaintext in them. None of it can be read before its record is there to the end (RFC 8446, section
5.2): a place in plaintext is the whole record.

Of sessions in memory, the places of what is sent and of what is received are found at different
times. What has none so far has the moments of the calls into the library.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tcprism.events import Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation
from tcprism.stages.ends import Connection, Placed
from tcprism.stages.timeline import MARKS_MAX, Timeline

_FIRST = 1  # offset of the first byte of plaintext
_NOWHERE = 1 << 62  # behind all that there is
_RECORD_MAX = 1 << 14  # bytes of plaintext, RFC 8446, section 5.1
_HELD_MAX = 16  # calls of an end that may prove the better one
_OVERHEAD_MAX = 256  # bytes that a record has more: header, nonce, padding, tag

Span = tuple[int, int]


class Call(NamedTuple):
    """A call into the library: at which end, and what `told` says of it with its record."""

    end: int
    received: bool
    told: tuple[int, int, int, int]  # seq, bytes, bytes of the records, bytes of payload
    part: Part
    row: int


class Places:
    """Where in the stream of TCP the plaintext of one direction is; in order of both."""

    __slots__ = ("_base", "at", "begun", "ends", "records")

    def __init__(self) -> None:
        self.at = _FIRST  # offset behind the latest byte
        self._base = _FIRST  # distance to `stream_offset`
        self.begun = False  # whether the first byte was seen
        self.ends: list[int] = []  # of plaintext
        self.records: list[tuple[int, int, int]] = []  # begin of plaintext, begin and end in TCP

    def go_on(self, stream_offset: int) -> None:
        """Go to where a call's plaintext begins: events of calls before it may have been lost.

        A session goes on with an account of its own in a forked process, or once it is known anew.
        """
        self.begun = self.begun or stream_offset == 0
        if self._base + stream_offset < self.at:
            self._base = self.at - stream_offset
        self.at = min(self._base + stream_offset, _NOWHERE)  # a recording may claim anything

    def add(self, size: int, begin: int, encrypted: int) -> None:
        """Take `size` bytes of plaintext from so many of TCP; 0: from those of the call before."""
        start, self.at = self.at, self.at + size
        if encrypted:
            self.records.append((start, begin, begin + encrypted))
            self.ends.append(self.at)
        elif self.ends and self.ends[-1] == start:
            self.ends[-1] = self.at
        if len(self.ends) > MARKS_MAX:
            middle = slice(MARKS_MAX // 4, MARKS_MAX // 2)
            del self.ends[middle], self.records[middle]

    def begin(self, offset: int) -> int:
        """Return where the record begins in which a byte is."""
        return self._record(offset)[0]

    def end(self, offset: int) -> int:
        """Return where the record ends in which the byte before an offset is."""
        return self._record(offset - 1)[1]

    def _record(self, offset: int) -> tuple[int, int]:
        place = bisect_right(self.ends, offset)
        if place == len(self.ends) or offset < self.records[place][0]:
            return _NOWHERE, _NOWHERE
        start, begin, end = self.records[place]
        count = -(-(self.ends[place] - start) // _RECORD_MAX)
        size, rest = divmod(end - begin - (self.ends[place] - start), max(count, 1))
        if count < 2 or rest or size > _OVERHEAD_MAX:
            return begin, end
        whole = _RECORD_MAX + size
        first = begin + (offset - start) // _RECORD_MAX * whole
        return first, min(first + whole, end)

    def forget(self, offset: int) -> int:
        """Forget what is before an offset; return what in TCP is not needed any more."""
        place = min(bisect_right(self.ends, offset), len(self.ends) - 1)
        if place < 0:
            return 0
        del self.ends[:place], self.records[:place]
        return self.records[0][1]


class Plaintext(Connection):
    """The plaintext of a connection, whose timelines and ends it shares.

    `in_memory`: the place of a call in the stream of TCP may be unknown, so calls are marked.
    """

    plain = False

    __slots__ = ("_begin", "_calls", "_held", "_told_by", "in_memory", "places")

    def __init__(self, carrier: Connection, begin: Callable[[], Conversation]) -> None:
        super().__init__(carrier.ends, begin())
        self._begin = begin
        self.views = carrier.views
        self.timelines = carrier.timelines
        self.in_memory = False
        self.places = (Places(), Places())
        self._calls = (Timeline(), Timeline())  # by offset in the plaintext, if it is in memory
        self._told_by = -1
        self._held: list[Call] | None = []

    def taken(self, call: Call) -> Sequence[Call]:
        """Return the calls to read next: those of the first end that shows some.

        A process reads a request before it writes the response, or the other way round; what the
        other end's process does may be seen in another order. But if a process was in a call when
        tracing began, it is not seen to read the request: then it only writes, and the other end is
        the first that both writes and reads. That end's calls are read from the beginning.
        """
        if self._told_by < 0:
            self._told_by = call.end
        if call.end == self._told_by:
            if call.received:
                self._held = None
            return (call,)
        if self._held is None:
            return ()
        self._held.append(call)
        held = self._held
        if not call.received and len(held) < _HELD_MAX:
            return ()
        self._held = None
        if not call.received or len(held) == 1:
            return ()
        self._told_by = call.end
        self.conversation, self.finished = self._begin(), []
        self.places = (Places(), Places())
        self.in_memory = False
        self._calls = (Timeline(), Timeline())
        return held

    def feed(self, side: int, begin: int, size: int, data: bytes, ts_ns: int) -> None:
        """Have plaintext read. If the other direction was seen from its begin, so is this."""
        direction = self.conversation.directions[side]
        if direction.at < 0 and self.places[1 - side].begun:
            direction.at = _FIRST
        self.conversation.feed(side, begin, size, data, ts_ns)

    def mark(self, side: int, what: int, moved: Span, moments: Span) -> None:
        """Take when a call that moved bytes began and returned, where TCP may not tell it.

        `what`: as marks are.
        """
        self.in_memory = True
        (begin, end), (began_ns, ts_ns) = moved, moments
        second = MICROSECONDS_UNKNOWN if what else began_ns
        calls = self._calls[side]
        (calls.read if what else calls.written).add(end, ts_ns, second, begin)

    def placed(self, exchange: Exchange) -> Placed:
        """Return an exchange with offsets of the timelines that its moments are in."""
        side = self.conversation.client
        begin, end, request = self._stretch(side, exchange.begin, exchange.end)
        answer, answer_end, response = self._stretch(
            1 - side, exchange.response_begin, exchange.response_end
        )
        placed = replace(
            exchange, begin=begin, end=end, response_begin=answer, response_end=answer_end
        )
        return placed, request, response

    def _stretch(
        self, side: int, begin: int | None, end: int | None
    ) -> tuple[int | None, int | None, Timeline]:
        """Return where a request or response is in TCP; in memory it may be among the calls."""
        places = self.places[side]
        first, last = _place(begin, places.begin), _place(end, places.end)
        missing = first == _NOWHERE or (last == _NOWHERE and end is not None and end <= places.at)
        if self.in_memory and missing:
            return begin, end, self._calls[side]
        return first, last, self.timelines[side]

    def shown(self, exchange: Exchange) -> Exchange:
        """Return an exchange with sizes of plaintext and, where known, offsets of TCP."""
        request, response = (self.places[self.conversation.client ^ role] for role in (0, 1))
        return replace(
            exchange,
            begin=_in_stream(exchange.begin, request),
            response_begin=_in_stream(exchange.response_begin, response),
            request_bytes=_size(exchange.request_bytes, exchange.begin, exchange.end),
            response_bytes=_size(
                exchange.response_bytes, exchange.response_begin, exchange.response_end
            ),
        )

    def end_in_tcp(self, side: int, offset: int) -> int:
        """Return where the record of the byte before an offset ends.

        What has come without a place, in memory or because events were lost, is over.
        """
        places = self.places[side]
        end = places.end(offset)
        return -1 if end == _NOWHERE and offset <= places.at else end

    def forget(self) -> None:
        """Forget the moments of bytes that no request needs any more."""
        for side, needed in enumerate(self.needed()):
            self.timelines[side].forget(self.places[side].forget(needed))
            self._calls[side].forget(needed)


def _place(offset: int | None, find: Callable[[int], int]) -> int | None:
    return None if offset is None else find(offset)


def _in_stream(offset: int | None, places: Places) -> int | None:
    """Return where the record of a byte begins; 0: that is not known."""
    begin = _place(offset, places.begin)
    return 0 if begin == _NOWHERE else begin


def _size(told: int | None, begin: int | None, end: int | None) -> int | None:
    if told is not None or begin is None or end is None:
        return told
    return end - begin
