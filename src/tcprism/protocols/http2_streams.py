"""Streams of HTTP/2: each is a request and its response, or a call of gRPC."""

from __future__ import annotations

from functools import lru_cache

from tcprism.protocols import REQUEST, RESPONSE, Exchange
from tcprism.protocols.grpc import is_grpc, status_name
from tcprism.protocols.hpack import (
    AUTHORITY,
    CONTENT_TYPE,
    GRPC_MESSAGE,
    GRPC_STATUS,
    METHOD,
    PATH,
    STATUS,
    UNKNOWN,
    Fields,
)
from tcprism.protocols.http2_frames import error_name
from tcprism.protocols.target import resource

_SHORT = 20  # bytes of a method or a status


class Stream:
    """One that is not over; `asked` and `answered` say whether an end has sent all."""

    __slots__ = ("_doubtful", "_ends", "_sizes", "_torn", "answered", "asked", "exchange")

    def __init__(self) -> None:
        self.exchange = Exchange("http2", "")
        self.asked = False
        self.answered = False
        self._doubtful = False  # the response may be among missing bytes
        self._torn = [False, False]  # something of it may be
        self._ends = [0, 0]  # of what was seen
        self._sizes = [0, 0]  # of its frames together

    @classmethod
    def upgraded(cls, exchange: Exchange) -> Stream:
        """Return the stream that answers a request of HTTP/1."""
        stream = cls()
        exchange.protocol = "http2"
        stream.exchange, stream.asked = exchange, True
        stream.add(REQUEST, exchange.begin or 0, exchange.end or 0)
        return stream

    def add(self, side: int, begin: int, end: int) -> None:
        """Count a frame."""
        self._ends[side] = end
        self._sizes[side] += end - begin

    def tear(self, side: int) -> None:
        """Take note that bytes are missing that may be of this stream."""
        if side == REQUEST:
            self._torn[REQUEST] |= not self.asked
        elif self.exchange.response_begin is None:
            self._doubtful = self.exchange.gap = True
        else:
            self._torn[RESPONSE] = self.exchange.gap = True

    def ask(self, fields: Fields, begin: int, show_values: bool) -> None:
        """Take the fields of the request."""
        exchange = self.exchange
        exchange.begin = begin
        method = fields.get(METHOD, b"")
        target = fields.get(AUTHORITY if method == b"CONNECT" else PATH, b"")
        exchange.method, exchange.resource = _line(method, target, show_values)
        if is_grpc(fields.get(CONTENT_TYPE)):
            self._is_call()

    def answer(self, fields: Fields, last: bool, begin: int) -> bool:
        """Take fields of the response, or its trailers; False: of an interim response."""
        exchange = self.exchange
        status = fields.get(STATUS)
        head = exchange.response_begin is None and (status is not None or not self._doubtful)
        if head:
            if status and status[:1] == b"1" and not last:
                return False
            exchange.response_begin = begin
            exchange.status = _text(status or b"")
            exchange.failed = exchange.status[:1] == "5"
            self._doubtful = False
        if is_grpc(fields.get(CONTENT_TYPE)) or GRPC_MESSAGE in fields:
            self._is_call()
        if GRPC_STATUS in fields:
            self._is_call()
            exchange.status = status_name(fields[GRPC_STATUS])
            exchange.failed = exchange.status != "OK"
        elif exchange.status == "200" and self._may_be_call(head, last, fields):
            exchange.status = ""  # the call's is not known yet, or never
        elif head and exchange.status and exchange.protocol == "grpc":
            exchange.failed = True  # whoever answers so does not speak gRPC
        return True

    def _may_be_call(self, head: bool, last: bool, fields: Fields) -> bool:
        if self.exchange.protocol == "grpc":
            return True
        return last and UNKNOWN in fields and (not head or self.exchange.method == "POST")

    def over(self, side: int) -> None:
        """Take note that an end has sent all."""
        if side == REQUEST:
            self.asked = True
            self.exchange.end = self._ends[REQUEST]
        else:
            self.answered = True
            self.exchange.response_end = self._ends[RESPONSE]

    def reset(self, code: int) -> None:
        """Let the client give up."""
        exchange = self.exchange
        exchange.status = error_name(code)
        exchange.failed = False
        if exchange.response_begin is None:
            exchange.answered = self._doubtful
        else:
            exchange.response_end = self._ends[RESPONSE]

    def refuse(self, status: str, failed: bool, begin: int, end: int) -> None:
        """Let the server give up, by a frame between two offsets."""
        exchange = self.exchange
        if failed or not exchange.status:
            exchange.status, exchange.failed = status, failed
        if exchange.response_begin is None:
            exchange.response_begin = begin
            self._doubtful = False
        self.add(RESPONSE, begin, end)
        exchange.response_end = end

    def close(self) -> Exchange:
        """Return the exchange that the stream was."""
        exchange = self.exchange
        if not self.asked and not self._torn[REQUEST]:  # answered before it was whole
            exchange.end = self._ends[REQUEST]
        unseen = exchange.answered and exchange.response_begin is None
        known = exchange.method and exchange.resource and exchange.status
        there, back = self._torn
        exchange.gap = unseen or not known or self._doubtful or there or back
        request_bytes, response_bytes = self._sizes
        exchange.request_bytes = -1 if there else request_bytes
        exchange.response_bytes = -1 if back else response_bytes
        return exchange

    def _is_call(self) -> None:
        """It is a call of gRPC, whose path is /package.Service/Method."""
        exchange = self.exchange
        if exchange.protocol != "grpc":
            exchange.protocol = "grpc"
            exchange.method = exchange.resource.rpartition("/")[2]


@lru_cache(1024)
def _line(method: bytes, target: bytes, show_values: bool) -> tuple[str, str]:
    return _text(method), resource(target, show_values)


@lru_cache(256)
def _text(value: bytes) -> str:
    return value[:_SHORT].decode("ascii", "backslashreplace")
