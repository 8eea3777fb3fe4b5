"""Redis: replies in the order of commands, and what comes unasked."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

from tcprism.protocols import REQUEST, Exchange, Protocol
from tcprism.protocols.redis_commands import describe
from tcprism.protocols.redis_wire import Reply, Wire, agree, request_match, response_match

_ERROR = re.compile(rb"-([A-Z][A-Z0-9_]{0,31})")
_STATUS = re.compile(rb"\+([A-Z]{1,16})(?: |$)")

_CHANGES = ("SUBSCRIBE", "UNSUBSCRIBE")
_CONFIRMED = frozenset(f"{kind}{change}" for kind in ("", "P", "S") for change in _CHANGES)
_SPECIAL = _CONFIRMED | {"CLIENT REPLY", "SYNC"}
_MODES = frozenset(("HELLO", "MONITOR", "PSYNC", "RESET"))
_MESSAGES = frozenset((b"message", b"pmessage", b"smessage"))


class Redis(Wire):
    """Reads RESP."""

    protocol = "redis"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._silent = 0  # commands to come that get no reply; below 0: all
        self._confirmations: deque[int] = deque()  # of the waiting (un)subscriptions; 0: of all
        self._subscribed = {"": 0, "P": 0, "S": 0}
        self._counted = True  # whether that is known for sure
        self._pubsub = self._resp3 = self._monitor = False

    def begun(self) -> tuple[int | None, Exchange | None]:
        """Return the beginnings of what is being read."""
        reply = self.reply
        begin = reply.begin if reply and reply.words is None else None
        return begin, self._exchange(None) if self.more else None

    def lost(self, side: int, begin: int, end: int) -> None:
        """Forget what was being read."""
        super().lost(side, begin, end)
        if side == REQUEST:
            self.more = 0
        else:
            self.reply = None
            self._confirmations.clear()
            self._counted = False

    def _exchange(self, end: int | None) -> Exchange:
        method, resource = describe(self.arguments, self.show_values)
        return Exchange("redis", method, resource, self.begin, end)

    def asked(self, end: int) -> None:
        """Take a command."""
        exchange = self._exchange(end)
        if not self.ask(exchange):
            return
        if exchange.method in _SPECIAL:
            self._special(exchange)
        if self._silent:
            self._silent -= self._silent > 0
            exchange.answered = False
            self.done.append(exchange)
            return
        self.waiting.append(exchange)

    def _special(self, exchange: Exchange) -> None:
        """Take note of commands after which replies come otherwise."""
        if exchange.method in _CONFIRMED:
            self._pubsub = True
            self._confirmations.append(self.size - 1)
        elif exchange.method == "SYNC":
            self.ended_here = True  # a database and then commands follow, from the server
        else:
            mode = self.arguments[2].upper() if len(self.arguments) > 2 else b""
            if mode == b"SKIP":
                self._silent = self._silent or 2
            else:
                self._silent = {b"ON": 0, b"OFF": -1}.get(mode, self._silent)

    def may_be_unasked(self, kind: bytes) -> bool:
        """Say whether a reply may be a message or confirm a subscription."""
        if kind == b">":
            return True
        return kind == b"*" and not self._resp3 and (self._pubsub or not self.waiting)

    def replied(self, first: bytes, begin: int, end: int) -> None:
        """Pair a reply of one element."""
        error = first if first[:1] == b"-" else b""
        if self._monitor and first[:1] == b"+" and first[1:2].isdigit():
            return
        if self._confirmations:
            self._refused(first, error)
        self._pair(first, error, begin, end)

    def replied_more(self, reply: Reply, end: int) -> None:
        """Pair a reply that has elements, or came in pieces."""
        if reply.words and self._unasked(reply, end):
            return
        if self._confirmations:
            self._refused(reply.first, reply.error)
        self._pair(reply.first, reply.error, reply.begin, end)

    def _pair(self, first: bytes, error: bytes, begin: int, end: int) -> None:
        exchange = self.answer(end)
        if not exchange:
            return
        exchange.response_begin, exchange.response_end = begin, end
        exchange.status = _status(first)
        if error and (first[:1] in b"-!" or exchange.method == "EXEC"):
            exchange.failed = True
            code = _ERROR.match(error)
            exchange.status = code[1].decode() if code else "ERR"
        if exchange.method in _MODES:
            self._mode(exchange, first)
        self.done.append(exchange)

    def _mode(self, exchange: Exchange, first: bytes) -> None:
        if exchange.failed:
            return
        if exchange.method == "HELLO":
            self._resp3 = first[:1] == b"%"
        elif exchange.method == "MONITOR":
            self._monitor = True
        elif exchange.method == "PSYNC":
            self.ended_here = True
        else:
            self._pubsub = self._resp3 = self._monitor = False
            self._subscribed = {"": 0, "P": 0, "S": 0}

    def _unasked(self, reply: Reply, end: int) -> bool:
        """Take a message or a confirmation; return whether it was one."""
        assert reply.words
        word, *about = reply.words
        name = word.decode("ascii", "backslashreplace")
        if name.upper() in _CONFIRMED:
            self._confirmed(name.upper(), reply, end)
            return True
        pushed = reply.first[:1] == b">"
        if not pushed and not (word in _MESSAGES and about):
            return False
        self._pubsub |= not pushed
        channel = about[min(word == b"pmessage", len(about) - 1)] if about else b""
        resource = channel.decode("utf-8", "backslashreplace")
        message = Exchange("redis", name[:40], resource, None, None, reply.begin, end)
        message.answered = False
        self.done.append(message)
        return True

    def _confirmed(self, name: str, reply: Reply, end: int) -> None:
        """Take the confirmation of one channel: each has its own."""
        kind = name.removesuffix("SUBSCRIBE").removesuffix("UN")
        other = {"": "P", "P": ""}.get(kind)
        count = reply.number - (self._subscribed[other] if other is not None else 0)
        self._counted &= abs(count - self._subscribed[kind]) <= 1
        self._subscribed[kind] = count
        while self._subscribing() and self.waiting[0].method != name:
            self._give_up()
        if not self._subscribing() or not self._confirmations:
            return
        exchange = self.waiting[0]
        if exchange.response_begin is None:
            exchange.response_begin = reply.begin
        self._confirmations[0] -= 1
        more = self._confirmations[0]
        if more > 0 or (more < 0 and self._subscribed[kind] > 0):
            return
        self.waiting.popleft()
        self._confirmations.popleft()
        exchange.response_end = end
        exchange.status = "OK"
        exchange.gap |= more < 0 and not self._counted
        self.done.append(exchange)

    def _refused(self, first: bytes, error: bytes) -> None:
        """A subscription that is not confirmed is queued or an error, else its end was not seen."""
        while self._subscribing():
            plain = error or first == b"+QUEUED"
            if plain and self.waiting[0].response_begin is None:
                self._confirmations.popleft()
                return
            self._give_up()

    def _subscribing(self) -> bool:
        return bool(self.waiting) and self.waiting[0].method in _CONFIRMED

    def _give_up(self) -> None:
        """Let go a subscription whose last confirmation was not seen."""
        exchange = self.waiting.popleft()
        exchange.gap = True
        self.done.append(exchange)
        if self._confirmations:
            self._confirmations.popleft()


@lru_cache(256)
def _status(first: bytes) -> str:
    if first in (b"$-1", b"*-1", b"_"):
        return "nil"
    if first[:1] != b"+":
        return ""
    word = _STATUS.match(first)
    return word[1].decode() if word else "OK"


REDIS = Protocol("redis", Redis, request_match, response_match, agree=agree)
