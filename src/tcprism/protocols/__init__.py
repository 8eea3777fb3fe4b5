"""Protocols: requests and their responses, read off the bytes of a connection.

A parser is told the bytes of each direction in the order of the stream, without those that were not
captured, and makes an `Exchange` of each request with its response. It pairs them by what the
protocol says (order, numbers), never by time. Offsets count the bytes of a direction: they are
sequence numbers that do not wrap.

Another package offers a protocol by an entry point in the group `tcprism.protocols`, whose object
is a `Protocol`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

GROUP = "tcprism.protocols"

REQUEST, RESPONSE = 0, 1  # the two directions: what the client sends, what the server sends

# Without a bound, who never answers would fill the memory.
WAITING_MAX = 65_536


class Match(Enum):
    """Whether bytes are of a protocol; MORE: there are too few to say."""

    NO = 0
    YES = 1
    MORE = 2


class NotThisProtocol(Exception):
    """The bytes do not follow the protocol."""


@dataclass(slots=True)
class Exchange:
    """A request and its response.

    `begin` and `end` are offsets: of the request's first byte and of the byte behind its last;
    `response_begin` and `response_end` are the response's. None: not known, or there is none.
    What a server sends unasked has no `begin`, and `response_begin` from the start. `gap` says that
    bytes of it were not seen, so that its status or its ends may be wanting;
    `answered` is False where the protocol has no response to it. `request_bytes` and
    `response_bytes` are given where bytes of others lie between the ends; below 0: not known.
    """

    protocol: str
    method: str
    resource: str = ""
    begin: int | None = 0
    end: int | None = None
    response_begin: int | None = None
    response_end: int | None = None
    status: str = ""
    failed: bool = False
    gap: bool = False
    answered: bool = True
    request_bytes: int | None = None
    response_bytes: int | None = None


class Parser(ABC):
    """Reads one connection.

    `show_values`: whether resources keep the values in them, which may be secrets (query strings,
    literals, keys' values); else each is a `?`. What it has made is in `done`, what waits for an
    answer in `waiting`.
    """

    protocol = ""

    def __init__(self, show_values: bool = False) -> None:
        self.show_values = show_values
        self.done: list[Exchange] = []
        self.waiting: deque[Exchange] = deque(maxlen=WAITING_MAX)
        self.successor: Parser | None = None  # that reads on, as after an upgrade
        self.ended_here = False  # what follows is of another protocol, nobody knows which

    @abstractmethod
    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read what is whole in `data`, whose first byte has the offset `at`.

        Return the place in `data` of the first byte that is still wanted: those before it are not
        passed again, those from it on are, with more behind them. A place behind the end of `data`
        passes over bytes that need not be seen, such as a body. Raises NotThisProtocol.
        """

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note that the bytes between two offsets are missing.

        Of what waits for a response nothing can be said but that there was a gap: which response
        belongs to which request would be a guess. A protocol that numbers them does better.
        """
        for exchange in self.waiting:
            exchange.gap = True
        self.done.extend(self.waiting)
        self.waiting.clear()

    @abstractmethod
    def find(self, side: int, data: bytes) -> int:
        """After missing bytes, return where in `data` a frame begins; -1: nowhere in it."""

    def ended(self, side: int, at: int) -> None:
        """Take note that a direction has ended at an offset."""
        return

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet, or only a part of it."""
        return iter(self.waiting)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol: how to tell it and how to read it.

    `request` and `answer` are shown the first bytes that were seen of a direction, at least one,
    and say whether a client or a server sends such. They may be in the middle of a connection, but
    at the start of what a process wrote. Both must be strict: a wrong protocol is worse than none.
    `alone`: `request` is so strict that a request is shown to which not a byte was answered.
    `agree` tells, where both say yes, whether such is answered with such.
    """

    name: str
    parser: Callable[[bool], Parser]
    request: Callable[[bytes], Match]
    response: Callable[[bytes], Match]
    alone: bool = False
    agree: Callable[[bytes, bytes], bool] = lambda _request, _response: True
