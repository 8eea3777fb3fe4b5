"""Stages: from batch to batch. Each keeps what it needs to know between batches.

A stage is a callable that takes a batch and returns one: it adds derived columns (`Part.derive`),
makes events of a family of its own, changes events or leaves some out. One that holds events back,
or has something to account for, is a `StatefulStage`. A stage of a user's own is given to
`tcprism.Monitor`; another package offers one to `--stage NAME` by an entry point in the group
`tcprism.stages`, whose object takes no argument and returns the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Protocol, runtime_checkable

from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events.batch import joined
from tcprism.events.ledger import Account
from tcprism.events.optional import plugin, plugins

GROUP = "tcprism.stages"

Stage = Callable[[Batch], Batch]


@runtime_checkable
class StatefulStage(Protocol):
    """A stage that is told when time passes and when it ends, and keeps an account.

    A subclass implements `__call__` and only those other methods that it needs.
    """

    def __call__(self, batch: Batch) -> Batch:
        """Return what becomes of a batch."""

    def tick(self, now_ns: int) -> Batch:
        """Return held events that are due at `now_ns` of CLOCK_MONOTONIC."""
        return Batch(())

    def close(self) -> Batch:
        """Return the events still held: no batch follows."""
        return Batch(())

    def account(self) -> Account:
        """Return what it made, dropped and could not join so far."""
        return Account()


class Watching(StatefulStage):
    """A stage that passes all events, and adds its own when it has looked at something.

    A subclass implements `_look`.
    """

    def __call__(self, batch: Batch) -> Batch:
        """Look if it is time; a flood must not put that off."""
        return joined(batch, self._look())

    def tick(self, now_ns: int) -> Batch:
        """Look if it is time."""
        return self._look()

    def _look(self) -> Batch:
        """Return what is to be told, if it is time to look."""
        return Batch(())


def through(stages: Iterable[Stage], batch: Batch) -> Batch:
    """Return what becomes of a batch in some stages, one after the other."""
    return reduce(lambda done, stage: stage(done), stages, batch)


def tick(stages: Iterable[Stage], now_ns: int) -> Batch:
    """Return what the stages let go as time passes, each through the stages behind it."""
    return _let_go(stages, lambda stage: stage.tick(now_ns))


def close(stages: Iterable[Stage]) -> Batch:
    """End the stages, first to last; return what they still held, each through those behind it."""
    return _let_go(stages, lambda stage: stage.close())


def accounts(stages: Iterable[Stage]) -> Account:
    """Return the stages' part of the ledger."""
    stateful = (stage for stage in stages if isinstance(stage, StatefulStage))
    return sum((stage.account() for stage in stateful), Account())


def _let_go(stages: Iterable[Stage], ask: Callable[[StatefulStage], Batch]) -> Batch:
    batch = Batch(())
    for stage in stages:
        if len(batch):
            batch = stage(batch)
        if isinstance(stage, StatefulStage):
            batch = joined(batch, ask(stage))
    return batch


def stage_for(name: str) -> Stage:
    """Return a stage that an installed package offers. Raises UsageError when there is none."""
    make: Callable[[], Stage] | None = plugin(GROUP, name)
    if make is None:
        known = ", ".join(plugins(GROUP)) or "none is installed"
        raise UsageError(f"--stage: {name!r} is not a stage; choose from: {known}")
    return make()
