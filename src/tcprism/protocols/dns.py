"""DNS over TCP (RFC 1035, 7766): messages behind their length, paired by their number."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tcprism.protocols import (
    REQUEST,
    RESPONSE,
    WAITING_MAX,
    Exchange,
    Match,
    NotThisProtocol,
    Parser,
    Protocol,
)

RESOURCE_MAX = 200  # characters

# Length, number, flags, and how many questions, answers, authorities and additional records.
_HEAD = struct.Struct(">7H")
_IS_RESPONSE, _RESERVED = 0x8000, 0x0040
_ONLY_RESPONSES = 0x068F  # authoritative, truncated, recursion available, status
_OPCODES = {0: "", 4: "NOTIFY", 5: "UPDATE"}
_STATUS = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE",
)  # fmt: skip
_ANSWERS = frozenset(("NOERROR", "NXDOMAIN"))  # that there is no such name is an answer
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA",
    64: "SVCB", 65: "HTTPS", 251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip
_CLASSES = frozenset((1, 3, 4, 254, 255))  # IN, CH, HS, NONE, ANY
_TRANSFERS = frozenset(("IXFR", "AXFR"))
_SOA = 6
_NAME_MAX, _LABEL_MAX, _POINTER = 255, 63, 0xC0
_QUESTION = struct.Struct(">HH")  # type and class, behind the name
_RECORD = struct.Struct(">HHIH")  # type, class, time to live, length of what follows
_RECORD_MIN = 1 + _RECORD.size
_SIZE_MIN = 12
_PRINTABLE = re.compile(rb"[\x21-\x7e]*")
_QUESTION_END = _HEAD.size + _NAME_MAX + _QUESTION.size


class Message(NamedTuple):
    """The head of a message and its first question."""

    size: int  # of all, with its length
    number: int
    flags: int
    counts: tuple[int, ...]
    name: str
    type: int
    records: int  # where those begin


class Dns(Parser):
    """Reads messages."""

    protocol = "dns"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._asked: dict[int, Exchange] = {}  # by number
        self._transfers: dict[int, bytes] = {}  # the serial of the zone that is transferred

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read the questions of messages, pass over the rest but for transfers of zones."""
        place = 0
        while place < len(data):
            message = _message(side, data[place : place + _QUESTION_END])
            if message is None:
                break
            end = place + message.size
            if side == REQUEST:
                self._ask(message, at + place, at + end)
            elif message.flags & 0xF or not self._transferred(message.number):
                self._answer(message, at + place, at + end)
            elif end > len(data):
                break
            else:
                self._transfer(message, data[place:end], at + place, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take the start of a message."""
        return 0 if (_request_match, _response_match)[side](data) is Match.YES else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that responses may be missing; those that come are known by their numbers."""
        if side != REQUEST or not end:
            for exchange in self._asked.values():
                exchange.gap = True
        if not end:
            self.done.extend(self._asked.values())
            self._asked.clear()

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet."""
        return iter(self._asked.values())

    def _transferred(self, number: int) -> str:
        """Return how a zone is transferred by the messages with a number, if it is."""
        exchange = self._asked.get(number)
        return exchange.method if exchange and exchange.method in _TRANSFERS else ""

    def _ask(self, message: Message, begin: int, end: int) -> None:
        opcode = _OPCODES[message.flags >> 11 & 0xF]
        method = opcode or _TYPES.get(message.type) or f"TYPE{message.type}"
        if before := self._asked.pop(message.number, None):  # will not be answered any more
            before.gap = True
            self.done.append(before)
        self._transfers.pop(message.number, None)
        if len(self._asked) == WAITING_MAX:
            raise NotThisProtocol
        self._asked[message.number] = Exchange("dns", method, message.name, begin, end)

    def _answer(self, message: Message, begin: int, end: int) -> None:
        exchange = self._asked.get(message.number)
        if not exchange or (message.name and message.name != exchange.resource):
            return
        del self._asked[message.number]
        self._transfers.pop(message.number, None)
        if exchange.response_begin is None:
            exchange.response_begin, exchange.gap = begin, False
        exchange.response_end = end
        exchange.status = _STATUS[message.flags & 0xF]
        exchange.failed = exchange.status not in _ANSWERS
        self.done.append(exchange)

    def _transfer(self, message: Message, data: bytes, begin: int, end: int) -> None:
        """Take a message of a zone's transfer: the last record of the last is the first again."""
        exchange = self._asked.get(message.number)
        if not exchange:
            return
        begins = exchange.response_begin is None
        if begins:
            exchange.response_begin, exchange.gap = begin, False
        serials = list(_serials(data, message.records, message.counts[1]))
        if begins and serials:
            self._transfers[message.number] = serials[0]
        first = self._transfers.get(message.number, b"")
        more = len(serials) > 1 or not begins or exchange.method == "IXFR"
        if serials and serials[-1] and more and first in (b"", serials[-1]):
            self._answer(message, begin, end)


def _serials(data: bytes, place: int, count: int) -> Iterator[bytes]:
    """Yield the serial number of each record that is the start of a zone, of others nothing."""
    try:
        for _ in range(count):
            place = _behind_name(data, place)
            kind, _, _, size = _RECORD.unpack_from(data, place)
            place += _RECORD.size
            if kind == _SOA:
                serial = _behind_name(data, _behind_name(data, place))
                yield data[serial : serial + 4]
            else:
                yield b""
            place += size
    except (struct.error, IndexError):
        raise NotThisProtocol from None


def _behind_name(data: bytes, place: int) -> int:
    while size := data[place]:
        if size >= _POINTER:
            return place + 2
        place += size + 1
    return place + 1


def _message(side: int, data: bytes) -> Message | None:
    """Return the message that begins with these bytes; None: too few. Raises NotThisProtocol."""
    if len(data) < _HEAD.size:
        _check_begun(side, data)
        return None
    size, number, flags, *counts = _HEAD.unpack_from(data)
    _check_head(side, flags, counts)
    question = _question(data) if counts[0] else ("", 0, _HEAD.size)
    if question is None:
        return None
    name, kind, end = question
    records = sum(counts[1:])
    rest = size + 2 - end - records * _RECORD_MIN
    if rest < 0 or (rest and not records):
        raise NotThisProtocol
    return Message(size + 2, number, flags, tuple(counts), name, kind, end)


def _check_head(side: int, flags: int, counts: Sequence[int]) -> None:
    questions, answers, authorities, additional = counts
    opcode = flags >> 11 & 0xF
    wrong = bool(flags & _IS_RESPONSE) != (side != REQUEST) or flags & _RESERVED
    if wrong or opcode not in _OPCODES:
        raise NotThisProtocol
    if side != REQUEST:
        if questions > 1 or (flags & 0xF) >= len(_STATUS):
            raise NotThisProtocol
        return
    if questions != 1 or flags & _ONLY_RESPONSES or additional > 2:
        raise NotThisProtocol
    if not opcode and (answers or authorities > 1):
        raise NotThisProtocol


def _question(data: bytes) -> tuple[str, int, int] | None:
    """Return name and type of the first question, and the place behind it; None: too few bytes."""
    zero = data.find(b"\0", _HEAD.size, _HEAD.size + _NAME_MAX)
    if zero < 0:
        if len(data) >= _HEAD.size + _NAME_MAX:
            raise NotThisProtocol
        return None
    end = zero + 1 + _QUESTION.size
    if len(data) < end:
        return None
    name = _name(data[_HEAD.size : zero])
    kind, group = _QUESTION.unpack_from(data, zero + 1)
    if not kind or group not in _CLASSES:
        raise NotThisProtocol
    return name, kind, end


def _check_begun(side: int, data: bytes) -> None:
    size, flags = int.from_bytes(data[:2], "big"), data[4:5]
    wrong_size = len(data) >= 2 and size < _SIZE_MIN
    if wrong_size or (flags and bool(flags[0] & 0x80) != (side != REQUEST)):
        raise NotThisProtocol


@lru_cache(1024)
def _name(labels: bytes) -> str:
    """Return a name of labels, each behind its length. Raises NotThisProtocol."""
    found, place = [], 0
    while place < len(labels):
        size = labels[place]
        label = labels[place + 1 : place + 1 + size]
        if size > _LABEL_MAX or len(label) < size or not _PRINTABLE.fullmatch(label):
            raise NotThisProtocol
        found.append(label.decode("ascii"))
        place += size + 1
    return ".".join(found)[:RESOURCE_MAX].lower() or "."


def _request_match(data: bytes) -> Match:
    return _match(REQUEST, data)


def _response_match(data: bytes) -> Match:
    return _match(RESPONSE, data)


def _match(side: int, data: bytes) -> Match:
    try:
        return Match.YES if _message(side, data[:_QUESTION_END]) else Match.MORE
    except NotThisProtocol:
        return Match.NO


DNS = Protocol("dns", Dns, _request_match, _response_match)
