"""MQTT 3.1, 3.1.1 and 5 (OASIS): what a client asks, paired by packet identifier.

DELIVER is a PUBLISH of the broker, which nobody asked for.
"""

from __future__ import annotations

import re
from functools import partial

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Protocol
from tcprism.protocols.numbered import MORE, NONSENSE, Numbered, follow

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _PUBREC, _PUBREL, _PUBCOMP = 1, 2, 3, 4, 5, 6, 7
_SUBSCRIBE, _SUBACK, _UNSUBSCRIBE, _UNSUBACK, _PINGREQ, _PINGRESP, _DISCONNECT = range(8, 15)
_OF_ONE_END = (
    {_CONNECT, _SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ},
    {_CONNACK, _SUBACK, _UNSUBACK, _PINGRESP},
)
_LEAST = {
    _CONNECT: 12, _CONNACK: 2, _PUBLISH: 3, _PUBACK: 2, _PUBREC: 2, _PUBREL: 2, _PUBCOMP: 2,
    _SUBSCRIBE: 6, _SUBACK: 3, _UNSUBSCRIBE: 5, _UNSUBACK: 2,
}  # fmt: skip
_ASKED_BY = {_PUBACK: _PUBLISH, _SUBACK: _SUBSCRIBE, _UNSUBACK: _UNSUBSCRIBE}
_CONNECT_HEAD = re.compile(rb"\x00(?:\x04MQTT[\x04\x05]|\x06MQIsdp\x03)")
_CODES = re.compile(rb"[\x00-\x02\x11\x80-\xff]*")
_TOPIC = re.compile(r"[^\x00-\x1f\x7f-\x9f#+]*")
_SEEN = 1_024  # bytes of a packet: what is behind does not matter
_BEHIND_TOPIC = 16  # bytes: the packet identifier, an alias
_SHOWN = 200  # characters
_ALIASES_MAX = 1_024
_TOPIC_ALIAS = 0x23
_ERROR = 0x80  # reasons from here on are errors


def _kind(side: int, first: int) -> int:
    """Return the packet type that a first byte says; 0: this end sends no such byte."""
    kind, flags = first >> 4, first & 15
    if kind in _OF_ONE_END[1 - side]:
        return 0
    if kind == _PUBLISH:
        return kind if flags & 6 != 6 else 0
    return kind if flags == 2 * (kind in (_PUBREL, _SUBSCRIBE, _UNSUBSCRIBE)) else 0


_KINDS = tuple(tuple(_kind(side, first) for first in range(256)) for side in (REQUEST, RESPONSE))


