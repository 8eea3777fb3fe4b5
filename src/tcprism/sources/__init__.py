"""Sources of batches: the kernel's hooks, snapshots of its sockets, a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.stages import Stage


class Source(Protocol):
    """Something that batches are read from, until `stop()` and then `drain()` to the end."""

    @property
    def facts(self) -> Facts:
        """What is true of this run from its start."""

    @property
    def stages(self) -> Sequence[Stage]:
        """What its batches go through before all else: it explains events by one another."""

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""

    def now_ns(self) -> int:
        """Return how far its events have come, on CLOCK_MONOTONIC of where they happened."""

    def read(self) -> Batch:
        """Return the events that are ready, possibly none. Never blocks."""

    def pause(self) -> float:
        """Return the seconds until it is worth to read again, after the last `read`."""

    def stop(self) -> None:
        """Let nothing new come; what is there already can still be drained. May be repeated."""

    def drain(self) -> Batch:
        """After `stop()`: return events that are left; empty when there are no more."""

    def ledger(self) -> Ledger:
        """Return the account of every event so far, without what stages count."""
