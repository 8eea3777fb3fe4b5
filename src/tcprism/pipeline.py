"""The data flow on one screen: a source's batches go through stages to sinks, until a stop."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Protocol

from tcprism import stages as passing
from tcprism.events.batch import Batch, joined
from tcprism.events.ledger import Account, Ledger
from tcprism.sinks import Sink
from tcprism.sources import Source
from tcprism.stages import Stage

Flow = Generator[tuple[Batch, float], None, None]

ACCOUNT_EVERY = 1.0  # seconds between two accounts that sinks are told
# A read of full rings is passed in pieces, so that progress shows, and as stages and sinks need
# several times the size of what they are given.
AT_ONCE = 1 << 15  # events
BYTES_AT_ONCE = 4 << 20


class Stop(Protocol):
    """Says when it is enough."""

    reached: bool

    def wait(self, seconds: float) -> None:
        """Wait so long, or until there is a reason to stop: then `reached` is true."""


def flow(source: Source, stages: Sequence[Stage], stop: Stop) -> Flow:
    """Yield what becomes of each read, with the seconds until the next; last what is left.

    There are empty batches among them. The source is stopped and empty when the iteration ends,
    however it ends, so that its ledger balances.
    """
    chain = (*source.stages, *stages)
    try:
        while not (stop.reached or source.ended):
            *pieces, last = _pieces(source.read())
            for piece in pieces:
                yield passing.through(chain, piece), 0.0
            batch = passing.through(chain, last)
            yield joined(batch, passing.tick(chain, source.now_ns())), source.pause()
        source.stop()
        while len(batch := source.drain()):
            for piece in _pieces(batch):
                yield passing.through(chain, piece), 0.0
        yield passing.close(chain), 0.0
    finally:
        source.stop()
        while len(source.drain()):
            pass


def _pieces(batch: Batch) -> list[Batch]:
    """Return a batch in pieces; a snapshot stays whole, for what is missing from it has ended."""
    whole = [part for part in batch.parts if part.family == "snapshot"]
    events = [part for part in batch.parts if part.family != "snapshot"]
    *pieces, last = Batch(events, batch.clock_offset_ns).split(AT_ONCE, BYTES_AT_ONCE)
    return [*pieces, joined(last, Batch(whole, batch.clock_offset_ns))]


def run(source: Source, stages: Sequence[Stage], sinks: Sequence[Sink], stop: Stop) -> None:
    """Write what comes of a source to sinks until `stop` is reached or the source has ended.

    What a sink raises ends the run and rises.
    """
    for sink in sinks:
        sink.open(source.facts)
    told = time.monotonic()
    with closing(flow(source, stages, stop)) as batches:
        for batch, pause in batches:
            for sink in sinks:
                sink.write(batch)
            if time.monotonic() - told >= ACCOUNT_EVERY:
                _tell(source, stages, sinks)
                told = time.monotonic()
            stop.wait(pause)
    _tell(source, stages, sinks)
    for sink in sinks:
        sink.close()


def _tell(source: Source, stages: Sequence[Stage], sinks: Sequence[Sink]) -> None:
    ledger = account(source, stages, sinks)
    for sink in sinks:
        sink.account(ledger)


def account(source: Source, stages: Sequence[Stage], sinks: Sequence[Sink] = ()) -> Ledger:
    """Return the account of every event: the source's, the stages' and what sinks dropped."""
    dropped = sum((sink.dropped() for sink in sinks), Account())
    return source.ledger().with_account(passing.accounts((*source.stages, *stages)) + dropped)
