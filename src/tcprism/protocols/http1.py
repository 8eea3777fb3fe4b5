"""HTTP/1.0 and HTTP/1.1 (RFC 9112): strict order, bodies passed over by their length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tcprism.protocols import REQUEST, Exchange, Match, NotThisProtocol, Parser, Protocol
from tcprism.protocols.http2 import Http2
from tcprism.protocols.target import resource
from tcprism.protocols.websocket import WebSocket

HEAD_MAX = 65_536
_CACHED = 1_024  # longer heads are read each time
_FOR_EVER = 1 << 62

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{1,19}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.[01]\r?\n")
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,19}")
_VERSION = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")
_HEADER = re.compile(
    rb"\n(content-length|transfer-encoding|upgrade)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LONGEST_CHUNK_LINE = 4_096


class Head(NamedTuple):
    """What matters of a head: the body is `length` bytes, `chunked`, or told by neither."""

    method: str  # or the status
    target: bytes
    length: int | None
    chunked: bool
    upgrade: str


class Http1(Parser):
    """Reads HTTP/1."""

    protocol = "http"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._chunked: list[Exchange | None] = [None, None]  # whose body comes in chunks
        self._trailers = [False, False]
        self._until_close: Exchange | None = None
        self._begun: Exchange | None = None  # a request whose head is not whole yet

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read heads and the lines of chunks."""
        place, size = 0, len(data)
        while place < size:
            if self._chunked[side] is not None:
                used = self._chunk(side, data, place, at)
            else:
                used = self._head(side, data, place, at)
            if used == place:
                break
            place = used
            if self.successor or self.ended_here:
                break
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote: a body may have the same bytes."""
        self._chunked[side], self._trailers[side] = None, False
        line = _REQUEST_LINE if side == REQUEST else _STATUS_LINE
        return 0 if line.match(data) else -1

    def ended(self, side: int, at: int) -> None:
        """Take the end of a body that the end of the connection marks."""
        if side != REQUEST and self._until_close:
            self._until_close.response_end = at
            self.done.append(self._until_close)
            self._until_close = None

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet, or only a part of it."""
        for exchange in (self._chunked[1], self._until_close):
            if exchange and exchange.protocol:
                yield exchange
        yield from self.waiting
        if self._begun:
            yield self._begun

    def _head(self, side: int, data: bytes, place: int, at: int) -> int:
        end = _end_of_head(data, place)
        if end < 0:
            line = (_request_match, _response_match)[side](data[place : place + HEAD_MAX])
            if line is Match.NO or len(data) - place > HEAD_MAX:
                raise NotThisProtocol
            if side == REQUEST and (found := _REQUEST_LINE.match(data, place)):
                target = resource(found[2], self.show_values)
                self._begun = Exchange("http", found[1].decode(), target, at + place)
            return place
        head = (_short_head if end - place <= _CACHED else _any_head)(side, data[place:end])
        begin, end_at = at + place, at + end
        if side == REQUEST:
            return end + self._request(head, begin, end_at)
        return end + self._response(head, begin, end_at)

    def _request(self, head: Head, begin: int, end: int) -> int:
        self._begun = None
        exchange = Exchange("http", head.method, resource(head.target, self.show_values), begin)
        if len(self.waiting) == self.waiting.maxlen:
            raise NotThisProtocol
        self.waiting.append(exchange)
        if head.chunked:
            self._chunked[REQUEST] = exchange
            return 0
        length = head.length or 0
        exchange.end = end + length
        return length

    def _response(self, head: Head, begin: int, end: int) -> int:
        status = head.method
        if status[0] == "1" and status != "101":
            return 0  # interim: the response follows
        if not self.waiting:
            return self._unasked(head)
        exchange = self.waiting.popleft()
        exchange.response_begin, exchange.status = begin, status
        exchange.failed = status[0] == "5"
        if status == "101":
            return self._upgrade(exchange, head, end)
        if exchange.method == "CONNECT" and status[0] == "2":
            self.ended_here = True
            return self._finish(exchange, end, 0)
        if exchange.method == "HEAD" or status in ("204", "304"):
            return self._finish(exchange, end, 0)
        if head.chunked:
            self._chunked[1] = exchange
            return 0
        if head.length is None:
            self._until_close = exchange
            return _FOR_EVER
        return self._finish(exchange, end, head.length)

    def _unasked(self, head: Head) -> int:
        """Pass over the response to a request that was not seen; it may have been a HEAD."""
        if head.chunked:
            self._chunked[1] = Exchange("", "")
            return 0
        return head.length or 0

    def _finish(self, exchange: Exchange, end: int, length: int) -> int:
        exchange.response_end = end + length
        if exchange.end is None:  # answered before its body was all there
            exchange.end = exchange.begin
        self.done.append(exchange)
        return length

    def _upgrade(self, exchange: Exchange, head: Head, end: int) -> int:
        if head.upgrade == "h2c":
            exchange.response_begin, exchange.status = None, ""
            self.successor = Http2(self.show_values, exchange)
            return 0
        if head.upgrade == "websocket":
            self.successor = WebSocket(self.show_values, exchange.resource)
        else:
            self.ended_here = True
        return self._finish(exchange, end, 0)

    def _chunk(self, side: int, data: bytes, place: int, at: int) -> int:
        """Read the line before a chunk, and pass over the chunk; or the trailers."""
        if self._trailers[side]:
            return self._trailer(side, data, place, at)
        found = _CHUNK.match(data, place)
        if not found:
            if len(data) - place > _LONGEST_CHUNK_LINE:
                raise NotThisProtocol
            if data.find(b"\n", place) >= 0:
                raise NotThisProtocol
            return place
        size = int(found[1], 16)
        if size:
            return found.end() + size + 2
        self._trailers[side] = True
        return found.end()

    def _trailer(self, side: int, data: bytes, place: int, at: int) -> int:
        end = data.find(b"\n", place)
        if end < 0:
            return place
        if data[place:end].strip(b"\r"):
            return end + 1
        self._trailers[side] = False
        exchange, self._chunked[side] = self._chunked[side], None
        if exchange and exchange.protocol:
            if side == REQUEST:
                exchange.end = at + end + 1
            else:
                self._finish(exchange, at + end + 1, 0)
        return end + 1

    def lost(self, side: int, begin: int, end: int) -> None:
        """After missing bytes the order is not known; a body in chunks ends somewhere there."""
        for exchange in (self._chunked[1], self._until_close):
            if exchange and exchange.protocol:
                exchange.gap = True
                self.done.append(exchange)
        self._chunked, self._trailers = [None, None], [False, False]
        self._until_close = self._begun = None
        super().lost(side, begin, end)


