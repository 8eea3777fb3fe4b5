"""MongoDB: requests paired by their number, with the command and the collection it is about."""

from __future__ import annotations

import re
from functools import partial
from struct import Struct
from typing import NamedTuple
from zlib import decompressobj
from zlib import error as ZlibError

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Protocol
from tcprism.protocols.bson import ARRAY, DOCUMENT, Element, elements, number, string
from tcprism.protocols.numbered import MORE, NONSENSE, Numbered, follow

_HEAD = Struct("<iiiI")  # length, number, number that it answers, operation
_HEAD_SIZE = 16
_REPLY, _QUERY, _COMPRESSED, _MSG = 1, 2004, 2012, 2013
_FLAGS = Struct("<I")
_ZLIB = 2
_MORE_TO_COME = 2  # a flag: a request that has no response, or a response that others follow
_KNOWN_FLAGS = 0x1_0003
_SIZE_MAX = 48_100_000  # bytes: maxMessageSizeBytes, and what is around it
_SEEN = 2_048  # bytes of a message: what is behind does not matter
_ENOUGH = 64  # bytes, to tell it from other protocols
_SHOWN = 200  # characters
_COMMAND = re.compile(rb"[A-Za-z_$][A-Za-z0-9_]{0,63}")
_OPERATIONS = ((_QUERY, _COMPRESSED, _MSG), (_REPLY, _COMPRESSED, _MSG))
_SPACE = re.compile(rb"[\x20-\x7e]{1,120}\.\$cmd\x00")


class Message(NamedTuple):
    """The body of a message, not compressed; `document` is where its document begins, or -1."""

    operation: int
    flags: int
    document: int
    data: bytes


_UNREADABLE = Message(_COMPRESSED, 0, -1, b"")


class MongoDb(Numbered):
    """Reads MongoDB."""

    protocol = "mongodb"

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read messages; documents that are inserted or found are passed over."""
        place, size = 0, len(data)
        while size - place >= _HEAD_SIZE:
            length, number, answers, operation = _HEAD.unpack_from(data, place)
            if not _HEAD_SIZE < length <= _SIZE_MAX or operation not in _OPERATIONS[side]:
                raise NotThisProtocol
            seen = place + min(length, _SEEN)
            if size < seen:
                break
            message = _plain(operation, data[place + _HEAD_SIZE : seen])
            begin, end = at + place, at + place + length
            try:
                if side == REQUEST:
                    self._request(number, message, begin, end)
                elif exchange := self.answer(answers):
                    exchange.response_begin, exchange.response_end = begin, end
                    exchange.status, exchange.failed = _outcome(message)
                    self.done.append(exchange)
            except ValueError:
                raise NotThisProtocol from None
            place += length
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        return 0 if follow(data, partial(_check, side)) is Match.YES else -1

    def _request(self, number: int, message: Message, begin: int, end: int) -> None:
        method, resource = _command(message)
        exchange = Exchange("mongodb", method, resource, begin, end)
        if message.operation == _MSG and message.flags & _MORE_TO_COME:
            exchange.answered = False
            self.done.append(exchange)
        else:
            self.ask(number, exchange)


def _plain(operation: int, body: bytes) -> Message:
    """Return a message's body as it was before it was compressed, as far as it is seen."""
    if operation == _COMPRESSED:
        if len(body) < 9 or body[8] != _ZLIB:  # the others need a library
            return _UNREADABLE
        operation = int.from_bytes(body[:4], "little")
        try:
            body = decompressobj().decompress(body[9:], _SEEN)
        except ZlibError:
            return _UNREADABLE
    if len(body) < 4:
        return _UNREADABLE
    if operation == _MSG:
        return Message(operation, _FLAGS.unpack_from(body)[0], _document(body), body)
    if operation == _REPLY:
        return Message(operation, 0, 20, body)
    end = body.find(b"\0", 4)
    return Message(operation, 0, end + 9 if operation == _QUERY and end > 0 else -1, body)


