"""The plaintext of a connection with TLS: read by parsers as a stream of its own.

A library encrypts what a process writes in one call into records that follow each other in the
stream of TCP. So each call has a place in both, and what TCP did to the records happened to the
plaintext in them. None of it can be read before its record is there to the end (RFC 8446, section
5.2): a place in plaintext is the whole record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace

from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation
from tcprism.stages.ends import Connection
from tcprism.stages.timeline import MARKS_MAX

_FIRST = 1  # offset of the first byte of plaintext that is seen
_NOWHERE = 1 << 62  # behind all that there is
_RECORD_MAX = 1 << 14  # bytes of plaintext, RFC 8446, section 5.1
_OVERHEAD_MAX = 256  # bytes that a record has more: header, nonce, padding, tag


class Places:
    """Where in the stream of TCP the plaintext of one direction is; in order of both."""

    __slots__ = ("at", "ends", "records")

    def __init__(self) -> None:
        self.at = _FIRST  # offset behind the latest byte
        self.ends: list[int] = []  # of plaintext
        self.records: list[tuple[int, int, int]] = []  # begin of plaintext, begin and end in TCP

    def add(self, size: int, begin: int, encrypted: int) -> None:
        """Take `size` bytes of plaintext from so many of TCP; 0: from those of the call before."""
        start, self.at = self.at, self.at + size
        if encrypted:
            self.records.append((start, begin, begin + encrypted))
            self.ends.append(self.at)
        elif self.ends:
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

    `joined`: whether each call's place in the stream of TCP is known. Where it is not, moments are
    those of the calls into the library.
    """

    plain = False

    __slots__ = ("_told_by", "joined", "places")

    def __init__(self, carrier: Connection, conversation: Conversation, joined: bool) -> None:
        super().__init__(carrier.ends, conversation)
        self.views = carrier.views
        if joined:
            self.timelines = carrier.timelines
        self.joined = joined
        self.places = (Places(), Places())
        self._told_by = -1

    def takes(self, end: int) -> bool:
        """Tell whether the plaintext is taken from an end: the first that shows some.

        A process reads a request before it writes the response, or the other way round; what the
        other end's process does may be seen in another order.
        """
        if self._told_by < 0:
            self._told_by = end
        return self._told_by == end

    def mark(self, side: int, what: int, end: int, ts_ns: int, began_ns: int) -> None:
        """Take the moments of a call, where those of TCP are not known; `what`: as marks are."""
        second = MICROSECONDS_UNKNOWN if what else began_ns
        self.timelines[side].marks[what].add(end, ts_ns, second)

    def in_tcp(self, exchange: Exchange) -> Exchange:
        """Return an exchange with offsets in the stream of TCP."""
        if not self.joined:
            return exchange
        request, response = (self.places[self.conversation.client ^ role] for role in (0, 1))
        return replace(
            exchange,
            begin=_place(exchange.begin, request.begin),
            end=_place(exchange.end, request.end),
            response_begin=_place(exchange.response_begin, response.begin),
            response_end=_place(exchange.response_end, response.end),
        )

    def shown(self, exchange: Exchange, placed: Exchange) -> Exchange:
        """Return an exchange with sizes of plaintext and, where known, offsets of TCP."""
        known = _in_stream if self.joined else _unknown
        return replace(
            placed,
            begin=_place(placed.begin, known),
            response_begin=_place(placed.response_begin, known),
            request_bytes=_size(exchange.request_bytes, exchange.begin, exchange.end),
            response_bytes=_size(
                exchange.response_bytes, exchange.response_begin, exchange.response_end
            ),
        )

    def end_in_tcp(self, side: int, offset: int) -> int:
        """Return where the record of the byte before an offset ends."""
        return self.places[side].end(offset) if self.joined else offset

    def forget(self) -> None:
        """Forget the moments of bytes that no request needs any more."""
        for places, timeline, needed in zip(
            self.places, self.timelines, self.needed(), strict=True
        ):
            before = places.forget(needed)
            timeline.forget(before if self.joined else needed)


def _place(offset: int | None, find: Callable[[int], int]) -> int | None:
    return None if offset is None else find(offset)


def _in_stream(offset: int) -> int:
    return 0 if offset == _NOWHERE else offset


def _unknown(_offset: int) -> int:
    return 0


def _size(told: int | None, begin: int | None, end: int | None) -> int | None:
    if told is not None or begin is None or end is None:
        return told
    return end - begin
