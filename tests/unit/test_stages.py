"""Stages with a life: what they hold back, and what they account for, goes on as it should."""

from __future__ import annotations

from dataclasses import replace

from tcprism.events import Batch
from tcprism.events.ledger import Account, Entry
from tcprism.stages import Stage, StatefulStage, accounts, close, through, tick
from tests.unit.records import messages


class Delay(StatefulStage):
    """Holds every event back for some nanoseconds."""

    def __init__(self, delay_ns: int) -> None:
        self._delay_ns = delay_ns
        self._held: list[Batch] = []

    def __call__(self, batch: Batch) -> Batch:
        self._held += [batch] if len(batch) else []
        return Batch(())

    def tick(self, now_ns: int) -> Batch:
        due = [b for b in self._held if int(b["ts_ns"][-1]) + self._delay_ns <= now_ns]
        self._held = [b for b in self._held if b not in due]
        return Batch([part for batch in due for part in batch.parts], 5)

    def close(self) -> Batch:
        return self.tick(2**63)

    def account(self) -> Account:
        entry = Entry("request", 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0)
        return Account((entry,), {"held": len(self._held)}, ("some are held",))


def double(batch: Batch) -> Batch:
    """A stage that is a plain function: each event's bytes twice."""
    parts = []
    for part in batch.parts:
        rows = part.rows.copy()
        rows["bytes"] *= 2
        parts.append(replace(part, rows=rows))
    return Batch(parts, batch.clock_offset_ns)


def event(ts_ns: int, size: int) -> Batch:
    return Batch([messages({"ts_ns": ts_ns, "bytes": size})], 5)


def test_what_a_stage_lets_go_passes_the_stages_behind_it_alone() -> None:
    stages: tuple[Stage, ...] = (double, Delay(10), double)
    assert len(through(stages, event(100, 1))) == 0
    assert len(tick(stages, 109)) == 0
    let_go = tick(stages, 110)
    assert let_go["bytes"].tolist() == [4]
    assert let_go.clock_offset_ns == 5
    assert len(tick(stages, 2**62)) == 0  # nothing twice


def test_a_stage_may_hold_back_what_an_earlier_one_let_go() -> None:
    stages = (Delay(10), Delay(20), double)
    through(stages, event(100, 1))
    assert len(tick(stages, 110)) == 0
    assert tick(stages, 120)["bytes"].tolist() == [2]


def test_the_end_brings_everything_that_was_held_in_order_of_time() -> None:
    stages = (Delay(10), double, Delay(20), double)
    through(stages, event(100, 1))
    tick(stages, 111)
    through(stages, event(200, 3))
    assert close(stages)["bytes"].tolist() == [4, 12]
    assert len(close(stages)) == 0


def test_accounts_add_up() -> None:
    first, second = Delay(1), Delay(1)
    first(event(1, 1))
    account = accounts((first, double, second))
    assert [entry.kind for entry in account.entries] == ["request", "request"]
    assert account.counts == {"held": 1}
    assert account.remarks == ("some are held", "some are held")


def test_plain_functions_have_nothing_to_account_for() -> None:
    assert accounts((double,)) == Account()
    assert len(tick((double,), 1)) == len(close((double,))) == 0


def test_a_stage_that_only_works_on_batches_need_not_write_the_other_methods() -> None:
    class Double(StatefulStage):
        def __call__(self, batch: Batch) -> Batch:
            return double(batch)

    stages = (Double(),)
    assert through(stages, event(1, 4))["bytes"].tolist() == [8]
    assert len(tick(stages, 1)) == len(close(stages)) == 0
    assert accounts(stages) == Account()