def _document(body: bytes) -> int:
    """Return where the section begins that has the command; those before have documents."""
    place = 4
    while place < len(body):
        if body[place] == 0:
            return place + 1
        if body[place] != 1:
            raise NotThisProtocol
        length = int.from_bytes(body[place + 1 : place + 5], "little")
        if length < 5:
            return -1
        place += 1 + length
    return -1


def _command(message: Message) -> tuple[str, str]:
    """Return the command, and the database and collection that it is about."""
    if message.document < 0:
        return "", ""
    method = collection = database = b""
    for element in elements(message.data, message.document):
        if not method:
            method = element.name
            collection = string(message.data, element)
        elif element.name == b"$db":
            database = string(message.data, element)
            break
        elif element.name == b"collection" and method == b"getMore":
            collection = string(message.data, element)
    if message.operation == _QUERY:
        database = message.data[4:].partition(b".")[0]
    return _text(method), _text(b".".join(filter(None, (database, collection))))


def _outcome(message: Message) -> tuple[str, bool]:
    """Return a response's status, and whether it reports a failure."""
    data, document = message.data, message.document
    if document < 0:
        return "", False
    ok, code = None, None
    for element in elements(data, document):
        if element.name == b"ok":
            ok = number(data, element)
        elif element.name == b"code":
            code = number(data, element)
        elif element.name == b"cursor" and ok is None:
            ok = 1  # a command that fails has none; it may be long
        elif element.name in (b"writeErrors", b"writeConcernError"):
            code = _code(data, element)
    if code is not None:
        return f"{code:.0f}", True
    if ok is None:
        return "", False
    return ("ok", False) if ok else ("error", True)


def _code(data: bytes, error: Element) -> float | None:
    """Return the code of the first of some errors."""
    for element in elements(data, error.begin):
        if element.name == b"code":
            return number(data, element)
        if element.name == b"0" and error.kind == ARRAY and element.kind == DOCUMENT:
            return _code(data, element)
    return None


def _text(data: bytes) -> str:
    return data[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


def _check(side: int, data: bytes, place: int) -> int:
    """Return the end of a message, if all that is seen of it is as it must be."""
    head = data[place : place + _SEEN]
    if len(head) < _HEAD_SIZE:
        length = int.from_bytes(head[:4], "little")
        return MORE if len(head) < 4 or 26 <= length <= _SIZE_MAX else NONSENSE
    length, _, answers, operation = _HEAD.unpack_from(head)
    if not 26 <= length <= _SIZE_MAX or operation not in _OPERATIONS[side]:
        return NONSENSE
    if (answers != 0) != (side == RESPONSE):
        return NONSENSE
    if len(head) < min(length, _ENOUGH):
        return MORE
    body = head[_HEAD_SIZE:length]
    return place + int(length) if _looks_right(operation, body, length) else NONSENSE


def _looks_right(operation: int, body: bytes, length: int) -> bool:
    if operation == _COMPRESSED:
        return body[:4] in (b"\xdd\x07\0\0", b"\xd4\x07\0\0", b"\1\0\0\0") and body[8] < 4
    if operation == _QUERY:
        return bool(_SPACE.match(body, 4))
    if operation == _REPLY:
        return body[16:20] == b"\1\0\0\0"
    if _FLAGS.unpack_from(body)[0] & ~_KNOWN_FLAGS:
        return False
    if body[4] == 1:
        return int.from_bytes(body[5:9], "little") <= length - 21
    size = int.from_bytes(body[5:9], "little")
    try:
        first = next(elements(body, 5), None)
    except ValueError:
        return False
    named = first is not None and _COMMAND.fullmatch(first.name)
    return body[4] == 0 and 5 < size <= length - 21 and bool(named)


MONGODB = Protocol(
    "mongodb",
    MongoDb,
    lambda data: follow(data, partial(_check, REQUEST)),
    lambda data: follow(data, partial(_check, RESPONSE)),
)
