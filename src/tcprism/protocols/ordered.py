"""Protocols whose responses come in the order of requests: pairing, also after missing bytes."""

from __future__ import annotations

from collections.abc import Iterator

from tcprism.protocols import REQUEST, Exchange, NotThisProtocol, Parser


class Ordered(Parser):
    """Pairs requests with responses in their order.

    After missing responses it goes on with the next request only if the client waits for all
    responses before it sends more; else whose the next response is cannot be known any more.
    """

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._open: Exchange | None = None  # its response has a gap, and ends before a request
        self._unsure = False  # after a gap: whose the next responses are
        self._extra = 0  # requests since then whose responses cannot be told from others
        self._heard = False  # a response since the last request
        self._overlaps = False  # the client does not wait for all responses

    def ask(self, exchange: Exchange) -> bool:
        """Take a request; return whether its response can be told."""
        if self._open:
            self._over()
        heard, self._heard = self._heard, False
        self._overlaps |= heard and bool(self.waiting)
        if self._unsure:
            if self._overlaps or not heard or self.waiting or self._extra:
                self._extra += 1
                exchange.gap = True
                self.done.append(exchange)
                return False
            self._unsure = False
        if len(self.waiting) == self.waiting.maxlen:
            raise NotThisProtocol
        return True

    def answer(self, end: int) -> Exchange | None:
        """Take note of a response that ends at an offset; return the request, if it is known."""
        self._heard = True
        if self._open:
            self._open.response_end = end
        if self.waiting:
            return self.waiting.popleft()
        self._extra = max(0, self._extra - 1)
        return None

    def begun(self) -> tuple[int | None, Exchange | None]:
        """Return where the response begins that is being read, and the request being read."""
        return None, None

    def lost(self, side: int, begin: int, end: int) -> None:
        """Take note of missing bytes; requests before missing ones are answered still."""
        response_begin, request = self.begun()
        if side == REQUEST:
            self._unsure, self._heard = True, False
            if request:
                request.gap = True
                self.waiting.append(request)
            return
        if self._open:
            self._open.response_end = end or None
        elif response_begin is not None and len(self.waiting) == 1 and end:
            self._open = exchange = self.waiting.popleft()
            exchange.response_begin, exchange.response_end = response_begin, end
            exchange.gap = True
        self._unsure |= self._overlaps
        self._extra = 0
        super().lost(side, begin, end)

    def ended(self, side: int, at: int) -> None:
        """Let go what was waiting for the end of its response."""
        if side != REQUEST:
            self._over()

    def pending(self) -> Iterator[Exchange]:
        """Yield the requests that have no response yet, or only a part of it."""
        if self._open:
            yield self._open
        yield from self.waiting

    def _over(self) -> None:
        if self._open:
            self.done.append(self._open)
            self._open = None
