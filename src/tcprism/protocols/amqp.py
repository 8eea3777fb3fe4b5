"""AMQP 0-9-1: methods paired by channel, published messages by their number where confirmed.

A channel answers methods in their order. After missing bytes a response may belong to what was not
seen, so the next of its kind is only taken with a `gap`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from struct import Struct, error

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
from tcprism.protocols.amqp_frames import (
    BODY,
    CHANNELS_MAX,
    CONTENT,
    FRAME,
    FRAME_END,
    HEADER,
    HEARTBEAT,
    METHOD,
    check,
    ids_at,
    match,
)
from tcprism.protocols.amqp_methods import (
    ACKED,
    ANSWERS,
    ASKED,
    CANCEL,
    CLOSE,
    CLOSED,
    CONFIRM,
    DELIVER,
    END,
    GET_EMPTY,
    GET_OK,
    NACKED,
    OF_BOTH,
    OF_SIDE,
    OPEN,
    PUBLISH,
    RETURN,
    TX,
    Ids,
)
from tcprism.protocols.numbered import follow

_FRAME_MAX = 1 << 24  # bytes; brokers allow 128 KiB
_ARGUMENTS = 1_024  # bytes of them: the names come first
_LOOKED_AT = 64  # methods that wait, to find the one that is answered
_SHOWN = 200  # characters
_BODY_SIZE = Struct(">HHQ")
_ACK = Struct(">QB")


class _Content:
    """A message whose frames are coming."""

    __slots__ = ("exchange", "left")

    def __init__(self, exchange: Exchange | None) -> None:
        self.exchange = exchange
        self.left = -1  # bytes of the body; below 0: its size is not known yet


class _Channel:
    """What waits for an answer on a channel."""

    def __init__(self, opened: bool) -> None:
        self.asked: deque[tuple[Ids, Exchange]] = deque()
        self.doubtful: set[Ids] = set() if opened else set(ASKED)  # may answer what was not seen
        self.confirms: bool | None = False if opened else None
        self.number = 0  # of the next message to be confirmed; 0: not known
        self.certain = 0  # an acknowledgement of messages before this one may be lost
        self.unconfirmed: dict[int, Exchange] = {}
        self.contents: list[_Content | None] = [None, None]

    def only_last_waits(self) -> bool:
        """Whether of all messages only the last can have failed."""
        last = self.number - 1
        alone = list(self.unconfirmed) == [last] and last >= self.certain
        return alone and not self.contents[REQUEST]


class Amqp(Parser):
    """Reads AMQP."""

    protocol = "amqp"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._channels: dict[int, _Channel] = {}

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read frames; bodies are passed over."""
        place, size = 0, len(data)
        while size - place >= 8:
            kind, number, length = FRAME.unpack_from(data, place)
            if data.startswith(b"AMQP", place):  # the server sends it too, to refuse a version
                self._channels = {0: _Channel(True)}
                place += len(HEADER)
                continue
            if kind not in (METHOD, CONTENT, BODY, HEARTBEAT) or length > _FRAME_MAX:
                raise NotThisProtocol
            end = place + 8 + length
            if end <= size and data[end - 1] != FRAME_END:
                raise NotThisProtocol
            body_end = min(end - 1, place + 7 + _ARGUMENTS)
            if kind in (METHOD, CONTENT) and size < body_end:
                break
            channel = self._channel(number)
            if kind == METHOD:
                body = data[place + 7 : body_end]
                (self._request, self._response)[side](channel, number, body, at + place, at + end)
            elif kind != HEARTBEAT and (content := channel.contents[side]):
                if kind == CONTENT:
                    content.left = _unpack(_BODY_SIZE, data[place + 7 : body_end])[2]
                else:
                    content.left -= length
                self._more(side, channel, content, at + end)
            place = end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote."""
        return 0 if follow(data, partial(check, side)) is Match.YES else -1

    def lost(self, side: int, begin: int, end: int) -> None:
        """After missing bytes, only numbers of messages say what an answer belongs to."""
        for channel in self._channels.values():
            for ids, exchange in channel.asked:
                channel.doubtful.add(ids)
                self._give_up(exchange)
            channel.asked.clear()
            if (content := channel.contents[side]) and content.exchange:
                self._give_up(content.exchange)
            channel.contents[side] = None
            if side == REQUEST:
                channel.doubtful.update(ASKED)
                channel.number = 0
                channel.confirms = channel.confirms or None
            elif channel.unconfirmed:
                channel.certain = next(reversed(channel.unconfirmed)) + 1

    def pending(self) -> Iterator[Exchange]:
        """Yield what was not answered, and messages that were not confirmed."""
        for channel in self._channels.values():
            yield from (exchange for _, exchange in channel.asked)
            yield from channel.unconfirmed.values()

    def _channel(self, number: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            if len(self._channels) > CHANNELS_MAX:
                raise NotThisProtocol
            channel = self._channels[number] = _Channel(False)
        return channel

    def _request(self, channel: _Channel, number: int, body: bytes, begin: int, end: int) -> None:
        ids = ids_at(body, 0)
        if ids == PUBLISH:
            exchange = Exchange("amqp", "basic.publish", _route(body, 6), begin)
            self._expect(REQUEST, channel, exchange)
        elif method := ASKED.get(ids):
            if ids == OPEN:
                self._channels[number] = channel = _Channel(True)
            names, bits = _names(body, 4 + method.skip, method.names)
            shown = _text(names[0]) if names and ids != CANCEL else ""  # tags are another each time
            exchange = Exchange("amqp", method.name, shown, begin, end)
            if ids in (CONFIRM, TX):
                channel.confirms, channel.number = ids == CONFIRM, 1
            if method.no_wait & bits:
                exchange.answered = False
                self.done.append(exchange)
            elif len(channel.asked) >= WAITING_MAX:
                raise NotThisProtocol
            else:
                channel.asked.append((ids, exchange))
        elif ids == CLOSED:
            self._channels.pop(number)
        elif ids not in OF_SIDE[REQUEST] and ids not in OF_BOTH:
            raise NotThisProtocol

    def _response(self, channel: _Channel, number: int, body: bytes, begin: int, end: int) -> None:
        ids = ids_at(body, 0)
        if ids in ANSWERS:
            self._answer(channel, ids, begin, end)
            if ids == CLOSED:
                self._forget(self._channels.pop(number))
        elif ids in (ACKED, NACKED):
            tag, bits = _unpack(_ACK, body[4:])
            self._confirm(channel, tag, bits & 1, ids == NACKED, begin, end)
        elif ids == DELIVER:
            names, _ = _names(body, 4, 1)
            route = _route(body, 4 + 1 + len(names[0]) + 9)
            delivery = Exchange("amqp", "basic.deliver", route, None, None, begin, answered=False)
            self._expect(RESPONSE, channel, delivery)
        elif ids == RETURN:
            names, _ = _names(body, 4 + 2, 1)
            route, code = _route(body, 4 + 2 + 1 + len(names[0])), str(int.from_bytes(body[4:6]))
            returned = Exchange("amqp", "basic.return", route, None, None, begin, answered=False)
            returned.status, returned.failed = code, True
            self._expect(RESPONSE, channel, returned)
        elif ids == CLOSE:
            self._fail(channel, body, begin, end)
        elif ids == END:
            for other in self._channels.values():
                self._fail(other, body, begin, end)
        elif ids not in OF_SIDE[RESPONSE] and ids not in OF_BOTH:
            raise NotThisProtocol

    def _expect(self, side: int, channel: _Channel, exchange: Exchange | None) -> None:
        """Let the frames of a message follow."""
        if (former := channel.contents[side]) and former.exchange:
            self._give_up(former.exchange)
        channel.contents[side] = _Content(exchange)

    def _more(self, side: int, channel: _Channel, content: _Content, end: int) -> None:
        """Take note that a frame of a message ends."""
        if content.left > 0:
            return
        channel.contents[side] = None
        if not (exchange := content.exchange):
            return
        if side == RESPONSE:
            exchange.response_end = end
            self.done.append(exchange)
            return
        exchange.end = end
        if channel.confirms and channel.number and len(channel.unconfirmed) < WAITING_MAX:
            channel.unconfirmed[channel.number] = exchange
            channel.number += 1
        elif channel.confirms is False:
            exchange.answered = False
            self.done.append(exchange)
        else:  # nobody knows whether, or with which number, it will be confirmed
            channel.number = 0
            self._give_up(exchange)

    def _answer(self, channel: _Channel, ids: Ids, begin: int, end: int) -> None:
        asked = ANSWERS[ids]
        doubtful = asked in channel.doubtful
        channel.doubtful.discard(asked)
        looked_at = [waiting for waiting, _ in islice(channel.asked, _LOOKED_AT)]
        if asked not in looked_at:
            if ids == GET_OK:
                self._expect(RESPONSE, channel, None)
            return
        for _ in range(looked_at.index(asked)):  # their answers were not seen
            self._give_up(channel.asked.popleft()[1])
        exchange = channel.asked.popleft()[1]
        exchange.gap = doubtful
        exchange.response_begin, exchange.response_end = begin, end
        if ids == GET_OK:
            self._expect(RESPONSE, channel, exchange)
            return
        exchange.status = "get-empty" if ids == GET_EMPTY else ""
        self.done.append(exchange)

    def _confirm(
        self, channel: _Channel, tag: int, multiple: int, failed: bool, begin: int, end: int
    ) -> None:
        """Finish messages that are acknowledged; 0 is the number of all."""
        numbers = channel.unconfirmed
        while numbers:
            number = next(iter(numbers)) if multiple else tag
            if number not in numbers or (tag and number > tag):
                break
            exchange = numbers.pop(number)
            exchange.response_begin, exchange.response_end = begin, end
            exchange.failed, exchange.status = failed, "nack" if failed else "ack"
            # Several may have been acknowledged before, by what was not seen.
            exchange.gap = bool(multiple) and number < channel.certain and number != tag
            self.done.append(exchange)
            if not multiple:
                break

    def _fail(self, channel: _Channel, body: bytes, begin: int, end: int) -> None:
        """The server closes a channel: whatever waited there has failed."""
        code = str(ids_at(body, 2)[1])
        names, _ = _names(body, 6, 1)
        place = 7 + len(names[0])
        exchanges = [exchange for _, exchange in channel.asked]
        if ids_at(body, place) == PUBLISH and channel.only_last_waits():
            exchanges += channel.unconfirmed.values()
            channel.unconfirmed.clear()
        for exchange in exchanges:
            exchange.status, exchange.failed = code, True
            exchange.response_begin, exchange.response_end = begin, end
        self.done.extend(exchanges)
        channel.asked.clear()
        self._forget(channel)

    def _forget(self, channel: _Channel) -> None:
        for exchange in channel.unconfirmed.values():
            self._give_up(exchange)
        channel.unconfirmed.clear()

    def _give_up(self, exchange: Exchange) -> None:
        exchange.gap = True
        self.done.append(exchange)


def _unpack(form: Struct, data: bytes) -> tuple[int, ...]:
    try:
        return form.unpack_from(data)
    except error as short:
        raise NotThisProtocol from short


def _names(body: bytes, place: int, count: int) -> tuple[list[bytes], int]:
    """Return short strings, and the byte behind them."""
    names = []
    for _ in range(count):
        length = body[place] if place < len(body) else 0
        names.append(body[place + 1 : place + 1 + length])
        place += 1 + length
    return names, body[place] if place < len(body) else 0


def _route(body: bytes, place: int) -> str:
    """Return an exchange and a routing key; the exchange without a name routes to queues."""
    (exchange, key), _ = _names(body, place, 2)
    return _text(exchange + b"/" + key if exchange else key)


def _text(data: bytes) -> str:
    return data[:_SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]


AMQP = Protocol("amqp", Amqp, partial(match, REQUEST), partial(match, RESPONSE))
