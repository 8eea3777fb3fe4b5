"""The frames of AMQP 0-9-1: what tells them from other bytes, and from those of the other end."""

from __future__ import annotations

from functools import partial
from struct import Struct

from tcprism.protocols import RESPONSE, Match, NotThisProtocol
from tcprism.protocols.amqp_methods import OF_BOTH, OF_SIDE, Ids
from tcprism.protocols.numbered import MORE, NONSENSE, follow

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
CHANNELS_MAX = 2_047  # what brokers allow
_DETECTED_MAX = 1 << 20

FRAME = Struct(">BHI")  # type, channel, size
IDS = Struct(">HH")


def ids_at(body: bytes, place: int) -> Ids:
    if len(body) < place + 4:
        raise NotThisProtocol
    class_id, method_id = IDS.unpack_from(body, place)
    return class_id, method_id


def check(side: int, data: bytes, place: int) -> int:
    """Return the end of a frame, if all that is seen of it is as it must be."""
    head = data[place : place + 19]
    if head.startswith(b"AMQP"[: len(head)]):
        if not head[:8].startswith(HEADER[: len(head)]) or side == RESPONSE:
            return NONSENSE
        return place + len(HEADER) if len(head) >= len(HEADER) else MORE
    if head[0] not in (METHOD, CONTENT, BODY, HEARTBEAT):
        return NONSENSE
    if len(head) < 7:
        return MORE
    kind, number, length = FRAME.unpack_from(head)
    if length > _DETECTED_MAX or number > CHANNELS_MAX:
        return NONSENSE
    end = int(place + 8 + length)
    if end <= len(data) and data[end - 1] != FRAME_END:
        return NONSENSE
    if kind in (METHOD, CONTENT):
        return _check_ids(side, head, length, end) if len(head) >= 11 else MORE
    if kind == HEARTBEAT:
        return NONSENSE if length or number else end
    return end if number and length else NONSENSE


def _check_ids(side: int, head: bytes, length: int, end: int) -> int:
    """Check a method or the head of a content."""
    kind, number, _ = FRAME.unpack_from(head)
    ids = ids_at(head, 7)
    if kind == CONTENT:
        return end if ids == (60, 0) and length >= 14 and number else NONSENSE
    known = ids in OF_SIDE[side] or ids in OF_BOTH
    return end if known and length >= 4 and (ids[0] == 10) == (number == 0) else NONSENSE


def match(side: int, data: bytes) -> Match:
    """Say whether it is AMQP, and of this end: some methods are of both."""
    found = follow(data, partial(check, side))
    place = 0
    while found is Match.YES and place + 11 <= len(data):
        if data[place] == METHOD and IDS.unpack_from(data, place + 7) in OF_SIDE[side]:
            return Match.YES
        if (end := check(side, data, place)) <= place:
            break
        place = end
    return Match.MORE if found is Match.YES else found
