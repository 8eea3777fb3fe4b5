"""Kafka: requests paired by correlation id, with the topic or group that they are about."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import partial
from struct import Struct

from tcprism.protocols import REQUEST, Exchange, Match, NotThisProtocol, Protocol
from tcprism.protocols.kafka_wire import (
    API_VERSIONS,
    ERRORS,
    FETCH,
    METADATA,
    NAMES,
    PRODUCE,
    RESOURCES,
    VERSION_MAX,
    Nonsense,
    Reader,
    Short,
    acknowledgements,
    failure,
    fetch_epoch,
    is_compact,
    topic_ids,
)
from tcprism.protocols.numbered import MORE, NONSENSE, Check, Numbered, follow

_SIZE_MAX = 100 << 20  # bytes: socket.request.max.bytes
_NUMBERS = 1 << 28  # clients count from 0 or 1, and no connection lives that long
_SEEN = 4_096  # bytes of a message: what is behind does not matter
_ENOUGH = 1_024  # bytes, to tell it from other protocols
_TOPIC_LEAST = 8  # bytes
_SHOWN = 200  # characters
_TOPICS_MAX = 65_536

_HEAD = Struct(">ihhih")  # size, API key, version, correlation id, length of the client's name
_RESPONSE = Struct(">ii")
_NAME = re.compile(rb"[\x20-\x7e]*")

# Topics' names by identifier. A client may ask one broker for them, and fetch from another.
_topics: dict[bytes, str] = {}


@dataclass(slots=True)
class _Request(Exchange):
    """A request, and what is needed to read its response."""

    api: int = 0
    version: int = 0


class Kafka(Numbered):
    """Reads Kafka."""

    protocol = "kafka"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._fetched = ""  # what a fetch session is about: it is not said again

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read messages; records are passed over."""
        place, total = 0, len(data)
        least = _HEAD.size if side == REQUEST else _RESPONSE.size
        read = self._request if side == REQUEST else self._response
        while total - place >= 4:
            size = int.from_bytes(data[place : place + 4], "big")
            if size > _SIZE_MAX or size < least - 4:
                raise NotThisProtocol
            end = place + 4 + size
            if total - place < least:
                break
            seen = data[place : min(end, place + _SEEN)]
            try:
                read(seen, at + place, at + end, len(seen) < min(_SEEN, size + 4))
            except Short:
                break
            except Nonsense:
                raise NotThisProtocol from None
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        check = _check_request if side == REQUEST else _check_response
        return 0 if follow(data, check) is Match.YES else -1

    def _request(self, data: bytes, begin: int, end: int, cut: bool) -> None:
        _, api, version, number, length = _HEAD.unpack_from(data)
        if not (0 <= api < len(NAMES) and 0 <= version <= VERSION_MAX and number >= 0):
            raise NotThisProtocol
        resource, acknowledged = "", True
        if read := RESOURCES.get(api):
            reader = Reader(data, _HEAD.size + max(length, 0), is_compact(api, version))
            try:
                reader.tags()
                body = reader.place
                name, count = read(reader, version)
                resource = self._resource(api, version, name, count)
                if api == FETCH and version >= 7:
                    resource = self._session(resource, fetch_epoch(reader, body, version))
                acknowledged = api != PRODUCE or acknowledgements(reader, body, version) != 0
            except Short:
                if cut:
                    raise
                if end - begin == len(data):
                    raise NotThisProtocol from None
        exchange = _Request("kafka", NAMES[api], resource, begin, end, api=api, version=version)
        if acknowledged:
            self.ask(number, exchange)
        else:
            exchange.answered = False
            self.done.append(exchange)

    def _resource(self, api: int, version: int, name: bytes, count: int) -> str:
        if version >= 13 and api in (PRODUCE, FETCH) and count:
            text = _topics.get(name) or urlsafe_b64encode(name).decode().rstrip("=")
        else:
            text = name[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]
        return text if count < 2 else f"{text} +{count - 1}"

    def _session(self, resource: str, epoch: int) -> str:
        """Return what is fetched: in a session, what has changed is said only."""
        if epoch <= 0:
            self._fetched = resource
        return resource or self._fetched

    def _response(self, data: bytes, begin: int, end: int, cut: bool) -> None:
        number = _RESPONSE.unpack_from(data)[1]
        exchange = self.asked(number)
        code: int | None = None
        if isinstance(exchange, _Request):
            compact = is_compact(exchange.api, exchange.version)
            reader = Reader(data, _RESPONSE.size, compact)
            try:
                if exchange.api != API_VERSIONS:
                    reader.tags()
                if exchange.api == METADATA and exchange.version >= 10:
                    if cut:
                        raise Short
                    _remember(reader, exchange.version)
                else:
                    code = failure(reader, exchange.api, exchange.version)
            except Short:
                if cut:
                    raise
        if exchange := self.answer(number):
            exchange.response_begin, exchange.response_end = begin, end
            if code is not None:
                exchange.status, exchange.failed = ERRORS.get(code, str(code)), code != 0
            self.done.append(exchange)


