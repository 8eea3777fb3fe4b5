"""HTTP/2 (RFC 9113), and gRPC over it: requests and responses are paired by their stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tcprism.protocols import REQUEST, RESPONSE, Exchange, NotThisProtocol, Parser, Protocol
from tcprism.protocols.hpack import METHOD, PATH, UNKNOWN, Decoder, Fields
from tcprism.protocols.http2_frames import (
    BLOCK_MAX,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    block,
    error_name,
    fits,
    headers,
    request_match,
    response_match,
)
from tcprism.protocols.http2_streams import Stream

STREAMS_MAX = 4_096  # at once; servers allow some hundred
_DOUBTFUL_MAX = 128  # whose response was lost, or is still to come
_EARLY_MAX = 64
_READ = frozenset((HEADERS, RST_STREAM, PUSH_PROMISE, GOAWAY, CONTINUATION))


class _Block:
    """A header block whose rest follows in further frames."""

    __slots__ = ("begin", "data", "flags", "kind", "stream")

    def __init__(self, kind: int, stream: int, flags: int, begin: int, data: bytes) -> None:
        self.kind, self.stream, self.flags = kind, stream, flags
        self.begin = begin
        self.data = bytearray(data)


class Http2(Parser):
    """Reads HTTP/2; `upgraded` is a request of HTTP/1 that will be answered in it."""

    protocol = "http2"

    def __init__(self, show_values: bool = False, upgraded: Exchange | None = None) -> None:
        super().__init__(show_values)
        self._decoders = (Decoder(), Decoder())
        self._streams: dict[int, Stream] = {}
        self._early: dict[int, Stream] = {}  # answered before the request was seen
        self._blocks: list[_Block | None] = [None, None]
        self._last = 0  # the newest request
        self._begun = False
        if upgraded:
            self._streams[1] = Stream.upgraded(upgraded)
            self._last = 1

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read frames; what they carry is passed over, but for fields and the ends of streams."""
        place, size = 0, len(data)
        if side == REQUEST and not self._begun:
            if size < len(PREFACE) and PREFACE.startswith(data):
                return 0
            self._begun = True
            place = len(PREFACE) if data.startswith(PREFACE) else 0
        while size - place >= FRAME_SIZE:
            word, flags, stream = FRAME.unpack_from(data, place)
            if not fits(word, flags, stream):
                raise NotThisProtocol
            kind, end = word & 0xFF, place + FRAME_SIZE + (word >> 8)
            if kind != CONTINUATION and self._blocks[side]:
                raise NotThisProtocol
            if kind == DATA:
                self._data(side, stream, flags, at + place, at + end)
            elif kind in _READ:
                if end > size:
                    break
                payload = data[place + FRAME_SIZE : end]
                self._frame(side, kind, stream, flags, payload, at + place, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote, and only frames of streams that may be."""
        try:
            frames = list(headers(data))
        except NotThisProtocol:
            return -1
        if not frames or frames[0][1] & 0xFF == CONTINUATION:
            return -1
        newest = self._last + 2 * STREAMS_MAX if self._last else 1 << 31
        known = all(not stream or (stream & 1 and stream < newest) for *_, stream in frames)
        return 0 if known else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that bytes are missing: they may be of any stream, and insert any fields."""
        self._decoders[side].forget()
        self._blocks[side] = None
        self._begun |= side == REQUEST
        for stream in self._streams.values():
            stream.tear(side)
        self._early.clear()
        doubtful = [number for number, stream in self._streams.items() if stream.exchange.gap]
        for number in doubtful[:-_DOUBTFUL_MAX]:
            self.done.append(self._streams.pop(number).exchange)

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet."""
        return (stream.exchange for stream in self._streams.values())

    def _data(self, side: int, number: int, flags: int, begin: int, end: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            stream = self._early.get(number)
            if stream is None or side == REQUEST:
                return
        stream.add(side, begin, end)
        if flags & END_STREAM:
            self._over(side, number, stream)

    def _frame(
        self, side: int, kind: int, stream: int, flags: int, payload: bytes, begin: int, end: int
    ) -> None:
        if kind in (HEADERS, PUSH_PROMISE):
            part = block(payload, flags, 4 if kind == PUSH_PROMISE else 0)
            if flags & END_HEADERS:
                self._fields(side, kind, stream, flags, part, begin, end)
            else:
                self._blocks[side] = _Block(kind, stream, flags, begin, part)
        elif kind == CONTINUATION:
            self._continue(side, stream, flags, payload, end)
        elif kind == RST_STREAM:
            self._reset(side, stream, int.from_bytes(payload), begin, end)
        elif side == RESPONSE:
            self._go_away(int.from_bytes(payload[:4]), begin, end)

    def _continue(self, side: int, stream: int, flags: int, payload: bytes, end: int) -> None:
        whole = self._blocks[side]
        if not whole or whole.stream != stream or len(whole.data) + len(payload) > BLOCK_MAX:
            raise NotThisProtocol
        whole.data += payload
        if flags & END_HEADERS:
            self._blocks[side] = None
            data = bytes(whole.data)
            self._fields(side, whole.kind, stream, whole.flags, data, whole.begin, end)

    def _fields(
        self, side: int, kind: int, number: int, flags: int, data: bytes, begin: int, end: int
    ) -> None:
        fields = self._decoders[side].decode(data)
        if kind == PUSH_PROMISE or not number & 1:
            return  # what a server sends unasked
        if side == REQUEST:
            stream = self._streams.get(number) or self._new(number, fields, begin)
        else:
            stream = self._of(number)
            if stream and not stream.answer(fields, bool(flags & END_STREAM), begin):
                return
        if stream is None:
            return
        stream.add(side, begin, end)
        if flags & END_STREAM:
            self._over(side, number, stream)

    def _new(self, number: int, fields: Fields, begin: int) -> Stream | None:
        """Return the stream of a request, unless the fields are trailers of one that is over."""
        if number <= self._last or not (METHOD in fields or PATH in fields or UNKNOWN in fields):
            return None
        if len(self._streams) >= STREAMS_MAX:
            raise NotThisProtocol
        self._last = number
        stream = self._early.pop(number, None) if self._early else None
        for older in [early for early in self._early if early < number]:
            del self._early[older]  # its request was not seen
        stream = stream or Stream()
        stream.ask(fields, begin, self.show_values)
        self._streams[number] = stream
        return stream

    def _of(self, number: int) -> Stream | None:
        """Return the stream of a response, which a thread may read before another's write ends."""
        stream = self._streams.get(number) or self._early.get(number)
        if stream is None and number > self._last and len(self._early) < _EARLY_MAX:
            stream = self._early[number] = Stream()
        return stream

    def _over(self, side: int, number: int, stream: Stream) -> None:
        stream.over(side)
        if stream.answered and number in self._streams:
            del self._streams[number]
            self.done.append(stream.close())

    def _reset(self, side: int, number: int, code: int, begin: int, end: int) -> None:
        self._early.pop(number, None)
        if stream := self._streams.pop(number, None):
            if side == REQUEST:
                stream.reset(code)
            else:
                stream.refuse(error_name(code), code != 0, begin, end)
            self.done.append(stream.close())

    def _go_away(self, last: int, begin: int, end: int) -> None:
        """A server will not answer the streams behind the one that it names."""
        for number in [number for number in self._streams if number > last]:
            stream = self._streams.pop(number)
            stream.refuse("GOAWAY", True, begin, end)
            self.done.append(stream.close())


class Grpc(Http2):
    """Reads only calls of gRPC."""

    protocol = "grpc"

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read frames, and leave out what is no call."""
        place = super().parse(side, data, at)
        self.done = list(self._calls(self.done))
        return place

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that bytes are missing."""
        super().lost(side, begin, end)
        self.done = list(self._calls(self.done))

    def pending(self) -> Iterator[Exchange]:
        """Yield the calls that have not ended."""
        return self._calls(super().pending())

    def _calls(self, exchanges: Iterable[Exchange]) -> Iterator[Exchange]:
        return (exchange for exchange in exchanges if exchange.protocol == self.protocol)


HTTP2 = Protocol("http2", Http2, request_match, response_match)
GRPC = Protocol("grpc", Grpc, request_match, response_match)  # HTTP2 finds both
