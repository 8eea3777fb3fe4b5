"""Frames of HTTP/2 (RFC 9113, section 4 and 6), and how to tell that bytes are some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from tcprism.protocols import Match, NotThisProtocol
from tcprism.protocols.hpack import METHOD, STATUS, Decoder, Fields

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME = Struct(">IBI")  # length and type, flags, stream
FRAME_SIZE = FRAME.size
SETTING = Struct(">HI")

(
    DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
    CONTINUATION,
) = range(10)  # fmt: skip
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20

BLOCK_MAX = 65_536
_LENGTH_MAX = (1 << 24) - 1
_USUAL_MAX = 16_384  # as long as no end allows more
_LOOKED_AT = 64  # frames; more of them make nothing surer
_CONNECTION, _STREAM, _EITHER = range(3)


class Rule(NamedTuple):
    """What a type of frame may be: its flags, where, and its length."""

    flags: int
    where: int
    shortest: int
    longest: int


_RULES = {
    DATA: Rule(END_STREAM | PADDED, _STREAM, 0, _LENGTH_MAX),
    HEADERS: Rule(END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, _STREAM, 1, BLOCK_MAX),
    PRIORITY: Rule(0, _STREAM, 5, 5),
    RST_STREAM: Rule(0, _STREAM, 4, 4),
    SETTINGS: Rule(ACK, _CONNECTION, 0, 6 * 64),
    PUSH_PROMISE: Rule(END_HEADERS | PADDED, _STREAM, 4, BLOCK_MAX),
    PING: Rule(ACK, _CONNECTION, 8, 8),
    GOAWAY: Rule(0, _CONNECTION, 8, BLOCK_MAX),
    WINDOW_UPDATE: Rule(0, _EITHER, 4, 4),
    CONTINUATION: Rule(END_HEADERS, _STREAM, 0, BLOCK_MAX),
    # Extensions: ALTSVC, ORIGIN, PRIORITY_UPDATE.
    0x0A: Rule(0, _EITHER, 2, _USUAL_MAX),
    0x0C: Rule(0, _CONNECTION, 0, _USUAL_MAX),
    0x10: Rule(0, _CONNECTION, 4, _USUAL_MAX),
}
# Reserved, to see whether others pass over what they do not know (RFC 8701 does so for TLS).
_RULES |= {kind: Rule(0xFF, _EITHER, 0, _USUAL_MAX) for kind in range(0x0B, 0x100, 0x1F)}

# Those of RFC 9113, extended CONNECT, no priorities, gRPC's, and reserved ones.
_KNOWN_SETTINGS = frozenset(
    (*range(1, 7), 0x8, 0x9, 0xFE03, 0xFE04, *range(0x0A0A, 0x10000, 0x1010))
)

ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


def error_name(code: int) -> str:
    """Return the name of an error code, or its number if it has none."""
    return ERRORS[code] if code < len(ERRORS) else str(code)


def fits(word: int, flags: int, stream: int) -> bool:
    """Whether there can be a frame with this header; unused bits are zero in what is sent."""
    kind, length = word & 0xFF, word >> 8
    if kind not in _RULES:
        return False
    allowed, where, shortest, longest = _RULES[kind]
    if flags & ~allowed or not shortest <= length <= longest:
        return False
    if where == _STREAM:
        return 0 < stream < 1 << 31
    if where == _EITHER:
        return stream < 1 << 31
    return not stream and (kind != SETTINGS or length % 6 == 0)


def block(payload: bytes, flags: int, head: int = 0) -> bytes:
    """Return the part of a header block in a frame, without padding and the `head` before it."""
    if not head and not flags & (PADDED | WITH_PRIORITY):
        return payload
    begin, end = head, len(payload)
    if flags & PADDED:
        if not payload:
            raise NotThisProtocol
        begin += 1
        end -= payload[0]
    if flags & WITH_PRIORITY:
        begin += 5
    if begin > end:
        raise NotThisProtocol
    return payload[begin:end]


def headers(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield place, length with type, flags and stream of the frames that data begins with.

    Raises NotThisProtocol if there is one that cannot be.
    """
    place = 0
    for _ in range(_LOOKED_AT):
        if len(data) - place < FRAME_SIZE:
            return
        word, flags, stream = FRAME.unpack_from(data, place)
        if not fits(word, flags, stream) or word >> 8 > _USUAL_MAX:
            raise NotThisProtocol
        yield place, word, flags, stream
        place += FRAME_SIZE + (word >> 8)


def request_match(data: bytes) -> Match:
    """Say whether a client sends this: the preface, or later frames with a request among them."""
    if data.startswith(PREFACE):
        return Match.YES
    if PREFACE.startswith(data):
        return Match.MORE
    return _match(data, _asks)


def response_match(data: bytes) -> Match:
    """Say whether a server sends this: its settings, or later frames with a response among them."""
    return _match(data, _answers)


Proves = Callable[[int, bytes, Fields], Match]


def _match(data: bytes, proves: Proves) -> Match:
    if len(data) < FRAME_SIZE:
        return Match.NO if data[0] or (len(data) > 3 and data[3] not in _RULES) else Match.MORE
    try:
        for place, word, flags, stream in headers(data):
            kind, end = word & 0xFF, place + FRAME_SIZE + (word >> 8)
            if end > len(data):
                break
            payload = data[place + FRAME_SIZE : end]
            fields: Fields = {}
            if kind == HEADERS and flags & END_HEADERS and stream & 1:
                fields = Decoder().decode(block(payload, flags))
            elif kind != SETTINGS or flags or place:
                continue
            if (match := proves(kind, payload, fields)) is not Match.MORE:
                return match
    except NotThisProtocol:
        return Match.NO
    return Match.MORE


def _asks(kind: int, payload: bytes, fields: Fields) -> Match:
    if STATUS in fields:
        return Match.NO
    return Match.YES if METHOD in fields else Match.MORE


def _answers(kind: int, payload: bytes, fields: Fields) -> Match:
    if kind == SETTINGS:
        numbers = [number for number, _ in SETTING.iter_unpack(payload)]
        return Match.YES if _KNOWN_SETTINGS.issuperset(numbers) else Match.NO
    if METHOD in fields:
        return Match.NO
    return Match.YES if STATUS in fields else Match.MORE
