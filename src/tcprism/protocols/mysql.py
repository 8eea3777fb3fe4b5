"""MySQL's and MariaDB's protocol (MySQL's source documentation, "Client/Server Protocol").

The client sends a command, whose packet has the number 0, and waits; the numbers go on through the
response, whose first has 1. MariaDB's connectors also send several commands at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tcprism.protocols import (
    REQUEST,
    WAITING_MAX,
    Exchange,
    Match,
    NotThisProtocol,
    Parser,
    Protocol,
    sql,
)
from tcprism.protocols import mysql_packets as packets
from tcprism.protocols.mysql_packets import (
    BINLOG_DUMP,
    BINLOG_DUMP_GTID,
    BULK_EXECUTE,
    CHANGE_USER,
    CLOSE,
    COMMANDS,
    COMPRESS,
    COMPRESS_ZSTD,
    CURSOR_EXISTS,
    DEPRECATE_EOF,
    EOF,
    EOF_SIZE,
    ERR,
    EXECUTE,
    FETCH,
    FIELD_LIST,
    HEAD,
    INIT_DB,
    LOCAL_INFILE,
    LONG_DATA,
    LONGEST,
    MORE_RESULTS,
    OK,
    PREPARE,
    QUERY,
    QUIT,
    SSL,
    SSL_REQUEST_SIZE,
    STATISTICS,
    is_request,
    is_response,
)
from tcprism.protocols.mysql_response import Asked, Next

NAME = "mysql"
_SEEN = 1 + sql.SEEN_MAX  # bytes of a packet that are wanted
_STATEMENTS_MAX = 4_096
_LOGIN = -1  # no command's number
_LAST_PREPARED = 0xFFFFFFFF
_ONLY_ROWS = frozenset((FETCH, FIELD_LIST, BINLOG_DUMP, BINLOG_DUMP_GTID))
_WITH_ROWS = (QUERY, EXECUTE)
_UNKNOWN = "EXECUTE", sql.PREPARED_BEFORE


class MySql(Parser):
    """Reads the protocol of MySQL and MariaDB."""

    protocol = NAME

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._describe = sql.describer(sql.mysql, show_values)
        self._asked: deque[Asked] = deque()
        self._statements: dict[int, sql.Statement] = {}
        self._last_prepared = _UNKNOWN
        self._server = ~0  # its capabilities
        self._eofs: bool | None = None  # whether an EOF packet follows the columns
        self._compressed = False
        self._continued = [False, False]  # the last packet of a side goes on in the next
        self._infile: Asked | None = None  # whose file the client sends
        self._missed = False  # requests may be missing
        self._hole = False  # rows of the response are missing

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read packets."""
        place, size = 0, len(data)
        take = self._request if side == REQUEST else self._response
        while size - place >= HEAD:
            if side != REQUEST and self._asked and not self._continued[side]:
                place = self._pass_over(self._asked[0], data, place, at)
                if size - place < HEAD:
                    break
            length = int.from_bytes(data[place : place + 3], "little")
            begin = place + HEAD
            end = begin + length
            if end > size and size - begin < _SEEN:
                break
            body = data[begin : min(end, begin + _SEEN)]
            if self._continued[side]:
                self._continue(side, data[place + 3], at + end)
            else:
                take(data[place + 3], body, at + place, at + end, length)
            self._continued[side] = length == LONGEST
            place = end
            if self.ended_here:
                break
        return place

    def find(self, side: int, data: bytes) -> int:
        """Find a packet at the start of what a process wrote, or the end of rows or of a file."""
        if side == REQUEST:
            if self._infile:
                return len(data) - HEAD if data[-HEAD:-1] == bytes(3) else -1
            return 0 if is_request(data) is Match.YES else -1
        if self._hole:
            return packets.end_of_rows(data)
        return 0 if is_response(data) is Match.YES else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """Keep what waits for the end of its rows, which can be found; a file need not be seen."""
        self._continued[side] = False
        first = self._asked[0] if self._asked else None
        if side == REQUEST:
            if not self._infile:
                self._missed, self._last_prepared = True, _UNKNOWN
                if self._hole:
                    self._drop()
            elif first:
                first.exchange.end = None
        elif not first or self._missed or len(self._asked) > 1 or first.next is not Next.ROWS:
            self._drop()
        else:
            self._hole = True

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet."""
        return (asked.exchange for asked in self._asked)

    def _drop(self) -> None:
        for asked in self._asked:
            asked.exchange.gap = True
            self.done.append(asked.exchange)
        self._asked.clear()
        self._hole, self._infile = False, None

    def _continue(self, side: int, number: int, end: int) -> None:
        if side == REQUEST and self._asked:
            self._asked[-1].exchange.end = end
            self._asked[-1].number = number

    def _request(self, number: int, body: bytes, begin: int, end: int, length: int) -> None:
        if self._infile:
            self._infile.number = number
            if not length:
                self._infile.exchange.end = end
                self._infile = None
        elif number == 0 and body:
            if self._hole:
                self._drop()  # the end of the response is missing as well
            self._missed = False
            self._command(body, begin, end)
        elif number == 1 and length >= SSL_REQUEST_SIZE and not self._asked:
            self._login(body, begin, end)
        elif self._asked:
            self._asked[-1].number = number  # what a login goes on with

    def _command(self, body: bytes, begin: int, end: int) -> None:
        command = body[0]
        statement = "", ""
        if command == QUERY:
            method, resource = self._text(body)
        elif command in (EXECUTE, BULK_EXECUTE):
            method, resource = self._statement(body)
        elif command == PREPARE:
            method, (_, resource) = "PREPARE", (statement := self._text(body))
            self._last_prepared = statement
        elif command in (QUIT, LONG_DATA, CLOSE):  # not answered
            if command == CLOSE:
                self._statements.pop(int.from_bytes(body[1:5], "little"), None)
            return
        elif command in COMMANDS:
            method, resource = COMMANDS[command], ""
            if command == FETCH:
                resource = self._statement(body)[1]
            elif command == INIT_DB:
                resource = sql.shown(body[1:])
        else:
            raise NotThisProtocol
        self._ask(Asked(Exchange(NAME, method, resource, begin, end), command, statement))

    def _ask(self, asked: Asked) -> None:
        if len(self._asked) >= WAITING_MAX:
            raise NotThisProtocol
        if asked.command in _ONLY_ROWS:
            asked.next = Next.ROWS
        self._asked.append(asked)

    def _text(self, body: bytes) -> sql.Statement:
        """Return the statement of a Query or Prepare; MySQL 8 may have attributes before it."""
        if body[0] == QUERY and body[1:3] == b"\0\1":
            return self._describe(body[3:])
        return self._describe(body[1:]) if body[1:2] >= b"\t" else ("QUERY", "")

    def _statement(self, body: bytes) -> sql.Statement:
        number = int.from_bytes(body[1:5], "little")
        if number == _LAST_PREPARED:
            return self._last_prepared
        known = self._statements.get(number)
        return known or ("EXECUTE", f"{number} {sql.PREPARED_BEFORE}")

    def _login(self, body: bytes, begin: int, end: int) -> None:
        capabilities = int.from_bytes(body[:4], "little")
        if capabilities & SSL and end - begin == HEAD + SSL_REQUEST_SIZE:
            self.done.append(Exchange(NAME, "SSLRequest", "", begin, end, answered=False))
            self.ended_here = True
            return
        agreed = capabilities & self._server
        self._eofs = not agreed & DEPRECATE_EOF
        self._compressed = bool(agreed & (COMPRESS | COMPRESS_ZSTD))
        exchange = Exchange(
            NAME, "CONNECT", sql.shown(packets.database(body, capabilities)), begin, end
        )
        asked = Asked(exchange, _LOGIN, ("", ""))
        asked.number = 1
        self._ask(asked)

    def _response(self, number: int, body: bytes, begin: int, end: int, length: int) -> None:
        if not self._asked:
            if number == 0 and body[:1] == b"\x0a":
                self._server = packets.offered(body)
            return
        asked = self._asked[0]
        if asked.exchange.response_begin is None:
            asked.exchange.response_begin = begin
        kind = body[0] if body else OK
        if kind == ERR and asked.next is not Next.COLUMNS:
            self._error(asked, body, end)
        elif asked.next is Next.ROWS:
            if kind == EOF and length < LONGEST:
                self._finish_result(asked, number, body, end)
        elif asked.next is Next.FIRST:
            if number != (asked.number + 1) & 0xFF:
                raise NotThisProtocol
            self._first(asked, kind, number, body, end)
        else:
            self._definition(asked, kind, number, body, end, length)

    def _pass_over(self, asked: Asked, data: bytes, place: int, at: int) -> int:
        """Pass over columns and rows, of which only the end matters, or a whole short response.

        The place may be behind the end of the data.
        """
        if asked.next is Next.FIRST:
            whole = packets.whole_result(data, place, asked.number)
            if not whole or asked.command not in _WITH_ROWS:
                return place
            asked.exchange.response_begin = asked.exchange.response_begin or at + place
            self._eofs = whole.eofs
            self._finish(asked, at + whole.end)
            return whole.end
        if asked.exchange.response_begin is None or asked.next is Next.DEFINITIONS:
            return place
        return asked.pass_over(data, place)

    def _first(self, asked: Asked, kind: int, number: int, body: bytes, end: int) -> None:
        """Take the first packet of a response, or of its next result."""
        command = asked.command
        if command in (_LOGIN, CHANGE_USER) and kind in (1, EOF):
            asked.number = number  # another packet of the login follows
        elif command == PREPARE:
            self._prepared(asked, body, end)
        elif command == STATISTICS:
            self._finish(asked, end)
        elif kind in (OK, EOF):
            self._finish_result(asked, number, body, end)
        elif kind == LOCAL_INFILE and command == QUERY:
            asked.exchange.response_begin = None
            asked.number = number
            self._infile = asked
        else:
            asked.left, place = packets.length_encoded(body, 0)
            if len(body) > place and not body[place]:  # MariaDB: it knows the columns
                asked.left = 0
            asked.next = Next.COLUMNS

    def _prepared(self, asked: Asked, body: bytes, end: int) -> None:
        if len(body) < 12 or body[0] != OK:
            raise NotThisProtocol
        self._statements[int.from_bytes(body[1:5], "little")] = asked.statement
        if len(self._statements) > _STATEMENTS_MAX:
            del self._statements[next(iter(self._statements))]
        asked.left = int.from_bytes(body[5:7], "little") + int.from_bytes(body[7:9], "little")
        asked.next = Next.DEFINITIONS
        if not asked.left or (len(body) > 12 and not body[12]):
            self._finish(asked, end)

    def _definition(
        self, asked: Asked, kind: int, number: int, body: bytes, end: int, length: int
    ) -> None:
        """Take the definition of a column, or what follows the last."""
        ended = kind == EOF and length == EOF_SIZE
        if asked.next is Next.DEFINITIONS:
            if ended:
                self._eofs = True
            else:
                asked.left -= 1
            if asked.left <= 0 and (ended or not self._eofs):
                self._finish(asked, end)
        elif asked.left:
            asked.left -= 1
        else:
            asked.next = Next.ROWS
            self._eofs = ended
            if not ended:
                self._response(number, body, end - HEAD - length, end, length)
            elif packets.status(body) & CURSOR_EXISTS:  # a Fetch gets the rows
                self._finish(asked, end)

    def _finish_result(self, asked: Asked, number: int, body: bytes, end: int) -> None:
        if packets.status(body) & MORE_RESULTS and asked.command != _LOGIN:
            asked.next, asked.number = Next.FIRST, number
        else:
            self._finish(asked, end)
            self.ended_here = asked.command == _LOGIN and self._compressed

    def _error(self, asked: Asked, body: bytes, end: int) -> None:
        code = int.from_bytes(body[1:3], "little")
        if code == 0xFFFF:
            asked.number = (asked.number + 1) & 0xFF  # MariaDB tells how far it is
            return
        state = sql.shown(body[4:9]) if body[3:4] == b"#" else ""
        asked.exchange.status = f"{code} ({state})" if state else str(code)
        asked.exchange.failed = True
        self._finish(asked, end)

    def _finish(self, asked: Asked, end: int) -> None:
        exchange = asked.exchange
        exchange.status = exchange.status or "OK"
        exchange.response_end = end
        exchange.gap |= exchange.end is None
        self.done.append(exchange)
        self._asked.popleft()
        self._hole, self._infile = False, None


MYSQL = Protocol(NAME, MySql, is_request, is_response, alone=True)
