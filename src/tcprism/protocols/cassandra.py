"""Cassandra's CQL, versions 3 to 5: requests paired by stream, statements without their values.

Version 5 packs its messages in segments, whose header has a checksum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Protocol, sql
from tcprism.protocols.cassandra_frames import (
    AUTHENTICATION,
    BATCH,
    ERROR,
    EVENT,
    EXECUTE,
    HEAD,
    PREPARE,
    PREPARED,
    QUERY,
    REQUESTS,
    RESULT,
    SEGMENT_HEAD,
    SEGMENT_TAIL,
    body_of,
    check,
    is_segment,
    sane,
)
from tcprism.protocols.numbered import Numbered, follow

_SEEN = sql.SEEN_MAX + 64  # bytes of a message: what is behind does not matter
_PREPARED_MAX = 16_384
_NO_SEGMENT = 1 << 62

# Statements by the identifier that servers give them: it is a digest, and the same on all
# connections. With it, whether values are shown.
_prepared: dict[tuple[bytes, bool], sql.Statement] = {}


@dataclass(slots=True)
class _Request(Exchange):
    """A request, and what it prepares."""

    statement: sql.Statement | None = None


class _End:
    """What is left of the segment and of the message that one end is sending."""

    __slots__ = ("exchange", "message", "segment", "segments")

    def __init__(self) -> None:
        self.segments = False  # whether it sends in segments
        self.segment = 0  # bytes, with the checksum behind them
        self.message = 0
        self.exchange: Exchange | None = None  # which ends with the message


class Cassandra(Numbered):
    """Reads CQL."""

    protocol = "cassandra"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._describe = sql.describer(sql.postgresql, show_values)
        self._ends = (_End(), _End())
        self._version = 0  # not known yet

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read messages, also those in segments; what is bound and found is passed over."""
        end, place, size = self._ends[side], 0, len(data)
        while place < size:
            if end.segments and not end.segment:
                if size - place < SEGMENT_HEAD:
                    break
                if (length := is_segment(data, place)) < 0:
                    raise NotThisProtocol
                place += SEGMENT_HEAD
                end.segment = length + SEGMENT_TAIL
            elif end.message:
                place = self._go_on(side, end, place, at)
            elif used := self._message(side, end, data, place, at):
                place += used
            else:
                break
            if end.segment == SEGMENT_TAIL:
                place += SEGMENT_TAIL
                end.segment = 0
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        end = self._ends[side]
        end.segment = end.message = 0
        end.exchange = None
        return 0 if follow(data, partial(check, side)) is Match.YES else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """What is being sent ends somewhere in the missing bytes."""
        sender = self._ends[side]
        if sender.exchange:
            sender.exchange.gap = True
            if side == RESPONSE:
                self.done.append(sender.exchange)
        sender.exchange, sender.segment, sender.message = None, 0, 0
        super().lost(side, begin, end)

    def _message(self, side: int, end: _End, data: bytes, place: int, at: int) -> int:
        """Read a message; return how many bytes are used, 0: more are needed."""
        size = len(data) - place
        if size < HEAD.size:
            return 0
        version, flags, stream, opcode, length = HEAD.unpack_from(data, place)
        if self._version in (0, 5) and not end.segments and is_segment(data, place) >= 0:
            end.segments = True
            return self.parse(side, data[place:], at + place)
        if not sane(side, version, flags, opcode, length):
            raise NotThisProtocol
        self._version = version & 0x7F
        room = (end.segment - SEGMENT_TAIL if end.segments else _NO_SEGMENT) - HEAD.size
        here = min(length, room)
        if room < 0:
            raise NotThisProtocol
        if size - HEAD.size < min(here, _SEEN):
            return 0
        body = data[place + HEAD.size : place + HEAD.size + min(here, _SEEN)]
        begin, whole = at + place, at + place + HEAD.size + length
        exchange: Exchange | None
        if side == REQUEST:
            exchange = self._request(opcode, stream, body_of(side, flags, body), begin, whole)
        else:
            exchange = self._response(opcode, stream, body_of(side, flags, body), begin, whole)
        end.segment -= (HEAD.size + here) * end.segments
        end.message = length - here
        end.exchange = exchange if end.message else None
        if exchange and side == RESPONSE and not end.message:
            self.done.append(exchange)
        return int(HEAD.size + here)

    def _go_on(self, side: int, end: _End, place: int, at: int) -> int:
        """Pass over more of a message that fills several segments."""
        here = min(end.message, end.segment - SEGMENT_TAIL)
        end.message -= here
        end.segment -= here
        place += here
        if not end.message and (exchange := end.exchange):
            end.exchange = None
            if side == REQUEST:
                exchange.end = at + place
            else:
                exchange.response_end = at + place
                self.done.append(exchange)
        return place

    def _request(
        self, opcode: int, stream: int, body: bytes | None, begin: int, end: int
    ) -> Exchange:
        exchange = _Request("cassandra", REQUESTS[opcode], "", begin, end)
        if body is not None:
            self._describe_into(exchange, opcode, body)
        self.ask(stream, exchange)
        return exchange

    def _describe_into(self, exchange: _Request, opcode: int, body: bytes) -> None:
        if opcode == QUERY:
            exchange.method, exchange.resource = self._statement(body, 0)
        elif opcode == PREPARE:
            exchange.statement = self._statement(body, 0)
            exchange.resource = exchange.statement[1]
        elif opcode == EXECUTE:
            exchange.method, exchange.resource = self._known(body, 0)
        elif opcode == BATCH:
            count = int.from_bytes(body[1:3], "big")
            if count:
                first = self._known(body, 4) if body[3:4] == b"\1" else self._statement(body, 4)
                exchange.resource = first[1] if count == 1 else f"{first[1]} +{count - 1}"

    def _statement(self, body: bytes, place: int) -> sql.Statement:
        length = int.from_bytes(body[place : place + 4], "big")
        operation, text = self._describe(body[place + 4 : place + 4 + min(length, sql.SEEN_MAX)])
        return operation or "QUERY", text

    def _known(self, body: bytes, place: int) -> sql.Statement:
        """Return a statement that was prepared, here or on another connection."""
        length = int.from_bytes(body[place : place + 2], "big")
        number = body[place + 2 : place + 2 + length]
        return _prepared.get((number, self.show_values), ("EXECUTE", sql.PREPARED_BEFORE))

    def _response(
        self, opcode: int, stream: int, body: bytes | None, begin: int, end: int
    ) -> Exchange | None:
        if opcode == EVENT or not (exchange := self.answer(stream)):
            return None
        exchange.response_begin, exchange.response_end = begin, end
        code = int.from_bytes(body[:4], "big") if body and len(body) >= 4 else -1
        if opcode == ERROR:
            exchange.failed = True
            exchange.status = f"{code:#06x}" if code >= 0 else "ERROR"
        elif opcode == RESULT and code == PREPARED and body:
            if isinstance(exchange, _Request) and exchange.statement:
                length = int.from_bytes(body[4:6], "big")
                self._remember(body[6 : 6 + length], exchange.statement)
        elif opcode in AUTHENTICATION:
            exchange.status = AUTHENTICATION[opcode]
        return exchange

    def _remember(self, number: bytes, statement: sql.Statement) -> None:
        key = number, self.show_values
        if key not in _prepared and len(_prepared) >= _PREPARED_MAX:
            del _prepared[next(iter(_prepared))]
        _prepared[key] = statement


CASSANDRA = Protocol(
    "cassandra",
    Cassandra,
    lambda data: follow(data, partial(check, REQUEST)),
    lambda data: follow(data, partial(check, RESPONSE)),
)
