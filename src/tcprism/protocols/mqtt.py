"""MQTT 3.1, 3.1.1 and 5 (OASIS): what a client asks, paired by packet identifier.

DELIVER is a PUBLISH of the broker, which nobody asked for.
"""

from __future__ import annotations

import re
from functools import partial

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Protocol
from tcprism.protocols.mqtt_packets import (
    CONNACK,
    CONNECT,
    CONNECT_HEAD,
    DISCONNECT,
    KINDS,
    LEAST,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    SEEN,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    check,
    ends,
    fits,
    match,
    properties,
)
from tcprism.protocols.numbered import Numbered, follow

_ASKED_BY = {PUBACK: PUBLISH, SUBACK: SUBSCRIBE, UNSUBACK: UNSUBSCRIBE}
_CODES = re.compile(rb"[\x00-\x02\x11\x80-\xff]*")
_BEHIND_TOPIC = 16  # bytes: the packet identifier, an alias
_SHOWN = 200  # characters
_ALIASES_MAX = 1_024
_TOPIC_ALIAS = 0x23
_ERROR = 0x80  # reasons from here on are errors


class Mqtt(Numbered):
    """Reads MQTT."""

    protocol = "mqtt"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._version = 0  # the protocol level; 0: the start was not seen
        self._aliases: tuple[dict[int, str], dict[int, str]] = ({}, {})  # of each end

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read packets; the payload of a message is passed over."""
        kinds, place, size = KINDS[side], 0, len(data)
        while place < size:
            kind = kinds[data[place]]
            if not kind:
                raise NotThisProtocol
            body, end = ends(data, place)
            if not body:
                break
            if kind == PUBLISH:
                wanted = 2 + int.from_bytes(data[body : body + 2], "big") + _BEHIND_TOPIC
            else:
                wanted = SEEN
            seen = min(end, body + wanted)
            if size < seen:
                break
            if end - body < LEAST.get(kind, 0):
                raise NotThisProtocol
            if side == REQUEST:
                self._request(kind, data[place], data[body:seen], at + place, at + end)
            elif kind == PUBLISH:
                self._delivery(data[place] >> 1 & 3, data[body:seen], at + place, at + end)
            else:
                self._response(kind, data[body:seen], at + place, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        return 0 if follow(data, partial(check, side)) is Match.YES else -1

    def _request(self, kind: int, first: int, body: bytes, begin: int, end: int) -> None:
        if kind == PUBLISH:
            self._publish(first >> 1 & 3, body, begin, end)
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            method = "SUBSCRIBE" if kind == SUBSCRIBE else "UNSUBSCRIBE"
            filters = self._filters(body, kind == SUBSCRIBE)
            self.ask((kind, body[:2]), Exchange("mqtt", method, filters, begin, end))
        elif kind == CONNECT:
            self.ask(kind, Exchange("mqtt", "CONNECT", self._connect(body), begin, end))
        elif kind == PINGREQ:
            self.ask(kind, Exchange("mqtt", "PINGREQ", "", begin, end))
        elif kind == DISCONNECT:
            self.done.append(Exchange("mqtt", "DISCONNECT", "", begin, end, answered=False))

    def _publish(self, quality: int, body: bytes, begin: int, end: int) -> None:
        topic, behind = self._topic(REQUEST, quality, body)
        exchange = Exchange("mqtt", "PUBLISH", topic, begin, end)
        if quality:
            self.ask((PUBLISH, body[behind : behind + 2]), exchange)
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
        begin, end = properties(body, place)
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
        if not (head := CONNECT_HEAD.match(body)):
            raise NotThisProtocol
        place = head.end() + 3
        self._version = head[0][-1]
        if self._version == 5:
            _, place = properties(body, place)
        return _text(body[place + 2 : place + 2 + int.from_bytes(body[place : place + 2], "big")])

    def _filters(self, body: bytes, with_options: bool) -> str:
        place = 2
        # A filter has a length above 0; where the start was not seen that tells the versions apart.
        if self._version == 5 or (not self._version and not fits(body)):
            _, place = properties(body, place)
        filters: list[str] = []
        while place + 2 < len(body) and len(filters) < _SHOWN:
            length = int.from_bytes(body[place : place + 2], "big")
            filters.append(_text(body[place + 2 : place + 2 + length]))
            place += 2 + length + with_options
        return ", ".join(filters)[:_SHOWN]

    def _response(self, kind: int, body: bytes, begin: int, end: int) -> None:
        if kind in _ASKED_BY:
            exchange = self.answer((_ASKED_BY[kind], body[:2]))
            self._finish(exchange, self._reason(kind, body), begin, end)
        elif kind == PUBREC:
            exchange, reason = self.answer((PUBLISH, body[:2])), self._reason(kind, body)
            if exchange and reason < _ERROR:
                exchange.response_begin = begin
                self.ask((PUBREC, body[:2]), exchange)
            else:
                self._finish(exchange, reason, begin, end)
        elif kind == PUBCOMP:
            self._finish(self.answer((PUBREC, body[:2])), self._reason(kind, body), begin, end)
        elif kind == CONNACK:
            exchange = self.answer(CONNECT)
            self._finish(exchange, body[1], begin, end)
            if exchange and body[1]:
                exchange.failed = True
        elif kind == PINGRESP:
            self._finish(self.answer(PINGREQ), 0, begin, end)

    def _reason(self, kind: int, body: bytes) -> int:
        """Return the reason code; of several the worst; 0 where there is none."""
        if kind not in (SUBACK, UNSUBACK):
            return body[2] if len(body) > 2 else 0
        place = properties(body, 2)[1] if self._version == 5 else 2
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


def _text(data: bytes) -> str:
    return data[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


MQTT = Protocol("mqtt", Mqtt, partial(match, REQUEST), partial(match, RESPONSE))
