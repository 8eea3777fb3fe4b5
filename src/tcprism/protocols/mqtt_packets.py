"""The packets of MQTT: which end sends them, and what tells them from other bytes."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from contextlib import suppress
from functools import partial

from tcprism.protocols import REQUEST, RESPONSE, Match, NotThisProtocol
from tcprism.protocols.numbered import MORE, NONSENSE, follow

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)
_OF_ONE_END = (
    {CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ},
    {CONNACK, SUBACK, UNSUBACK, PINGRESP},
)
LEAST = {
    CONNECT: 12, CONNACK: 2, PUBLISH: 3, PUBACK: 2, PUBREC: 2, PUBREL: 2, PUBCOMP: 2,
    SUBSCRIBE: 6, SUBACK: 3, UNSUBSCRIBE: 5, UNSUBACK: 2,
}  # fmt: skip
CONNECT_HEAD = re.compile(rb"\x00(?:\x04MQTT[\x04\x05]|\x06MQIsdp\x03)")
_FILTER = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
_TOPIC = re.compile(r"[^\x00-\x1f\x7f-\x9f#+]*")
SEEN = 1_024  # bytes of a packet: what is behind does not matter


def _kind(side: int, first: int) -> int:
    """Return the packet type that a first byte says; 0: this end sends no such byte."""
    kind, flags = first >> 4, first & 15
    if kind in _OF_ONE_END[1 - side]:
        return 0
    if kind == PUBLISH:
        return kind if flags & 6 != 6 else 0
    return kind if flags == 2 * (kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE)) else 0


KINDS = tuple(tuple(_kind(side, first) for first in range(256)) for side in (REQUEST, RESPONSE))


def ends(data: bytes, place: int) -> tuple[int, int]:
    """Return where a packet's body begins and ends; 0: its length is not whole."""
    length = 0
    for shift, at in enumerate(range(place + 1, place + 5)):
        if at >= len(data):
            return 0, 0
        byte = data[at]
        length |= (byte & 127) << 7 * shift
        if byte < 128:
            return at + 1, at + 1 + length
    raise NotThisProtocol


def properties(body: bytes, place: int) -> tuple[int, int]:
    """Return where the properties of version 5 begin and end."""
    begin, end = ends(body, place - 1)
    return begin, end if begin else len(body)


def fits(body: bytes) -> bool:
    """Whether a filter of the versions before 5 may begin behind the packet identifier."""
    length = int.from_bytes(body[2:4], "big")
    return 0 < length <= len(body) - 4


def check(side: int, data: bytes, place: int) -> int:
    """Return the end of a packet, if all that is seen of it is as it must be."""
    kind = KINDS[side][data[place]]
    try:
        body, end = ends(data, place)
    except NotThisProtocol:
        return NONSENSE
    if not kind or kind > DISCONNECT:
        return NONSENSE
    if not body:
        return MORE
    length, seen = end - body, data[body:end]
    if length < LEAST.get(kind, 0) or (kind in (PINGREQ, PINGRESP) and length):
        return NONSENSE
    if kind == CONNECT:
        return _check_connect(seen, end)
    if kind == PUBLISH:
        return _check_publish(seen, length, end)
    if kind == CONNACK:
        sane = seen[:1] <= b"\x01" and (length > 2 or seen[1:2] <= b"\x05")
    elif kind in (SUBSCRIBE, UNSUBSCRIBE):
        sane = seen[:2] != b"\0\0" and length < 1 << 16 and _has_filter(seen, length, kind)
        if not sane and len(seen) < min(length, SEEN):
            return MORE
    else:
        sane = length < SEEN
    return end if sane else NONSENSE


def _check_connect(seen: bytes, end: int) -> int:
    if CONNECT_HEAD.match(seen):
        return end
    names = (b"\0\4MQTT\4", b"\0\4MQTT\5", b"\0\6MQIsdp\3")
    return MORE if any(name.startswith(seen) for name in names) else NONSENSE


def _has_filter(seen: bytes, length: int, kind: int) -> bool:
    """Whether a filter follows the packet identifier, or properties of version 5 before it."""
    places = [2]
    with suppress(NotThisProtocol):
        places.append(properties(seen, 2)[1])
    return any(_is_filter(seen, length, place, kind == SUBSCRIBE) for place in places)


def _is_filter(seen: bytes, length: int, place: int, with_options: bool) -> bool:
    begin = place + 2
    end = begin + int.from_bytes(seen[place:begin], "big")
    if not begin < min(end, len(seen)) or end + with_options > length:
        return False
    try:
        text = getincrementaldecoder("utf-8")().decode(seen[begin:end], end <= len(seen))
    except UnicodeDecodeError:
        return False
    options = seen[end : end + 1] if with_options else b""
    return bool(_FILTER.fullmatch(text)) and options < b"\x40"


def _check_publish(seen: bytes, length: int, end: int) -> int:
    if len(seen) < 2:
        return MORE
    behind = 2 + int.from_bytes(seen[:2], "big")
    if not 2 < behind <= length:
        return NONSENSE
    try:
        topic = seen[2:behind].decode()
    except UnicodeDecodeError as error:
        if behind <= len(seen) or error.end < len(seen) - 2:
            return NONSENSE
        return MORE
    if not _TOPIC.fullmatch(topic):
        return NONSENSE
    return end if behind <= len(seen) else MORE


def match(side: int, data: bytes) -> Match:
    """Say whether it is MQTT, and of this end: both ends publish and acknowledge."""
    found = follow(data, end_of := partial(check, side))
    place = 0
    while found is Match.YES and place < len(data):
        if KINDS[side][data[place]] in _OF_ONE_END[side]:
            return Match.YES
        end = end_of(data, place)
        if end <= place:
            break
        place = end
    return Match.MORE if found is Match.YES else found
