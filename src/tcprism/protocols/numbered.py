"""Protocols whose responses name their request, so that a gap costs only what was in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain

from tcprism.protocols import RESPONSE, WAITING_MAX, Exchange, Match, Parser

_FRAMES = 16  # more of them make nothing surer

# The end of the frame at a place, which may be behind the data; or one of these.
MORE, NONSENSE = 0, -1
Check = Callable[[bytes, int], int]


class Numbered(Parser):
    """Pairs by what both request and response carry: a number, or a channel and a method."""

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._asked: dict[Hashable, Exchange] = {}
        self._doubtful: dict[Hashable, Exchange] = {}  # whose response may have been in a gap
        self._all_seen = True  # the requests: one that was not may use a number again

    def ask(self, number: Hashable, exchange: Exchange) -> None:
        """Let a request wait for its response."""
        self._doubt(number)
        if number in self._asked:  # used again: the response to the former was not seen
            self._give_up(self._asked.pop(number))
        elif len(self._asked) >= WAITING_MAX:
            self.done.append(self._asked.pop(next(iter(self._asked))))
        self._asked[number] = exchange

    def asked(self, number: Hashable) -> Exchange | None:
        """Return the request that waits for such a response, and let it wait."""
        return self._asked.get(number) or self._doubtful.get(number)

    def answer(self, number: Hashable) -> Exchange | None:
        """Return the request that a response belongs to; None: it was not seen."""
        exchange = self._asked.pop(number, None)
        if exchange is None and (exchange := self._doubtful.pop(number, None)):
            exchange.gap = not self._all_seen
        return exchange

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that responses may be missing: they are, if none comes later."""
        if side != RESPONSE:
            self._all_seen = False
            return
        for number, exchange in self._asked.items():
            self._doubt(number)
            exchange.gap = True
            self._doubtful[number] = exchange
        self._asked.clear()
        while len(self._doubtful) > WAITING_MAX:
            self._doubt(next(iter(self._doubtful)))

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests without a response, also those whose response may be lost."""
        return chain(self._doubtful.values(), self._asked.values())

    def _doubt(self, number: Hashable) -> None:
        if self._doubtful and number in self._doubtful:
            self._give_up(self._doubtful.pop(number))

    def _give_up(self, exchange: Exchange) -> None:
        exchange.gap = True
        self.done.append(exchange)


def follow(data: bytes, check: Check) -> Match:
    """Say whether data begins with frames, of which the last may be cut."""
    place = 0
    for _ in range(_FRAMES):
        if place >= len(data):
            break
        end = check(data, place)
        if end == NONSENSE:
            return Match.NO
        if end == MORE:
            return Match.YES if place else Match.MORE
        place = end
    return Match.YES
