"""PostgreSQL's protocol 3 (its documentation, "Frontend/Backend Protocol").

A request is a simple Query; or an Execute with what prepares it; or, without an Execute, what a
Sync or Flush ends. The server answers in order, and with one ReadyForQuery a Query or Sync: these
tell where it is after missing bytes. After an error it skips all up to the next Sync.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from tcprism.protocols import (
    REQUEST,
    Exchange,
    Match,
    NotThisProtocol,
    Parser,
    Protocol,
    sql,
)
from tcprism.protocols.postgresql_frames import (
    CANCEL,
    COMMAND_COMPLETE,
    COPY_DATA,
    DATA_ROW,
    END,
    HEAD,
    READY,
    READY_SIZE,
    REQUESTS,
    RESPONSES,
    SECURITY,
    SECURITY_ANSWERS,
    STARTUP,
    STARTUP_MAX,
    VERSION,
    is_request,
    is_response,
)
from tcprism.protocols.postgresql_order import Order

NAME = "postgresql"
_SEEN = HEAD.size + sql.SEEN_MAX  # bytes of a message that are wanted
_NAMES_MAX = 4_096  # statements that are remembered
_NAME_MAX = 63  # the server tells no more of a name
_COPIED = re.compile(
    rb"(?:c\x00\x00\x00\x04|f\x00\x00..[^\x00]*\x00)(?:S\x00\x00\x00\x04)?\Z", re.DOTALL
)
_FATAL = re.compile(rb"\x00V(?:FATAL|PANIC)\x00")
_CODE = re.compile(rb"\x00C([0-9A-Z]{5})\x00")
_AUTHENTICATED = bytes(4)
_PARTS = {ord("P"): "PARSE", ord("B"): "BIND", ord("D"): "DESCRIBE", ord("C"): "CLOSE"}
_ROWS = (DATA_ROW, COPY_DATA)
# What most clients send behind a Bind: Describe, Execute, Sync.
_EXECUTE_AT_ONCE = b"D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"
_SHORT = 16  # messages
_USUAL = frozenset(b"12nTtD")  # before a CommandComplete
_FIRST = frozenset(b"12nTtC")
_UNASKED = frozenset(b"ASv")
_PART_DONE = {
    **dict.fromkeys(b"123nT", ""),
    ord("I"): "EmptyQueryResponse",
    ord("s"): "PortalSuspended",
}


class PostgreSql(Parser):
    """Reads PostgreSQL's protocol."""

    protocol = NAME

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._describe = sql.describer(sql.postgresql, show_values)
        self._order = Order(self.done)
        self._statements: dict[bytes, sql.Statement] = {}
        self._portals: dict[bytes, sql.Statement] = {}
        self._security: Exchange | None = None  # whose answer is one byte

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read messages."""
        return self._requests(data, at) if side == REQUEST else self._responses(data, at)

    def find(self, side: int, data: bytes) -> int:
        """Find a message at the start of what a process wrote, or the end of a response."""
        if side == REQUEST:
            if is_request(data) is Match.YES:
                return 0
            found = _COPIED.search(data) if self._order.copying else None
        else:
            if is_response(data) is Match.YES:
                return 0
            found = END.search(data)
        return found.start() if found else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """Keep what the order still tells."""
        if side == REQUEST:
            self._statements.pop(b"", None)  # every client means another by it each time
            self._portals.clear()
            self._order.lost_requests()
        else:
            self._security = None
            self._order.lost_responses()

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet."""
        if self._security:
            yield self._security
        yield from (asked.exchange for asked in self._order.waiting if asked.exchange)

    def _requests(self, data: bytes, at: int) -> int:
        place, size = 0, len(data)
        while size - place >= HEAD.size:
            kind, length = HEAD.unpack_from(data, place)
            if not kind:
                end = self._startup(data, place, at)
                if end == place:
                    break
                place = end
                continue
            if kind == 0x44 and data.startswith(_EXECUTE_AT_ONCE, place):
                begin = at + place
                place += len(_EXECUTE_AT_ONCE)
                self._execute(b"", begin, at + place - HEAD.size, 2)
                self._order.sync(at + place)
                continue
            its = REQUESTS.get(kind)
            if not its or not 4 <= length <= its.most:
                raise NotThisProtocol
            end = place + 1 + length
            if end > size and size - place < _SEEN:
                break
            if kind != COPY_DATA:
                body = data[place + HEAD.size : min(end, place + _SEEN)]
                self._request(kind, body, at + place, at + end)
            place = end
        return place

    def _request(self, kind: int, body: bytes, begin: int, end: int) -> None:
        order = self._order
        if kind in _PARTS:
            self._part(kind, body, begin, end)
        elif kind == 0x45:  # Execute
            self._execute(body.partition(b"\0")[0][:_NAME_MAX], begin, end, 1)
        elif kind == 0x53:  # Sync
            order.sync(end)
        elif kind == 0x51:  # Query
            statement = self._describe(body.partition(b"\0")[0])
            order.ask(order.begin(Exchange(NAME, *statement, begin)), end, True)
        elif kind == 0x48:  # Flush
            if order.group:
                order.ask(order.group, end, False)
        elif kind in b"cf":  # CopyDone, CopyFail
            order.copied(end)
        elif kind == 0x46:  # FunctionCall
            function = str(int.from_bytes(body[:4], "big"))
            order.ask(order.begin(Exchange(NAME, "FunctionCall", function, begin)), end, True)

    def _execute(self, portal: bytes, begin: int, end: int, parts: int) -> None:
        exchange = self._order.group or self._order.begin(Exchange(NAME, "", "", begin))
        exchange.method, exchange.resource = self._portals.get(portal) or _before(portal)
        self._order.ask(exchange, end, False, parts)

    def _part(self, kind: int, body: bytes, begin: int, end: int) -> None:
        """Take Parse, Bind, Describe, Close."""
        order = self._order
        if kind == 0x43 and order.close(end):
            return
        group = order.group or order.begin(Exchange(NAME, _PARTS[kind], "", begin))
        order.part(group)
        first, _, rest = body.partition(b"\0")
        second = rest.partition(b"\0")[0]
        if kind == 0x50:
            statement = self._describe(second)
            _remember(self._statements, first, statement)
            group.resource = statement[1]
        elif kind == 0x42:
            known = self._statements.get(second[:_NAME_MAX])
            _remember(self._portals, first, known or _before(second))
        elif not group.resource:
            group.resource = sql.shown(first[1:])

    def _startup(self, data: bytes, place: int, at: int) -> int:
        if len(data) - place < STARTUP.size:
            return place
        length: int
        length, code = STARTUP.unpack_from(data, place)
        if not STARTUP.size <= length <= STARTUP_MAX:
            raise NotThisProtocol
        end = place + length
        if end > len(data) and len(data) - place < _SEEN:
            return place
        exchange = Exchange(NAME, "STARTUP", "", at + place, at + end)
        if code == CANCEL:
            exchange.method, exchange.answered = "CancelRequest", False
            self.done.append(exchange)
        elif code in SECURITY:
            exchange.method = SECURITY[code]
            self._security = exchange
        elif code >> 16 == VERSION:
            exchange.resource = _database(data[place + STARTUP.size : end])
            self._order.ask(self._order.begin(exchange), at + end, True)
        else:
            raise NotThisProtocol
        return end

    def _responses(self, data: bytes, at: int) -> int:
        if self._security and data:
            return self._secured(self._security, data, at)
        place, size, order = 0, len(data), self._order
        while size - place >= HEAD.size:
            if end := self._whole(data, place, at):
                place = end
                continue
            kind, length = HEAD.unpack_from(data, place)
            its = RESPONSES.get(kind)
            if not its or not 4 <= length <= its.most:
                raise NotThisProtocol
            end = place + 1 + length
            if kind in _ROWS:
                order.answer(at + place)
            elif end > size and size - place < _SEEN:
                break
            else:
                body = data[place + HEAD.size : min(end, place + _SEEN)]
                self._response(kind, body, at + place, at + end)
            place = end
        return place

    def _whole(self, data: bytes, begin: int, at: int) -> int:
        """Take at once a short response whose bytes are all there; most are. Return its end, or 0.

        It ends with a CommandComplete and a ReadyForQuery.
        """
        order = self._order
        if data[begin] not in _FIRST or not order.awaits_ready():
            return 0
        place, size = begin, len(data)
        for _ in range(_SHORT):
            if size - place < HEAD.size:
                return 0
            kind, length = HEAD.unpack_from(data, place)
            if kind not in _USUAL or length < 4:
                break
            place += 1 + length
        end = place + 1 + length
        if kind != COMMAND_COMPLETE or not data.startswith(READY, end) or end + READY_SIZE > size:
            return 0
        tag = _tag(data[place + HEAD.size : end])
        end += READY_SIZE
        return end if order.whole(tag, at + begin, at + end) else 0

    def _response(self, kind: int, body: bytes, begin: int, end: int) -> None:
        order = self._order
        if kind in _UNASKED:
            if kind == 0x41:  # NotificationResponse
                channel = sql.shown(body[4:].partition(b"\0")[0])
                self.done.append(Exchange(NAME, "NOTIFY", channel, None, None, begin, end))
            return
        order.answer(begin)
        if kind in _PART_DONE:
            order.part_done(_PART_DONE[kind], end)
        elif kind == 0x43:  # CommandComplete
            order.part_done(_tag(body), end)
        elif kind == 0x5A:  # ReadyForQuery
            order.ready(end)
        elif kind == 0x45:  # ErrorResponse
            code = _CODE.search(body)
            order.failed(code[1].decode() if code else "", end, bool(_FATAL.search(body)))
        elif kind in b"GW" and order.waiting:  # CopyInResponse, CopyBothResponse
            order.copying = order.waiting[0]
        elif kind == 0x52 and body == _AUTHENTICATED:
            order.authenticated()

    def _secured(self, exchange: Exchange, data: bytes, at: int) -> int:
        """Take the one byte that says whether all behind it is encrypted; E is an error of old."""
        if data[:1] not in SECURITY_ANSWERS:
            raise NotThisProtocol
        exchange.status = data[:1].decode()
        exchange.response_begin, exchange.response_end = at, at + 1
        self.done.append(exchange)
        self._security = None
        self.ended_here = exchange.status != "N"
        return 1


def _before(name: bytes) -> sql.Statement:
    return "EXECUTE", f"{sql.shown(name)} {sql.PREPARED_BEFORE}".lstrip()


def _remember(names: dict[bytes, sql.Statement], name: bytes, statement: sql.Statement) -> None:
    names[name[:_NAME_MAX]] = statement
    if len(names) > _NAMES_MAX:
        del names[next(iter(names))]


@lru_cache(1024)
def _tag(body: bytes) -> str:
    return body.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _database(parameters: bytes) -> str:
    words = parameters.split(b"\0")
    named = dict(zip(words[::2], words[1::2], strict=False))
    return sql.shown(named.get(b"database") or named.get(b"user") or b"")


def _response_match(data: bytes) -> Match:
    return Match.YES if data in SECURITY_ANSWERS else is_response(data)


POSTGRESQL = Protocol(NAME, PostgreSql, is_request, _response_match, alone=True)
