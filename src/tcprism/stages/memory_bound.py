"""A bound of memory: near it, what tcprism keeps is let go of, what is missed least first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tcprism.events import Batch, Part
from tcprism.events.batch import current_clock_offset_ns
from tcprism.events.effort import memory_part
from tcprism.events.ledger import Account
from tcprism.stages import Watching

_EVERY = 0.25  # seconds between two looks
# Shares of the bound: beyond one what is free is given back, if that has grown by another; beyond
# the last something is let go of.
_MUCH, _MORE, _NEAR = 0.8, 0.03, 0.95
_PATIENCE = 60.0  # seconds beyond the bound, with nothing left to let go of, until all is not well


class Keeper(NamedTuple):
    """Something that is kept: `let_go` lets go of a part of it and returns how many there were."""

    what: str
    let_go: Callable[[], int]


class MemoryBound(Watching):
    """A stage that passes all events, and adds one whenever something was let go of.

    `used` returns the bytes in use, of which there are to be at most `limit`; `give_back` gives the
    kernel what is free. `keepers` are asked in their order: at one look the first that has
    something, at the next look two, and so on until it is enough, as some only let go in time.
    """

    def __init__(
        self,
        limit: int,
        used: Callable[[], int],
        give_back: Callable[[], None],
        keepers: Sequence[Keeper],
    ) -> None:
        self.limit = limit
        self._near = _NEAR * limit
        self._due = _MUCH * limit  # when to give back what is free
        self._used = used
        self._give_back = give_back
        self._keepers = keepers
        self._looked = 0.0
        self._beyond_since: float | None = None
        self._releases = 0
        self._most = 0  # keepers that let go of something at one look

    def _look(self) -> Batch:
        now = time.monotonic()
        if now - self._looked < _EVERY:
            return Batch(())
        self._looked = now
        if (used := self._used()) > self._due:
            self._give_back()
            used = self._used()
            self._due = min(max(_MUCH * self.limit, used + _MORE * self.limit), self._near)
        if used <= self.limit:
            self._beyond_since = None
        elif self._beyond_since is None:
            self._beyond_since = now
        self._most = 0 if used <= self._near else self._most + 1
        return Batch(list(self._let_go()) if self._most else (), current_clock_offset_ns())

    def _let_go(self) -> Iterator[Part]:
        """Let go of what is missed least; yield what is told of it."""
        releases = 0
        for what, let_go in self._keepers:
            if (used := self._used()) <= self._near or releases == self._most:
                return
            if count := let_go():
                releases += 1
                self._releases += 1
                percent = round(100 * used / self.limit)
                yield memory_part(time.monotonic_ns(), f"{count:,} {what}", percent)
                self._give_back()

    def well(self) -> bool:
        """Tell whether the bound is kept, but for moments."""
        since = self._beyond_since
        return since is None or time.monotonic() - since < _PATIENCE

    def account(self) -> Account:
        """Return how often something was let go of."""
        counts = {"memory_releases": self._releases}
        megabytes = self.limit >> 20
        if not self.well():
            remark = f"more memory than {megabytes} MB is in use, with nothing left to let go of"
        elif self._releases:
            remark = f"some of what was kept was let go of, to keep --max-memory {megabytes}M"
        else:
            return Account(counts=counts)
        return Account(counts=counts, remarks=(remark,))
