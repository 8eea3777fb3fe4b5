"""What is let go of when memory is short, in which order, and what is told of it."""

from __future__ import annotations

import mmap
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tcprism.cli.memory import bound
from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events.ledger import Ledger
from tcprism.features import memory
from tcprism.fleet.outbox import Outbox, Spool
from tcprism.sinks import Sink
from tcprism.sinks.queued import Queued
from tcprism.stages.memory_bound import Keeper, MemoryBound
from tcprism.stages.requests import Requests
from tcprism.stages.retransmits import Retransmits
from tcprism.web.store import Store
from tests.unit import records

MB = 1 << 20


class Kept(Sink):
    """A sink."""

    def write(self, batch: Batch) -> None:
        """Nothing."""


class Heap:
    """A process' memory: some fixed, and what keepers keep; each lets go of half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **kept: int) -> None:
        self.now, self.fixed, self.kept, self.given_back = 100.0, 50, kept, 0
        monkeypatch.setattr("tcprism.stages.memory_bound.time.monotonic", lambda: self.now)
        keepers = [Keeper(name, lambda name=name: self._half(name)) for name in kept]  # type: ignore[misc]
        self.bound = MemoryBound(100, self.used, self._give_back, keepers)

    def used(self) -> int:
        return self.fixed + sum(self.kept.values())

    def _half(self, name: str) -> int:
        half = (self.kept[name] + 1) // 2
        self.kept[name] -= half
        return half

    def _give_back(self) -> None:
        self.given_back += 1

    def second(self) -> list[tuple[str | None, int | None]]:
        """Let a second pass; return what was told."""
        self.now += 1.0
        batches = self.bound(Batch(())), self.bound.tick(0)
        for batch in filter(len, batches):
            told_ns = int(batch.parts[0].rows["ts_ns"][0]) + batch.clock_offset_ns
            assert abs(time.time_ns() - told_ns) < 60e9
        told = [*batches[0], *batches[1]]
        assert {event.kind for event in told} <= {"memory"}
        return [(event.let_go, event.of_budget) for event in told]


def test_what_is_missed_least_goes_first_and_no_more_than_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heap = Heap(monkeypatch, shown=20, followed=25)
    assert heap.second() == []
    heap.kept["followed"] += 5
    assert heap.second() == [("10 shown", 100)]
    assert heap.kept == {"shown": 10, "followed": 30}
    assert heap.second() == []
    heap.fixed = 75
    assert heap.second() == [("5 shown", 115)]
    assert heap.second() == [("3 shown", 110), ("15 followed", 107)]
    assert heap.second() == []
    assert heap.kept == {"shown": 2, "followed": 15}
    heap.fixed = 79
    assert heap.second() == [("1 shown", 96)]
    assert heap.bound.account().counts == {"memory_releases": 5}
    assert "--max-memory" in heap.bound.account().remarks[0]


def test_it_is_not_well_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap(monkeypatch, shown=4)
    heap.fixed = 101
    for _ in range(50):
        heap.second()
        assert heap.bound.well()
    for _ in range(20):
        heap.second()
    assert not heap.bound.well()
    assert "nothing left" in heap.bound.account().remarks[0]
    heap.fixed = 50
    assert heap.second() == []
    assert heap.bound.well()


def test_a_look_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap(monkeypatch, shown=1000)
    assert len(heap.second()) == 1
    assert len(heap.bound(Batch(()))) == 0
    assert len(heap.bound.tick(0)) == 0


def test_what_is_kept_shares_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to what it would take at most; where there is enough, nothing changes."""
    tracing: Any = SimpleNamespace(
        ring_bytes=100 * MB, room=128 * MB, keeps="bursts", let_go=lambda: 0, stages=()
    )
    monkeypatch.setattr(memory, "anonymous", lambda: 50 * MB)
    stages, sinks = (Retransmits(lambda: True), Requests()), (Queued(Kept()),)
    keep: list[Any] = [tracing, *stages, *sinks]
    usual = [one.room for one in keep]
    bound(2 << 30, tracing, sinks, stages)
    assert [one.room for one in keep] == usual
    with pytest.raises(UsageError, match="the rings take 100 MB") as raised:
        bound(200 * MB, tracing, sinks, stages)
    least = int(re.search(r"give (\d+)M", str(raised.value))[1]) * MB  # type: ignore[index]
    bound(least, tracing, sinks, stages)
    shared = [one.room for one in keep]
    assert 30 * MB < sum(shared) < least - 150 * MB
    shares = [now / before for now, before in zip(shared, usual, strict=True)]
    assert max(shares) == pytest.approx(min(shares), rel=0.01)


def test_own_memory_is_what_was_written_to() -> None:
    size = 64 << 20
    before = memory.anonymous()
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE) as taken:
        for place in range(0, size, mmap.PAGESIZE):
            taken[place] = 1
        assert memory.anonymous() - before == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (("max", "1000", "max"), 1000),
        (("500", "1000", "max"), 500),
        (("2000", "1000", "1500"), 1000),
        (("max", "max"), None),
        ((), None),
    ],
)
def test_the_cgroups_above_count(
    limits: tuple[str, ...], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is that of the process, the others those above it."""
    (tmp_path / "own").write_text("0::/a/b\n")
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "cgroup_roots", lambda: [tmp_path])
    (tmp_path / "a/b").mkdir(parents=True)
    for folder, limit in zip(("a/b", "a", "."), limits, strict=False):
        (tmp_path / folder / "memory.max").write_text(f"{limit}\n")
    assert memory.allowed() == expected


def test_the_page_forgets_the_older_half() -> None:
    store = Store(1 << 30)
    for first in range(0, 40, 10):
        store.write(Batch([records.losses(*({"ts_ns": 1 + first + n} for n in range(10)))]))
        store.write(Batch([records.requests(*({"ts_ns": 1 + first + n} for n in range(10)))]))
    assert store.let_go() == 40
    assert (store.forgotten, store.requests.forgotten) == (20, 20)
    assert [kept.part.rows["ts_ns"].min() for kept in store.kept()] == [21, 31]
    assert store.requests.table["end"].tolist() == list(range(21, 41))


def test_rows_go_to_disk_or_are_dropped_and_counted(tmp_path: Path) -> None:
    for box in (Outbox(), Outbox(Spool(tmp_path, 1 << 20))):
        for number in range(4):
            box.put("losses", 1 + number, bytes(10))
        assert box.let_go() == 1 + 2
        assert box.waiting + box.dropped == 1 + 2 + 3 + 4
    assert box.dropped == 0
    assert len(os.listdir(tmp_path)) == 2


def test_connections_are_forgotten_and_counted() -> None:
    stage = Requests(alone=True)
    ends = {"local_ip": "10.0.0.1", "remote_ip": "10.0.0.2", "remote_port": 80}
    for port in range(1, 11):
        payload = b"GET / HTTP/1.1\r\n"
        message = {**ends, "local_port": port, "socket": port, "payload": payload, "seq": 1}
        stage(Batch([records.messages({**message, "bytes": len(payload)})]))
    assert stage.let_go() == 5
    assert stage.let_go() == 3
    counts = Ledger(()).with_account(stage.account()).counts
    assert counts["connections_evicted"] == 8
