"""The order of PostgreSQL's requests and responses: which response is which request's."""

from __future__ import annotations

from collections import deque

from tcprism.protocols import WAITING_MAX, Exchange, NotThisProtocol

_OWN_TAG = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE"))


class Asked:
    """A request that waits: for so many parts of its response, or for ReadyForQuery."""

    __slots__ = ("exchange", "left", "ready")

    def __init__(self, exchange: Exchange | None, left: int, ready: bool) -> None:
        self.exchange = exchange  # None: of a Sync alone
        self.left = left
        self.ready = ready


class Order:
    """What waits for a response, in its order; what has one is appended to `done`.

    Parse, Bind, Describe and Close are of the Execute, Sync or Flush behind them: until it comes
    they are the `group`. A Sync behind an Execute belongs to it: there the server commits.

    After missing bytes there is a doubt: a response may be to a request that was not seen. It ends
    with a request that comes after a ReadyForQuery for which none waited. Missing bytes of the
    response to the only request that waits raise none.
    """

    def __init__(self, done: list[Exchange]) -> None:
        self._done = done
        self.waiting: deque[Asked] = deque()
        self.group: Exchange | None = None
        self._left = 0  # parts of the group's response
        self._skipping = False  # what the server does between an error and a Sync
        self.copying: Asked | None = None  # data goes to the server
        self._hole = False  # bytes of the response to the only one that waits are missing
        self._copy_hole = False  # bytes of what is copied are missing
        self._pipelined = False
        self._doubt = self._idle = False

    def begin(self, exchange: Exchange) -> Exchange:
        """Take the begin of a request."""
        self._forget_group()
        if self._hole:  # the end of the response is missing as well
            self._drop(self._pipelined)
        return exchange

    def part(self, exchange: Exchange) -> None:
        """Take a message of a group, which may be its first."""
        self.group = exchange
        self._left += 1

    def close(self, end: int) -> bool:
        """Take a Close: behind an Execute that waits it is part of that."""
        last = self.waiting[-1] if self.waiting and not self.group else None
        if not last or last.ready or not last.exchange or self._hole:
            return False
        last.exchange.end = end
        last.left += 1
        return True

    def ask(self, exchange: Exchange | None, end: int, ready: bool, parts: int = 0) -> None:
        """Take the end of a request, whose response has so many parts more than its group's."""
        asked = Asked(exchange, self._left + parts, ready)
        self.group, self._left = None, 0
        if exchange:
            exchange.end = end
        if self._doubt and not self._idle:
            self._give_up(asked)
            return
        self._doubt = self._idle = False
        if self._skipping:
            self._skip(asked)
            return
        if len(self.waiting) >= WAITING_MAX:
            raise NotThisProtocol
        self._pipelined |= bool(self.waiting) and self.waiting[-1].ready
        self.waiting.append(asked)

    def sync(self, end: int) -> None:
        """Take a Sync."""
        last = self.waiting[-1] if self.waiting else None
        if self._skipping:
            if self.group:
                self.ask(self.group, end, False)
            self._skipping = False
            self.ask(None, end, True)
        elif self.group:
            self.ask(self.group, end, True)
        elif last and last.exchange and not last.ready:
            last.exchange.end, last.ready = end, True
        elif not last or last is not self.copying:  # while it copies the server ignores it
            self.ask(None, end, True)

    def copied(self, end: int) -> None:
        """Take the end of what is copied to the server: its response is what follows."""
        asked = self.copying or (self.waiting[-1] if self.waiting else None)
        if asked and asked.exchange:
            asked.exchange.end = end
            asked.exchange.response_begin = None
        self._copy_hole = False

    def answer(self, begin: int) -> None:
        """Take a message of the response to what waits first."""
        exchange = self.waiting[0].exchange if self.waiting else None
        if exchange and exchange.response_begin is None and not self._hole:
            exchange.response_begin = begin

    def authenticated(self) -> None:
        """Take that the server lets the client in."""
        if self.waiting and (exchange := self.waiting[0].exchange):
            exchange.status = "AuthenticationOk"

    def awaits_ready(self) -> bool:
        """Whether what waits first is all that is before the next ReadyForQuery."""
        return bool(self.waiting) and self.waiting[0].ready and not self._hole

    def whole(self, status: str, begin: int, end: int) -> bool:
        """Take all of the response to what waits first; return whether it was that."""
        asked = self.waiting[0]
        exchange = asked.exchange
        if not exchange or exchange.response_begin is not None or asked is self.copying:
            return False
        if not _fits(exchange.method, status):
            return False
        exchange.status, exchange.response_begin, exchange.response_end = status, begin, end
        self.waiting.popleft()
        self._done.append(exchange)
        self._idle = self._skipping = False
        return True

    def part_done(self, status: str, end: int) -> None:
        """Take the end of a part of a response, which may be a statement's and have a status."""
        if not self.waiting:
            return
        asked = self.waiting[0]
        if status and asked.exchange:
            known = asked.exchange.status or self._hole
            if not known and not _fits(asked.exchange.method, status):
                self._drop(True)
                return
            asked.exchange.status = status
        asked.left -= 1
        if not asked.ready and asked.left <= 0:
            self._finish(self.waiting.popleft(), end)

    def failed(self, status: str, end: int, fatal: bool) -> None:
        """Take an error: what was sent before the next Sync is skipped, a fatal one is the last."""
        if not self.waiting:
            return
        asked = self.waiting[0]
        if asked.exchange:
            asked.exchange.status, asked.exchange.failed = status, True
        if asked.ready and not fatal:
            return
        self._finish(self.waiting.popleft(), end)
        self._skipping = True
        while self.waiting:
            asked = self.waiting[0]
            self._skip(asked)
            if asked.ready and not fatal:
                asked.exchange, self._skipping = None, False
                break
            self.waiting.popleft()

    def ready(self, end: int) -> None:
        """Take a ReadyForQuery."""
        self._idle, self._skipping = not self.waiting, False
        while self.waiting:
            asked = self.waiting.popleft()
            if not asked.ready:
                self._give_up(asked)
                continue
            self._finish(asked, end)
            self._hole = False
            return

    def lost_requests(self) -> None:
        """Take note that bytes of requests are missing; what is copied need not be seen."""
        if self.copying and not self._hole:
            self._copy_hole = True
            return
        self._forget_group()
        last = self.waiting[-1] if self.waiting else None
        if last and last.exchange and not last.ready:
            last.exchange.gap = True  # the Sync behind it may be missing
        if self._hole:
            self._drop(True)
        self._doubt, self._idle, self._skipping = True, False, False

    def lost_responses(self) -> None:
        """Take note that bytes of responses are missing."""
        last = self.waiting[-1] if self.waiting else None
        only = last and last.ready and sum(asked.ready for asked in self.waiting) == 1
        if not last or not only or self._doubt or self._copy_hole:
            self._drop(True)
            return
        while self.waiting[0] is not last:
            self._give_up(self.waiting.popleft())
        self._hole = True
        if last.exchange:
            last.exchange.status = ""

    def _drop(self, doubt: bool) -> None:
        while self.waiting:
            self._give_up(self.waiting.popleft())
        self._hole, self._copy_hole, self.copying = False, False, None
        self._doubt |= doubt
        self._idle = False

    def _forget_group(self) -> None:
        if self.group:
            self._give_up(Asked(self.group, 0, False))
        self.group, self._left = None, 0

    def _give_up(self, asked: Asked) -> None:
        if asked.exchange:
            asked.exchange.gap = True
            self._done.append(asked.exchange)

    def _skip(self, asked: Asked) -> None:
        if asked.exchange:
            asked.exchange.failed, asked.exchange.answered = True, False
            self._done.append(asked.exchange)

    def _finish(self, asked: Asked, end: int) -> None:
        if exchange := asked.exchange:
            exchange.response_end = end
            if self._hole and (not exchange.status or exchange.response_begin is None):
                exchange.gap = True
            if self._copy_hole and asked is self.copying:
                exchange.gap, exchange.end = True, None
            self._done.append(exchange)
        if asked is self.copying:
            self.copying, self._copy_hole = None, False


def _fits(operation: str, tag: str) -> bool:
    """Whether a statement may have such a tag; another's tells that the order is lost."""
    word = tag.partition(" ")[0]
    return word == operation or word not in _OWN_TAG or operation not in _OWN_TAG
