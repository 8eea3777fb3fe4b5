"""The frames of CQL: messages, and the segments that version 5 puts them in."""

from __future__ import annotations

import re
from functools import lru_cache
from struct import Struct

from tcprism.protocols import REQUEST
from tcprism.protocols.numbered import MORE, NONSENSE

HEAD = Struct(">BBhBI")  # version, flags, stream, opcode, length
SEGMENT_HEAD, SEGMENT_TAIL = 6, 4  # bytes: a length with its CRC-24; the CRC-32 of all
_SEGMENT_MAX = 0x1FFFF

REQUESTS = {
    1: "STARTUP", 4: "CREDENTIALS", 5: "OPTIONS", 7: "QUERY", 9: "PREPARE", 10: "EXECUTE",
    11: "REGISTER", 13: "BATCH", 15: "AUTH_RESPONSE",
}  # fmt: skip
STARTUP, OPTIONS, QUERY, PREPARE, EXECUTE, REGISTER, BATCH = 1, 5, 7, 9, 10, 11, 13
ERROR, READY, AUTHENTICATE, SUPPORTED, RESULT, EVENT = 0, 2, 3, 6, 8, 12
AUTHENTICATION = {AUTHENTICATE: "AUTHENTICATE", 14: "AUTH_CHALLENGE", 16: "AUTH_SUCCESS"}
_RESPONSES = {ERROR, READY, SUPPORTED, RESULT, EVENT, *AUTHENTICATION}
PREPARED = 4  # the kind of a result
_KINDS = range(1, 6)
_VERSIONS = (3, 4, 5)
_OF_SERVER = 0x80

COMPRESSED, _TRACED, _PAYLOAD, _WARNINGS = 1, 2, 4, 8
_FLAGS = 0x1F
_LENGTH_MAX = 256 << 20  # bytes
_ENOUGH = 48  # bytes of a body, to tell it from other protocols
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")


def is_segment(data: bytes, place: int) -> int:
    """Return the length of the segment that begins at a place; below 0: none does."""
    if len(data) < place + SEGMENT_HEAD:
        return -1
    checksum = int.from_bytes(data[place + 3 : place + 6], "little")
    if _crc24(data[place : place + 3]) != checksum:
        return -1
    return int.from_bytes(data[place : place + 3], "little") & _SEGMENT_MAX


@lru_cache(1_024)  # most segments are as long as others
def _crc24(data: bytes) -> int:
    crc = 0x875060
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974F0B
    return crc


def sane(side: int, version: int, flags: int, opcode: int, length: int) -> bool:
    """Whether a message's header may be such."""
    known = REQUESTS if side == REQUEST else _RESPONSES
    return (
        (version & 0x7F) in _VERSIONS
        and (version < _OF_SERVER) == (side == REQUEST)
        and not flags & ~_FLAGS
        and opcode in known
        and length <= _LENGTH_MAX
    )


def body_of(side: int, flags: int, body: bytes) -> bytes | None:
    """Return a body without what comes before it at times; None: it is compressed."""
    if flags & COMPRESSED:
        return None
    if side != REQUEST:
        if flags & _TRACED:
            body = body[16:]
        if flags & _WARNINGS:
            body = _without_strings(body, 2, 1)
    return _without_strings(body, 4, 2) if flags & _PAYLOAD else body


def _without_strings(body: bytes, size: int, each: int) -> bytes:
    """Pass over a list of strings, or a map of them to bytes, whose lengths have `size` bytes."""
    count = int.from_bytes(body[:2], "big")
    place = 2
    for number in range(min(count, 64) * each):
        width = size if number % each == each - 1 else 2
        length = int.from_bytes(body[place : place + width], "big", signed=width == 4)
        place += width + max(length, 0)
    return body[place:]


def check(side: int, data: bytes, place: int) -> int:
    """Return the end of a message or a segment, if all that is seen is as it must be."""
    if (length := is_segment(data, place)) >= 0:
        return _check_segment(side, data, place + SEGMENT_HEAD, length)
    head = data[place : place + HEAD.size + _ENOUGH]
    if len(head) < HEAD.size:
        plain = head[0] in ((3, 4, 5), (0x83, 0x84, 0x85))[side]
        return MORE if plain or len(head) < SEGMENT_HEAD else NONSENSE
    version, flags, stream, opcode, length = HEAD.unpack_from(head)
    if not sane(side, version, flags, opcode, length):
        return NONSENSE
    if stream < 0 and (side == REQUEST or opcode != EVENT):
        return NONSENSE
    body = body_of(side, flags, head[HEAD.size :])
    if len(head) - HEAD.size < min(length, _ENOUGH):
        return MORE
    if body is None:  # nothing more of it can be checked
        return NONSENSE
    looks_right = _request_body if side == REQUEST else _response_body
    return int(place + HEAD.size + length) if looks_right(opcode, body, length) else NONSENSE


def _check_segment(side: int, data: bytes, place: int, length: int) -> int:
    """Check the first message of a segment, if it begins there."""
    if len(data) < place + HEAD.size:
        return MORE
    version, flags, _, opcode, inner = HEAD.unpack_from(data, place)
    if version & 0x7F != 5 or not sane(side, version, flags, opcode, inner):
        return NONSENSE
    return place + length + SEGMENT_TAIL


def _request_body(opcode: int, body: bytes, length: int) -> bool:
    if opcode == STARTUP:
        return b"CQL_VERSION" in body[:40] or (length < 400 and body[2:4] < b"\1")
    if opcode == OPTIONS:
        return not length
    if opcode in (QUERY, PREPARE):
        size = int.from_bytes(body[:4], "big")
        return 0 < size <= length - 4 and bool(_TEXT.fullmatch(body[4 : 4 + size]))
    if opcode == EXECUTE:
        return body[:2] == b"\0\x10"  # a digest of 16 bytes
    if opcode == REGISTER:
        return b"_CHANGE" in body
    if opcode == BATCH:
        return body[:1] <= b"\2" and body[3:4] <= b"\1"
    return int.from_bytes(body[:4], "big") == length - 4


def _response_body(opcode: int, body: bytes, length: int) -> bool:
    if opcode == ERROR:
        code, text = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:6], "big")
        return code <= 0x2500 and text <= length - 6 and bool(_TEXT.match(body, 6) or not text)
    if opcode == READY:
        return not length
    if opcode == AUTHENTICATE:
        return 2 + int.from_bytes(body[:2], "big") == length
    if opcode == SUPPORTED:
        return 0 < int.from_bytes(body[:2], "big") < 32 and body[2:3] == b"\0"
    if opcode == RESULT:
        return int.from_bytes(body[:4], "big") in _KINDS
    if opcode == EVENT:
        return b"_CHANGE" in body
    return int.from_bytes(body[:4], "big", signed=True) in (length - 4, -1)
