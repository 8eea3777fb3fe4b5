"""Several sources as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.sources import Source
from tcprism.stages import Stage


class Together:
    """Reads several sources as one; its facts are those of the first."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources

    @property
    def facts(self) -> Facts:
        """What is true of the first source."""
        return self._sources[0].facts

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages of all."""
        return [stage for source in self._sources for stage in source.stages]

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return all(source.ended for source in self._sources)

    def now_ns(self) -> int:
        """Return how far all have come."""
        return min(source.now_ns() for source in self._sources)

    def read(self) -> Batch:
        """Return what is ready at any of them."""
        return self._joined(lambda source: source.read())

    def pause(self) -> float:
        """Return the seconds until the first of them should be read again."""
        return min(source.pause() for source in self._sources)

    def stop(self) -> None:
        """Stop all."""
        for source in self._sources:
            source.stop()

    def drain(self) -> Batch:
        """Return what is left at any of them."""
        return self._joined(lambda source: source.drain())

    def ledger(self) -> Ledger:
        """Return the accounts of all."""
        return reduce(Ledger.__add__, (source.ledger() for source in self._sources))

    def _joined(self, ask: Callable[[Source], Batch]) -> Batch:
        batches = [batch for batch in map(ask, self._sources) if len(batch)]
        parts = [part for batch in batches for part in batch.parts]
        return Batch(parts, batches[-1].clock_offset_ns if batches else 0)
