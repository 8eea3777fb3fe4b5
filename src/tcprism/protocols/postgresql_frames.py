"""The messages of PostgreSQL's protocol: their types and lengths, and whether bytes are some."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple

from tcprism.protocols import Match

HEAD = Struct(">BI")  # type; length, of itself and what follows
STARTUP = Struct(">II")  # length; version or a request of these:
CANCEL = 80_877_102
SECURITY = {80_877_103: "SSLRequest", 80_877_104: "GSSENCRequest"}
SECURITY_ANSWERS = (b"S", b"G", b"N")
STARTUP_MAX = 10_000
VERSION = 3
COMMAND_COMPLETE = ord("C")
READY, READY_SIZE = b"Z\x00\x00\x00\x05", 6
COPY_DATA, DATA_ROW = ord("d"), ord("D")

_LARGE, _SMALL, _TOKEN, _FIXED = 1 << 30, 10_000, 65_540, 4
_TRIED = 2_048  # bytes that are looked at to tell the protocol
_TOLD = 32  # bytes of a statement that suffice

Check = Callable[[bytes], object]


class Type(NamedTuple):
    """A type of message: its greatest length, and what a whole body must be; None: anything."""

    most: int
    check: Check | None = None


def _like(pattern: bytes) -> Check:
    return re.compile(pattern, re.DOTALL).fullmatch


def _row(body: bytes) -> bool:
    """Whether it is a DataRow."""
    count, place = int.from_bytes(body[:2], "big"), 2
    for _ in range(count):
        if place + 4 > len(body):
            return False
        size = int.from_bytes(body[place : place + 4], "big", signed=True)
        if size < -1:
            return False
        place += 4 + max(size, 0)
    return place == len(body) and len(body) >= 2


def _counted(size: int, each: bytes) -> Check:
    """Return the check of a number of things, after `size` bytes, with their count before them."""
    things = re.compile(each, re.DOTALL)

    def check(body: bytes) -> bool:
        place, count = size + 2, int.from_bytes(body[size : size + 2], "big")
        if len(body) < place:
            return False
        for _ in range(count):
            found = things.match(body, place)
            if not found:
                return False
            place = found.end()
        return place == len(body)

    return check


def _bind(body: bytes) -> bool:
    """Whether it is a Bind: two names, formats, values, formats."""
    values = body.find(b"\0", body.find(b"\0") + 1) + 1
    formats = int.from_bytes(body[values : values + 2], "big")
    values += 2 + 2 * formats
    results = values + 2
    for _ in range(int.from_bytes(body[values : values + 2], "big")):
        size = int.from_bytes(body[results : results + 4], "big", signed=True)
        if size < -1 or results >= len(body):
            return False
        results += 4 + max(size, 0)
    return results + 2 + 2 * int.from_bytes(body[results : results + 2], "big") == len(body)


_TEXT = rb"[\s(;]*(?:[A-Za-z]{2}|--|/\*)[^\x00-\x08\x0e-\x1f\x7f]*"
_NAME = rb"[^\x00-\x1f]{0,255}\x00"
_NOTHING = _like(b"")
_FIELDS = (
    rb"S[^\x00]+\x00(?:V[A-Z0-9]+\x00)?C[0-9A-Z]{5}\x00M[^\x00]*\x00(?:[A-Za-z][^\x00]*\x00)*\x00"
)
_COPY = _counted(1, rb"\x00[\x00\x01]")

REQUESTS: Mapping[int, Type] = {
    ord("Q"): Type(_LARGE, _like(rb"(?:%s|[\s;]*)\x00" % _TEXT)),
    ord("P"): Type(_LARGE, _like(rb"%s(?:%s|\s*)\x00(?:..)(?:.{4})*" % (_NAME, _TEXT))),
    ord("B"): Type(_LARGE, _bind),
    ord("E"): Type(_SMALL, _like(rb"%s[\x00-\x7f].{3}" % _NAME)),
    ord("D"): Type(_SMALL, _like(rb"[SP]" + _NAME)),
    ord("C"): Type(_SMALL, _like(rb"[SP]" + _NAME)),
    ord("S"): Type(_FIXED, _NOTHING),
    ord("H"): Type(_FIXED, _NOTHING),
    ord("X"): Type(_FIXED, _NOTHING),
    ord("c"): Type(_FIXED, _NOTHING),
    ord("f"): Type(_SMALL),
    ord("d"): Type(_LARGE),
    ord("p"): Type(_TOKEN),
    ord("F"): Type(_LARGE),
}
RESPONSES: Mapping[int, Type] = {
    ord("R"): Type(_SMALL, _like(rb"\x00\x00\x00[\x00-\x0c].*")),
    ord("K"): Type(264, _like(rb".{8,}")),
    ord("S"): Type(_LARGE, _like(rb"[A-Za-z_][\w.]*\x00[^\x00]*\x00")),
    ord("Z"): Type(5, _like(rb"[ITE]")),
    ord("C"): Type(_SMALL, _like(rb"[A-Z][A-Z ]*[0-9 ]*\x00")),
    ord("T"): Type(_LARGE, _counted(0, rb"[^\x00]*\x00.{18}")),
    ord("t"): Type(_LARGE, _counted(0, rb".{4}")),
    ord("D"): Type(_LARGE, _row),
    ord("1"): Type(_FIXED, _NOTHING),
    ord("2"): Type(_FIXED, _NOTHING),
    ord("3"): Type(_FIXED, _NOTHING),
    ord("n"): Type(_FIXED, _NOTHING),
    ord("s"): Type(_FIXED, _NOTHING),
    ord("I"): Type(_FIXED, _NOTHING),
    ord("c"): Type(_FIXED, _NOTHING),
    ord("E"): Type(_LARGE, _like(_FIELDS)),
    ord("N"): Type(_LARGE, _like(_FIELDS)),
    ord("A"): Type(_LARGE, _like(rb".{4}[^\x00]+\x00[^\x00]*\x00")),
    ord("G"): Type(_SMALL, _COPY),
    ord("H"): Type(_SMALL, _COPY),
    ord("W"): Type(_SMALL, _COPY),
    ord("d"): Type(_LARGE),
    ord("V"): Type(_LARGE),
    ord("v"): Type(_SMALL),
}

# The end of a response, amid anything.
END = re.compile(
    rb"(?:C\x00\x00\x00[\x05-\x7f][A-Z][A-Z ]*[0-9 ]*\x00|E\x00[\x00-\x01]..%s)?"
    rb"Z\x00\x00\x00\x05[ITE](?=\Z|[%s]\x00)" % (_FIELDS, bytes(RESPONSES)),
    re.DOTALL,
)
_PARAMETERS = _like(rb"(?:[A-Za-z_][\w.]*\x00[^\x00]*\x00)+\x00")
_BEGUN_STATEMENT = re.compile(rb"(?:Q....|P....%s)%s" % (_NAME, _TEXT), re.DOTALL)


def _match(data: bytes, types: Mapping[int, Type]) -> Match:
    """Say whether bytes are messages of some types, of which one at least is whole and checked."""
    place, size = 0, min(len(data), _TRIED)
    found = Match.MORE
    while size - place >= HEAD.size:
        kind, length = HEAD.unpack_from(data, place)
        its = types.get(kind)
        if not its or not _FIXED <= length <= its.most:
            return Match.NO
        end = place + 1 + length
        if end > size:
            return found
        if its.check:
            if not its.check(data[place + HEAD.size : end]):
                return Match.NO
            found = Match.YES
        place = end
    if place < size and data[place] not in types:
        return Match.NO
    return found


def is_request(data: bytes) -> Match:
    """Say whether a client sends such."""
    if data[0] == 0:
        return _is_startup(data)
    found = _match(data, REQUESTS)
    if found is Match.MORE and len(data) > HEAD.size and data[:1] in b"QP":
        begun = _BEGUN_STATEMENT.match(data)
        if len(data) > _TOLD:
            return Match.YES if begun and begun.end() == len(data) else Match.NO
    return found


def _is_startup(data: bytes) -> Match:
    if len(data) < STARTUP.size:
        return Match.MORE if data[:2] in (b"\0", b"\0\0") else Match.NO
    length, code = STARTUP.unpack_from(data)
    if code in SECURITY:
        return Match.YES if length == STARTUP.size else Match.NO
    if code == CANCEL:
        return Match.YES if 16 <= length <= STARTUP_MAX and len(data) >= 16 else Match.NO
    if code >> 16 != VERSION or code & 0xFFFF > 2 or not 8 < length <= STARTUP_MAX:
        return Match.NO
    if len(data) < length:
        return Match.MORE
    return Match.YES if _PARAMETERS(data[STARTUP.size : length]) else Match.NO


def is_response(data: bytes) -> Match:
    """Say whether a server sends such."""
    return _match(data, RESPONSES)