def _remember(reader: Reader, version: int) -> None:
    for number, name in topic_ids(reader, version):
        if number not in _topics and len(_topics) >= _TOPICS_MAX:
            del _topics[next(iter(_topics))]
        if name:
            _topics[number] = name[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


def _check_request(data: bytes, place: int) -> int:
    """Return the end of a request, if all that is seen of it is as it must be."""
    head = data[place : place + _SEEN]
    size = int.from_bytes(head[:4], "big")
    if len(head) < 4:
        return MORE if head[0] <= _SIZE_MAX >> 24 else NONSENSE
    if not _HEAD.size - 4 <= size <= _SIZE_MAX:
        return NONSENSE
    end = place + 4 + size
    if len(head) < _HEAD.size:
        return MORE
    _, api, version, number, length = _HEAD.unpack_from(head)
    sane = 0 <= api < len(NAMES) and 0 <= version <= VERSION_MAX and number >= 0
    name = head[_HEAD.size : _HEAD.size + max(length, 0)]
    if not sane or not -1 <= length <= min(255, size - 10) or not _NAME.fullmatch(name):
        return NONSENSE
    if len(name) < length:
        return MORE
    return _check_resource(head, _HEAD.size + len(name), end - place, end)


def _check_resource(head: bytes, place: int, size: int, end: int) -> int:
    """Check what a request is about; zeros are of many protocols."""
    _, api, version, _, length = _HEAD.unpack_from(head)
    reader = Reader(head[:size], place, is_compact(api, version))
    read = RESOURCES.get(api)
    try:
        reader.tags()
        body = reader.place
        name, count = read(reader, version) if read else (b"", 0)
        if count * _TOPIC_LEAST > size:
            return NONSENSE
        if api == PRODUCE and not -1 <= acknowledgements(reader, body, version) <= 1:
            return NONSENSE
    except Short:
        return MORE if len(head) < min(size, _SEEN) else NONSENSE
    except Nonsense:
        return NONSENSE
    by_id = version >= 13 and api in (PRODUCE, FETCH)
    if count and not by_id and not (name and _NAME.fullmatch(name)):
        return NONSENSE
    whole = len(head) >= size
    return end if length > 0 or (read and whole) else NONSENSE


def _check_response(data: bytes, place: int) -> int:
    """Return the end of a response, if its size and its number may be such."""
    head = data[place : place + _RESPONSE.size]
    if len(head) < _RESPONSE.size:
        return MORE if head[0] <= _SIZE_MAX >> 24 else NONSENSE
    size, number = _RESPONSE.unpack_from(head)
    return int(place + 4 + size) if 4 <= size <= _SIZE_MAX and 0 <= number < _NUMBERS else NONSENSE


def _match(check: Check, data: bytes) -> Match:
    """Say whether all that is seen may be Kafka; of the first message it must be enough."""
    found = follow(data, check)
    size = int.from_bytes(data[:4], "big")
    return Match.MORE if found is Match.YES and len(data) < min(4 + size, _ENOUGH) else found


KAFKA = Protocol("kafka", Kafka, partial(_match, _check_request), partial(_match, _check_response))
