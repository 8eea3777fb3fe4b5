"""A budget: what tcprism costs is measured all the time, and decides how much it records."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tcprism.events import Batch
from tcprism.events.batch import current_clock_offset_ns
from tcprism.events.effort import effort_part
from tcprism.events.ledger import Account
from tcprism.stages import Watching

_EVERY = 1.0  # seconds between two measurements
_ROOM = 0.5  # of the budget: below that there is room for more
# Seconds for which there must be room before more is recorded. It doubles each time that this was
# too much, so that a steady load is not tried again and again.
_PATIENCE, _MOST_PATIENCE = 10.0, 640.0


class Step(Protocol):
    """How much is recorded."""

    @property
    def name(self) -> str:
        """What is recorded, in a few words."""

    @property
    def resting(self) -> tuple[str, ...]:
        """The kinds whose hooks are off."""


class Budget(Watching):
    """A stage that passes all events, and adds one whenever it changes how much is recorded.

    `limit` is the largest share of all CPUs. `cost` returns the CPU seconds so far. `steps` are in
    the order in which they are gone down, the first records everything; `take` makes one so.
    """

    def __init__(
        self,
        limit: float,
        cost: Callable[[], float],
        steps: Sequence[Step],
        take: Callable[[int], None],
    ) -> None:
        self._limit = limit
        self._cost = cost
        self._steps = steps
        self._take = take
        self._cpus = os.cpu_count() or 1
        self._before: tuple[float, float] | None = None  # time and cost
        self._patience = _PATIENCE
        self._room_since = self._raised = 0.0
        self._reduced = 0.0  # seconds at less than everything
        self._changes = 0
        self.step = 0
        self.used = 0.0  # share of the budget in the latest second

    def _look(self) -> Batch:
        now = time.monotonic()
        if self._before is None:
            self._before = now, self._cost()
            self._room_since = now
        elapsed = now - self._before[0]
        if elapsed < _EVERY:
            return Batch(())
        cost = self._cost()
        self.used = (cost - self._before[1]) / elapsed / self._cpus / self._limit
        self._before = now, cost
        self._reduced += elapsed if self.step else 0.0
        return self._go(self._decide(now))

    def _decide(self, now: float) -> int:
        """Return the step that fits."""
        if self.used > 1:
            self._room_since = now
            if now - self._raised < 2 * _PATIENCE and self._raised:
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
                self._raised = 0.0
            return min(self.step + math.ceil(math.log2(self.used) + 1e-9), len(self._steps) - 1)
        if self.used > _ROOM or not self.step:
            self._room_since = now
        if now - self._room_since < self._patience:
            return self.step
        self._raised = self._room_since = now
        return self.step - self._gain()

    def _gain(self) -> int:
        """Return how many steps up there is room for: one costs twice as much at most.

        What a hook costs that was off, nobody knows.
        """
        if self._steps[self.step].resting:
            return 1
        return min(self.step, max(1, int(math.log2(_ROOM / max(self.used, 1e-3)))))

    def _go(self, step: int) -> Batch:
        if step == self.step:
            return Batch(())
        if step == 0:
            self._patience = _PATIENCE
        self.step = step
        self._changes += 1
        self._take(step)
        of_budget = round(100 * self.used)
        part = effort_part(time.monotonic_ns(), self._steps[step].name, of_budget)
        return Batch([part], current_clock_offset_ns())

    def account(self) -> Account:
        """Say how often there was a change, and for how long less was recorded."""
        counts = {"effort_changes": self._changes, "reduced_effort_seconds": int(self._reduced)}
        if not self._changes:
            return Account(counts=counts)
        return Account(
            counts=counts,
            remarks=(
                f"for {self._reduced:,.0f} seconds less was recorded, to keep --max-overhead"
                f" {100 * self._limit:g}%: now {self._steps[self.step].name}",
            ),
        )