def _end_of_head(data: bytes, place: int) -> int:
    """Return where a head ends: behind an empty line, whose end and the one before may be bare."""
    found = data.find(b"\n\r\n", place)
    bare = data.find(b"\n\n", place, found if found >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return found + 3 if found >= 0 else -1


def _any_head(side: int, head: bytes) -> Head:
    return _request(head) if side == REQUEST else _response(head)


_short_head = lru_cache(1024)(_any_head)  # most come again


def _request(head: bytes) -> Head:
    line = _REQUEST_LINE.match(head)
    if not line:
        raise NotThisProtocol
    return Head(line[1].decode(), line[2], *_body(head))


def _response(head: bytes) -> Head:
    line = _STATUS_LINE.match(head)
    if not line:
        raise NotThisProtocol
    return Head(line[1].decode(), b"", *_body(head))


def _body(head: bytes) -> tuple[int | None, bool, str]:
    length, chunked, upgrade = None, False, ""
    for name, value in _HEADER.findall(head):
        value = value.strip().lower()
        match name[:1].lower():
            case b"c":
                if not value.isdigit() or len(value) > 18:
                    raise NotThisProtocol
                length = int(value)
            case b"t":
                chunked = value.endswith(b"chunked")
            case _:
                upgrade = value.decode("ascii", "replace")
    return length, chunked, upgrade


def _request_match(data: bytes) -> Match:
    if _REQUEST_LINE.match(data):
        return Match.YES
    method, _, rest = data.partition(b" ")
    _, _, version = rest.partition(b" ")
    begun = len(data) < HEAD_MAX and _METHOD.fullmatch(method) and _VERSION.startswith(version[:7])
    return Match.MORE if begun and b"\n" not in data else Match.NO


def _response_match(data: bytes) -> Match:
    if _STATUS_LINE.match(data):
        return Match.YES
    begun = _VERSION.startswith(data[:7]) and b"\n" not in data and len(data) < HEAD_MAX
    return Match.MORE if begun else Match.NO


class Upgrades(Http1):
    """Reads only up to an upgrade, and nothing of what comes before it."""

    protocol = "websocket"

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read heads, and leave their requests out."""
        place = super().parse(side, data, at)
        self.done.clear()
        return place

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that bytes are missing."""
        super().lost(side, begin, end)
        self.done.clear()

    def ended(self, side: int, at: int) -> None:
        """Take note that a direction has ended."""
        super().ended(side, at)
        self.done.clear()

    def pending(self) -> Iterator[Exchange]:
        """Yield nothing."""
        return iter(())


HTTP1 = Protocol("http", Http1, _request_match, _response_match, alone=True)
WEBSOCKET = Protocol("websocket", Upgrades, _request_match, _response_match)  # HTTP1 finds both
