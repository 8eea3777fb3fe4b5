"""A sink behind a queue: what it is given, and what there is no room for."""

from __future__ import annotations

import threading

import pytest

from tcprism.events import Batch
from tcprism.events.batch import size_of
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.sinks import Sink
from tcprism.sinks.queued import Queued

from .records import messages

FACTS = Facts(("send",))
PATIENCE = 300.0  # seconds that no test waits for


class Slow(Sink):
    """Takes nothing until it may."""

    def __init__(self) -> None:
        self.may, self.busy = threading.Event(), threading.Event()
        self.taken: list[object] = []

    def open(self, facts: Facts) -> None:
        self.taken.append(facts)

    def write(self, batch: Batch) -> None:
        self.busy.set()
        assert self.may.wait(PATIENCE)
        self.taken.append(len(batch))

    def account(self, ledger: Ledger) -> None:
        self.taken.append(ledger)

    def close(self) -> None:
        self.taken.append("closed")


def batch(size: int) -> Batch:
    return Batch([messages(*[{}] * size)])


def test_all_comes_in_order() -> None:
    sink = Slow()
    sink.may.set()
    queued = Queued(sink)
    queued.open(FACTS)
    for size in (3, 1, 2):
        queued.write(batch(size))
    queued.account(Ledger(()))
    queued.close()
    assert sink.taken == [FACTS, 3, 1, 2, Ledger(()), "closed"]
    assert queued.dropped().counts == {}


def test_nobody_waits_for_a_sink_that_is_slow() -> None:
    """What is too much for the queue is dropped and counted, and said."""
    sink = Slow()
    queued = Queued(sink, room=size_of(batch(4)) + size_of(batch(6)))
    queued.open(FACTS)
    queued.write(batch(4))
    assert sink.busy.wait(PATIENCE)
    for size in (6, 5, 7):  # the first fills the queue
        queued.write(batch(size))
    assert queued.dropped().counts == {"not_written": 12}
    ledger = Ledger(()).with_account(queued.dropped())
    assert "12 events were not written" in ledger.lines()[-1]
    sink.may.set()
    queued.close()
    assert sink.taken == [FACTS, 4, 6, "closed"]


def test_a_sink_that_hangs_does_not_keep_the_end_from_coming() -> None:
    sink = Slow()
    queued = Queued(sink, patience=0.01)
    queued.open(FACTS)
    queued.write(batch(4))
    assert sink.busy.wait(PATIENCE)
    queued.write(batch(6))
    queued.close()
    assert queued.dropped().counts == {"not_written": 10}
    sink.may.set()


def test_what_waits_can_be_let_go_of() -> None:
    sink = Slow()
    queued = Queued(sink)
    queued.open(FACTS)
    queued.write(batch(4))
    assert sink.busy.wait(PATIENCE)
    for size in (6, 5):
        queued.write(batch(size))
    assert queued.let_go() == 11
    assert queued.let_go() == 0
    queued.write(batch(3))
    sink.may.set()
    queued.close()
    assert sink.taken == [FACTS, 4, 3, "closed"]
    assert queued.dropped().counts == {"not_written": 11}


def test_what_the_sink_drops_is_told_too() -> None:
    class Dropping(Slow):
        def dropped(self) -> Account:
            return Account(counts={"not_recorded": 7})

    queued = Queued(Dropping())
    assert queued.dropped().counts == {"not_recorded": 7}


def test_what_the_sink_raises_rises() -> None:
    class Failing(Slow):
        def write(self, batch: Batch) -> None:
            raise BrokenPipeError

    queued = Queued(Failing())
    queued.open(FACTS)
    queued.write(batch(1))
    with pytest.raises(BrokenPipeError):
        queued.close()
