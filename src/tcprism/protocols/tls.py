"""TLS and SSL 3: the handshake is one exchange, whose resource is the name that the client gives.

The rest is encrypted and passed over. Up to TLS 1.2 the response ends with the server's Finished.
TLS 1.3 encrypts that: it ends with the last record before the client's first encrypted one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Parser, Protocol
from tcprism.protocols.tls_hello import (
    ALERTS,
    TLS_1_3,
    VERSIONS,
    ClientHello,
    ServerHello,
    client_hello,
    server_hello,
)

_RECORD = Struct(">BHH")  # type, version, length
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = range(20, 24)
_LONGEST = 16_384 + 2_048
_CLIENT_HELLO, _SERVER_HELLO, _NEW_SESSION_TICKET = 1, 2, 4
_HEAD = 4  # bytes before the body of a message
_HELLO_MIN = 44  # bytes of a record until the session id
_FATAL = 2
# An alert is 2 bytes, its type 1, and its tag 16; a Finished is 53 at least.
_ENCRYPTED_ALERT = 19
_FOR_EVER = 1 << 62


class Tls(Parser):
    """Reads a handshake."""

    protocol = "tls"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._exchange: Exchange | None = None
        self._client: ClientHello | None = None
        self._server: ServerHello | None = None
        self._full: bool | None = None  # before TLS 1.3: whether it resumes no session
        self._encrypted = [False, False]
        self._ends = [0, 0]  # of the records so far
        self._torn = [False, False]
        self._over = False

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read records until the handshake is over."""
        place = 0
        while not self._over and len(data) - place >= _RECORD.size:
            kind, version, length = _RECORD.unpack_from(data, place)
            if not _is_record(kind, version, length):
                raise NotThisProtocol
            begin = place + _RECORD.size
            end = begin + length
            if not self._record(side, kind, data[begin:end], length, at + place, at + end):
                break
            self._ends[side] = at + end
            place = end
        return _FOR_EVER if self._over else place

    def find(self, side: int, data: bytes) -> int:
        """Take the start of what a process wrote, if it may be a record."""
        if len(data) < _RECORD.size:
            return 0 if self._over else -1
        return 0 if self._over or _is_record(*_RECORD.unpack_from(data)) else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that records are missing."""
        self._torn[side] = True
        self._ends[side] = max(self._ends[side], end)
        if side == RESPONSE:
            self._encrypted[side] = False  # the Finished may have been among them
        if self._exchange:
            self._exchange.gap = True

    def pending(self) -> Iterator[Exchange]:
        """Yield the handshake, unless it is over."""
        return iter(() if self._over or not self._exchange else (self._exchange,))

    def _record(self, side: int, kind: int, seen: bytes, length: int, begin: int, end: int) -> bool:
        """Take a record, of which the first bytes are seen; False: more are wanted."""
        if kind == _HANDSHAKE and not self._encrypted[side]:
            return self._message(side, seen, length, begin, end)
        exchange = self._exchange
        if exchange is None:
            raise NotThisProtocol
        if kind == _ALERT:
            return self._alert(side, exchange, seen, length, begin, end)
        if kind == _CHANGE_CIPHER_SPEC:
            self._encrypted[side] = not self._is_1_3()
            if side == RESPONSE and self._full is None and not self._torn[side]:
                self._full = False
        elif self._is_1_3():
            if side == REQUEST:
                self._first_encrypted(exchange, length)
        elif side == RESPONSE and kind == _HANDSHAKE:
            self._finish(exchange, end, self._full is None)  # it is the Finished
        elif self._torn[RESPONSE] and kind == _APPLICATION_DATA:
            self._finish(exchange, None, True)
        return True

    def _message(self, side: int, seen: bytes, length: int, begin: int, end: int) -> bool:
        """Take a record of messages in plain text, of which hellos and the next are of interest."""
        if len(seen) < _HEAD and len(seen) < length:
            return False
        kind = seen[0]
        size = int.from_bytes(seen[1:_HEAD])
        if kind == _CLIENT_HELLO and side == REQUEST:
            wanted = min(_HEAD + size, length)
            if len(seen) < wanted:
                return False
            self._asked(client_hello(seen[_HEAD:wanted]), begin, end)
        elif self._exchange is None:
            raise NotThisProtocol
        elif kind == _SERVER_HELLO and side == RESPONSE and self._awaits_hello():
            wanted = min(_HEAD + size, length)
            if len(seen) < wanted + (length > wanted):
                return False
            self._answered(self._exchange, server_hello(seen[_HEAD:wanted]), begin)
            if length > wanted:
                self._follows(seen[wanted])
        elif side == RESPONSE:
            self._follows(kind)
        return True

    def _asked(self, hello: ClientHello, begin: int, end: int) -> None:
        self._client = hello
        if self._exchange is None:
            self._exchange = Exchange("tls", "handshake", hello.name, begin, end)

    def _answered(self, exchange: Exchange, hello: ServerHello, begin: int) -> None:
        self._begin(exchange, begin)
        self._server = hello
        self._full = not hello.resumed if hello.version >= TLS_1_3 else None

    def _begin(self, exchange: Exchange, begin: int) -> None:
        """Take the server's first record, unless that may be among missing bytes."""
        if exchange.response_begin is None and not self._torn[RESPONSE]:
            exchange.response_begin = begin

    def _follows(self, kind: int) -> None:
        """Take the type of the server's message behind its hello; a ticket belongs to either."""
        if self._full is None and kind != _NEW_SESSION_TICKET and not self._torn[RESPONSE]:
            self._full = True

    def _awaits_hello(self) -> bool:
        return self._server is None or self._server.retry

    def _is_1_3(self) -> bool:
        return self._server is not None and self._server.version >= TLS_1_3

    def _first_encrypted(self, exchange: Exchange, length: int) -> None:
        """Take the client's first record under a key, its Finished or an alert."""
        if self._awaits_hello():
            return  # early data
        early = self._client is not None and self._client.early_data
        self._finish(exchange, self._ends[RESPONSE], self._torn[REQUEST])
        if length == _ENCRYPTED_ALERT and not early and not self._torn[REQUEST]:
            exchange.failed = True
            exchange.status += ", alert"

    def _alert(
        self, side: int, exchange: Exchange, seen: bytes, length: int, begin: int, end: int
    ) -> bool:
        if length == 2 and not self._encrypted[side]:
            if len(seen) < 2:
                return False
            level, number = seen
            if level != _FATAL and number and not self._is_1_3():
                return True  # a warning
            alert = f"alert {ALERTS.get(number, number)}"
        else:
            alert = "alert"
        if side == RESPONSE:
            self._begin(exchange, begin)
        end_at = end if side == RESPONSE else self._ends[RESPONSE] or None
        self._finish(exchange, end_at, any(self._torn))
        exchange.answered = exchange.response_begin is not None or self._torn[RESPONSE]
        exchange.status = ", ".join(filter(None, (exchange.status, alert)))
        exchange.failed = True
        return True

    def _finish(self, exchange: Exchange, end: int | None, gap: bool) -> None:
        exchange.response_end = end
        exchange.gap = gap or (exchange.response_begin is None and self._torn[RESPONSE])
        if self._server:
            exchange.status = ", ".join(self._told(self._server))
        self.done.append(exchange)
        self._over = True

    def _told(self, server: ServerHello) -> Iterator[str]:
        yield f"{VERSIONS[server.version]} {server.cipher}"
        if server.protocol:
            yield server.protocol
        elif self._client and self._client.protocols and self._is_1_3():
            yield f"offered {self._client.protocols}"
        if self._full is False:
            yield "resumed"


