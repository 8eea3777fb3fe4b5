"""NATS: what a client publishes and asks.

A message that is published with a subject for its reply is a request: the message to that subject,
or to a subscription of it, is the response. Where the client wants it (`verbose`) the server
confirms each operation in order. What it delivers else was not asked for.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TypeVar

from tcprism.protocols import (
    REQUEST,
    RESPONSE,
    WAITING_MAX,
    Exchange,
    Match,
    NotThisProtocol,
    Protocol,
)
from tcprism.protocols.nats_lines import (
    LINE_MAX,
    OPERATIONS,
    check,
    payload,
    request_match,
)
from tcprism.protocols.numbered import Numbered, follow

_SUBSCRIPTIONS_MAX = 4_096
_SHOWN = 200  # characters
_SUBJECT_MAX = 1_024

_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")
_STATUS_LINE = 32  # bytes of headers
_ANSWER = 256  # bytes of what JetStream says that may say that it failed
_VERBOSE = re.compile(rb'"verbose"\s*:\s*true')
_STATUS = re.compile(rb"NATS/1\.0[ \t]+(\d{3})")
_FAILURE = re.compile(rb'"error":\{"code":(\d{3})')  # of JetStream
# They close the connection, or come at any time: they answer nothing.
_UNASKED = (b"'Stale", b"'Slow", b"'User Auth", b"'Account Auth", b"'Server Shut", b"'Connection")


Item = TypeVar("Item")


class Nats(Numbered):
    """Reads NATS."""

    protocol = "nats"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._verbose = False
        self._ordered = False  # whether all was seen, so that confirmations can be counted
        self._connect: Exchange | None = None  # an error may answer it
        self._confirmed: deque[tuple[Exchange, bytes]] = deque()  # with the reply's subject
        self._whole = False  # whether all subscriptions are known
        self._subscriptions: dict[bytes, bytes] = {}  # by number
        self._subjects: set[bytes] = set()

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read lines; payloads are passed over."""
        place, size = 0, len(data)
        while place < size:
            line_end = data.find(b"\r\n", place, place + LINE_MAX)
            if line_end < 0:
                if size - place >= LINE_MAX:
                    raise NotThisProtocol
                break
            words = data[place:line_end].split()
            operation = words[0].upper() if words else b""
            if operation not in OPERATIONS[side]:
                raise NotThisProtocol
            end = line_end + 2
            if operation in _WITH_PAYLOAD:
                end += payload(words)
                if end <= size and data[end - 2 : end] != b"\r\n":
                    raise NotThisProtocol
            if side == REQUEST:
                self._request(operation, words, at + place, at + end)
            else:
                head_end = min(end, line_end + 2 + self._wanted(words))
                if head_end > size:
                    break
                self._response(words, data[line_end + 2 : head_end], at + place, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        return 0 if follow(data, partial(check, side)) is Match.YES else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """After missing bytes nobody can count confirmations; replies name their request."""
        super().lost(side, begin, end)
        self._ordered = self._whole = False
        for exchange in self._unconfirmed():
            self._give_up(exchange)
        self.waiting.clear()
        self._confirmed.clear()
        self._connect = None

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests without a response."""
        return chain(super().pending(), self._unconfirmed())

    def _unconfirmed(self) -> Iterator[Exchange]:
        if self._connect:
            yield self._connect
        yield from self.waiting
        yield from (exchange for exchange, reply in self._confirmed if not reply)

    def _request(self, operation: bytes, words: list[bytes], begin: int, end: int) -> None:
        if operation == b"PONG":
            return
        exchange = Exchange("nats", operation.decode(), self._resource(words), begin, end)
        reply = b""
        if operation == b"PING":
            self._in_order(self.waiting, exchange, exchange)
            return
        if operation == b"CONNECT":
            self._verbose = bool(_VERBOSE.search(b" ".join(words)))
            self._whole = self._ordered = True
            if not self._verbose:
                self._connect = exchange
                return
        elif operation in _WITH_PAYLOAD:
            if len(words) == 4 + (operation == b"HPUB") and self._awaits(words[2]):
                reply = words[2]
                self.ask(reply, exchange)
        else:
            self._subscription(operation, words)
        if self._verbose and (self._ordered or not reply):
            self._in_order(self._confirmed, (exchange, reply), exchange)
        elif not reply:
            self._unanswered(exchange)

    def _resource(self, words: list[bytes]) -> str:
        if len(words) < 2 or words[0].upper() == b"CONNECT":
            return ""
        by_number = words[0].upper() == b"UNSUB"
        return self._shown(self._subscriptions.get(words[1], b"") if by_number else words[1])

    def _in_order(self, queue: deque[Item], item: Item, exchange: Exchange) -> None:
        """Let something wait for the next confirmation, if they can be counted."""
        if not self._ordered:
            self._give_up(exchange)
        elif len(queue) >= WAITING_MAX:
            raise NotThisProtocol
        else:
            queue.append(item)

    def _unanswered(self, exchange: Exchange) -> None:
        exchange.answered = False
        self.done.append(exchange)

    def _subscription(self, operation: bytes, words: list[bytes]) -> None:
        """Take note of what is subscribed to; with a count, UNSUB is for later."""
        subject, number = words[1 if words[1:] else 0], words[-1]
        if operation == b"UNSUB":
            if len(words) == 2:
                self._subjects.discard(self._subscriptions.pop(number, b""))
        elif len(self._subscriptions) >= _SUBSCRIPTIONS_MAX:
            self._whole = False
        elif len(subject) <= _SUBJECT_MAX:
            self._subscriptions[number] = subject
            self._subjects.add(subject)

    def _awaits(self, reply: bytes) -> bool:
        """Whether a reply comes on this connection, and not to somebody else."""
        if not self._whole or reply in self._subjects:
            return True
        parent = reply[:_SUBJECT_MAX].rpartition(b".")[0]
        if parent + b".*" in self._subjects:
            return True
        while parent:
            if parent + b".>" in self._subjects:
                return True
            parent = parent.rpartition(b".")[0]
        return False

    def _response(self, words: list[bytes], rest: bytes, begin: int, end: int) -> None:
        """Take what the server says; `rest` are the first bytes behind its line."""
        operation = words[0]
        if operation == b"INFO":
            return
        if self._connect and operation != b"-ERR":
            self._unanswered(self._connect)
            self._connect = None
        match operation:
            case b"MSG" | b"HMSG":
                self._message(words, rest, begin, end)
            case b"PONG":
                if self.waiting:
                    self._finish(self.waiting.popleft(), "", False, begin, end)
            case b"+OK":
                self._verbose = True
                if self._confirmed:
                    exchange, reply = self._confirmed.popleft()
                    if not reply:
                        status = exchange.status or "+OK"
                        self._finish(exchange, status, exchange.failed, begin, end)
            case b"-ERR":
                self._error(b" ".join(words[1:]), begin, end)

    def _wanted(self, words: list[bytes]) -> int:
        """Return how many bytes of a message may say that a request failed."""
        if words[0] == b"HMSG":
            return _STATUS_LINE
        asked = self._asked.get(words[1]) if len(words) > 2 else None
        return _ANSWER if asked and asked.resource.startswith("$JS.") else 0

    def _message(self, words: list[bytes], rest: bytes, begin: int, end: int) -> None:
        subject = words[1]
        exchange = self.answer(subject)
        if not exchange and len(words) > 2:
            exchange = self.answer(self._subscriptions.get(words[2], b""))
        if not exchange:
            message = Exchange("nats", "MSG", self._shown(subject), None, None, begin, end)
            message.answered = False
            message.gap = not self._whole  # it may answer what was not seen
            self.done.append(message)
            return
        found = _STATUS.match(rest) if words[0] == b"HMSG" else None
        status, failed = found[1].decode() if found else "", bool(found and found[1] >= b"500")
        if exchange.resource.startswith("$JS.") and (found := _FAILURE.search(rest)):
            status, failed = found[1].decode(), True
        self._finish(exchange, status, failed, begin, end)

    def _error(self, text: bytes, begin: int, end: int) -> None:
        status = (
            text.strip(b"'").partition(b" for ")[0].decode("ascii", "backslashreplace")[:_SHOWN]
        )
        if self._connect:
            self._finish(self._connect, status, True, begin, end)
            self._connect = None
        elif self._confirmed and not text.startswith(_UNASKED):
            exchange, reply = self._confirmed[0]
            exchange.status, exchange.failed = status, True
            if text.startswith(b"'Invalid Publish"):  # the server takes it, and confirms it too
                return
            self._confirmed.popleft()
            if reply:
                self.answer(reply)
            self._finish(exchange, status, True, begin, end)

    def _finish(self, exchange: Exchange, status: str, failed: bool, begin: int, end: int) -> None:
        exchange.response_begin, exchange.response_end = begin, end
        exchange.status, exchange.failed = status, failed
        self.done.append(exchange)

    def _shown(self, subject: bytes) -> str:
        """Return a subject, without what is another in each request."""
        if not self.show_values:
            if subject.startswith(b"_INBOX."):
                return "_INBOX.?"
            if subject.startswith(b"$JS.ACK."):
                subject = b".".join([*subject.split(b".", 4)[:4], b"?"])
        return subject[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


NATS = Protocol("nats", Nats, request_match, lambda data: follow(data, partial(check, RESPONSE)))