class Mqtt(Numbered):
    """Reads MQTT."""

    protocol = "mqtt"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._version = 0  # the protocol level; 0: the start was not seen
        self._aliases: tuple[dict[int, str], dict[int, str]] = ({}, {})  # of each end

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read packets; the payload of a message is passed over."""
        kinds, place, size = _KINDS[side], 0, len(data)
        while place < size:
            kind = kinds[data[place]]
            if not kind:
                raise NotThisProtocol
            body, end = _ends(data, place)
            if not body:
                break
            if kind == _PUBLISH:
                wanted = 2 + int.from_bytes(data[body : body + 2], "big") + _BEHIND_TOPIC
            else:
                wanted = _SEEN
            seen = min(end, body + wanted)
            if size < seen:
                break
            if end - body < _LEAST.get(kind, 0):
                raise NotThisProtocol
            if side == REQUEST:
                self._request(kind, data[place], data[body:seen], at + place, at + end)
            elif kind == _PUBLISH:
                self._delivery(data[place] >> 1 & 3, data[body:seen], at + place, at + end)
            else:
                self._response(kind, data[body:seen], at + place, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        return 0 if follow(data, partial(_check, side)) is Match.YES else -1

    def _request(self, kind: int, first: int, body: bytes, begin: int, end: int) -> None:
        match kind:
            case 3:
                self._publish(first >> 1 & 3, body, begin, end)
            case 8 | 10:
                method = "SUBSCRIBE" if kind == _SUBSCRIBE else "UNSUBSCRIBE"
                filters = self._filters(body, kind == _SUBSCRIBE)
                self.ask((kind, body[:2]), Exchange("mqtt", method, filters, begin, end))
            case 1:
                self.ask(kind, Exchange("mqtt", "CONNECT", self._connect(body), begin, end))
            case 12:
                self.ask(kind, Exchange("mqtt", "PINGREQ", "", begin, end))
            case 14:
                self.done.append(Exchange("mqtt", "DISCONNECT", "", begin, end, answered=False))

    def _publish(self, quality: int, body: bytes, begin: int, end: int) -> None:
        topic, behind = self._topic(REQUEST, quality, body)
        exchange = Exchange("mqtt", "PUBLISH", topic, begin, end)
        if quality:
            self.ask((_PUBLISH, body[behind : behind + 2]), exchange)
        else:
            exchange.answered = False
            self.done.append(exchange)

    def _delivery(self, quality: int, body: bytes, begin: int, end: int) -> None:
        topic, _ = self._topic(RESPONSE, quality, body)
        delivery = Exchange("mqtt", "DELIVER", topic, None, None, begin, end, answered=False)
        self.done.append(delivery)

    def _topic(self, side: int, quality: int, body: bytes) -> tuple[str, int]:
        """Return a message's topic, and the place behind it."""
        behind = 2 + int.from_bytes(body[:2], "big")
        properties = behind + 2 * (quality > 0)
        if len(body) < properties:
            raise NotThisProtocol
        topic = _text(body[2:behind])
        if self._version == 5:
            topic = self._aliased(self._aliases[side], topic, body, properties)
        return topic, behind

    def _aliased(self, aliases: dict[int, str], topic: str, body: bytes, place: int) -> str:
        """Return the topic that an alias stands for; whoever sends both defines it."""
        begin, end = _properties(body, place)
        # Clients put it first or behind the payload format and the expiry, which have fixed sizes.
        found = body[begin:end]
        while found[:1] in (b"\x01", b"\x02"):
            found = found[2 if found[0] == 1 else 5 :]
        if not found or found[0] != _TOPIC_ALIAS:
            return topic
        alias = int.from_bytes(found[1:3], "big")
        if topic and len(aliases) < _ALIASES_MAX:
            aliases[alias] = topic
        elif topic:
            aliases.pop(alias, None)
        return topic or aliases.get(alias, "")

    def _connect(self, body: bytes) -> str:
        """Take the version; return the name of the client."""
        if not (head := _CONNECT_HEAD.match(body)):
            raise NotThisProtocol
        place = head.end() + 3
        self._version = head[0][-1]
        if self._version == 5:
            _, place = _properties(body, place)
        return _text(body[place + 2 : place + 2 + int.from_bytes(body[place : place + 2], "big")])

    def _filters(self, body: bytes, with_options: bool) -> str:
        place = 2
        # A filter has a length above 0; where the start was not seen that tells the versions apart.
        if self._version == 5 or (not self._version and not _fits(body)):
            _, place = _properties(body, place)
        filters: list[str] = []
        while place + 2 < len(body) and len(filters) < _SHOWN:
            length = int.from_bytes(body[place : place + 2], "big")
            filters.append(_text(body[place + 2 : place + 2 + length]))
            place += 2 + length + with_options
        return ", ".join(filters)[:_SHOWN]

    def _response(self, kind: int, body: bytes, begin: int, end: int) -> None:
        match kind:
            case 4 | 9 | 11:
                self._finish(
                    self.answer((_ASKED_BY[kind], body[:2])), self._reason(kind, body), begin, end
                )
            case 5:
                exchange, reason = self.answer((_PUBLISH, body[:2])), self._reason(kind, body)
                if exchange and reason < _ERROR:
                    exchange.response_begin = begin
                    self.ask((_PUBREC, body[:2]), exchange)
                else:
                    self._finish(exchange, reason, begin, end)
            case 7:
                exchange = self.answer((_PUBREC, body[:2]))
                self._finish(exchange, self._reason(kind, body), begin, end)
            case 2:
                exchange = self.answer(_CONNECT)
                self._finish(exchange, body[1], begin, end)
                if exchange and body[1]:
                    exchange.failed = True
            case 13:
                self._finish(self.answer(_PINGREQ), 0, begin, end)

    def _reason(self, kind: int, body: bytes) -> int:
        """Return the reason code; of several the worst; 0 where there is none."""
        if kind not in (_SUBACK, _UNSUBACK):
            return body[2] if len(body) > 2 else 0
        place = _properties(body, 2)[1] if self._version == 5 else 2
        codes = body[place:]
        if not self._version and not _CODES.fullmatch(codes):  # properties come before
            codes = codes[-1:]
        return max(codes, default=0)

    def _finish(self, exchange: Exchange | None, reason: int, begin: int, end: int) -> None:
        if not exchange:
            return
        if exchange.response_begin is None:
            exchange.response_begin = begin
        exchange.response_end = end
        exchange.failed = reason >= _ERROR
        exchange.status = f"{reason:#x}" if exchange.failed else str(reason)
        self.done.append(exchange)


def _ends(data: bytes, place: int) -> tuple[int, int]:
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


def _properties(body: bytes, place: int) -> tuple[int, int]:
    """Return where the properties of version 5 begin and end."""
    begin, end = _ends(body, place - 1)
    return begin, end if begin else len(body)


def _fits(body: bytes) -> bool:
    """Whether a filter of the versions before 5 may begin behind the packet identifier."""
    length = int.from_bytes(body[2:4], "big")
    return 0 < length <= len(body) - 4


def _text(data: bytes) -> str:
    return data[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


def _check(side: int, data: bytes, place: int) -> int:
    """Return the end of a packet, if all that is seen of it is as it must be."""
    kind = _KINDS[side][data[place]]
    try:
        body, end = _ends(data, place)
    except NotThisProtocol:
        return NONSENSE
    if not kind or kind > _DISCONNECT:
        return NONSENSE
    if not body:
        return MORE
    length, seen = end - body, data[body:end]
    if length < _LEAST.get(kind, 0) or (kind in (_PINGREQ, _PINGRESP) and length):
        return NONSENSE
    match kind:
        case 1:
            return _check_connect(seen, end)
        case 2:
            sane = seen[:1] <= b"\x01" and (length > 2 or seen[1:2] <= b"\x05")
        case 3:
            return _check_publish(seen, length, end)
        case 8 | 10:
            sane = seen[:2] != b"\0\0" and length < 1 << 16
        case _:
            sane = length < _SEEN
    return end if sane else NONSENSE


def _check_connect(seen: bytes, end: int) -> int:
    if _CONNECT_HEAD.match(seen):
        return end
    names = (b"\0\4MQTT\4", b"\0\4MQTT\5", b"\0\6MQIsdp\3")
    return MORE if any(name.startswith(seen) for name in names) else NONSENSE


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


def _match(side: int, data: bytes) -> Match:
    """Say whether it is MQTT, and of this end: both ends publish and acknowledge."""
    found = follow(data, check := partial(_check, side))
    place = 0
    while found is Match.YES and place < len(data):
        if _KINDS[side][data[place]] in _OF_ONE_END[side]:
            return Match.YES
        end = check(data, place)
        if end <= place:
            break
        place = end
    return Match.MORE if found is Match.YES else found


MQTT = Protocol("mqtt", Mqtt, partial(_match, REQUEST), partial(_match, RESPONSE))