def _is_record(kind: int, version: int, length: int) -> bool:
    if not _CHANGE_CIPHER_SPEC <= kind <= _APPLICATION_DATA or length > _LONGEST:
        return False
    return 0x0300 <= version <= TLS_1_3 and (length > 0 or kind == _APPLICATION_DATA)


# Record and message with their versions; the session id, and room for a cipher at least.
_CLIENT_HELLO_HEAD = re.compile(
    rb"\x16\x03[\0-\x03][\0-\x40].\x01\0..\x03[\0-\x03].{32}[\0-\x20]", re.DOTALL
)
_SERVER_HELLO_HEAD = re.compile(
    rb"\x16\x03[\0-\x03][\0-\x40].\x02\0..\x03[\0-\x03].{32}[\0-\x20]", re.DOTALL
)
_ALERT_RECORD = re.compile(
    rb"\x15\x03[\0-\x03]\0\x02[\x01\x02][" + re.escape(bytes(ALERTS)) + rb"]"
)
_CLIENT_SAMPLE = b"\x16\x03\x01\0\x64\x01\0\0\x60\x03\x03" + bytes(33)
_SERVER_SAMPLE = b"\x16\x03\x03\0\x64\x02\0\0\x60\x03\x03" + bytes(33)
_ALERT_SAMPLE = b"\x15\x03\x03\0\x02\x02\x28"


def _request_match(data: bytes) -> Match:
    if not _matches(_CLIENT_HELLO_HEAD, data, _CLIENT_SAMPLE):
        return Match.NO
    if len(data) < _HELLO_MIN:
        return Match.MORE
    ciphers = _HELLO_MIN + data[_HELLO_MIN - 1]
    if len(data) < ciphers + 2:
        return Match.MORE
    size = data[ciphers] << 8 | data[ciphers + 1]
    return Match.YES if size and size % 2 == 0 and size < data[7] << 8 | data[8] else Match.NO


def _response_match(data: bytes) -> Match:
    if _matches(_ALERT_RECORD, data, _ALERT_SAMPLE):
        return Match.MORE if len(data) < len(_ALERT_SAMPLE) else Match.YES
    if _matches(_SERVER_HELLO_HEAD, data, _SERVER_SAMPLE):
        return Match.MORE if len(data) < _HELLO_MIN else Match.YES
    return Match.NO


def _matches(pattern: re.Pattern[bytes], data: bytes, sample: bytes) -> bool:
    """Whether data matches, or would if it went on as the sample does."""
    return pattern.match(data + sample[len(data) :]) is not None


TLS = Protocol("tls", Tls, _request_match, _response_match)
