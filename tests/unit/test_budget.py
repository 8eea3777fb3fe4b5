"""The budget: when less is recorded, and when more again."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Sequence

import pytest

from tcprism.events import Batch
from tcprism.sources.effort import Effort, efforts
from tcprism.sources.request import Request
from tcprism.stages.budget import Budget
from tcprism.stages.sampling import is_sampled

REQUEST = Request(kinds=("send", "recv", "acked", "undo", "transmit"), payload=4096)
LIMIT = 0.02


class Machine:
    """A clock and a load, of which the budget's steps let less and less through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: Sequence[Effort]) -> None:
        self.now = self.spent = self.load = 0.0  # load: of the budget, at full effort
        self.steps = steps
        self.taken: list[int] = []
        self.told: list[str] = []
        monkeypatch.setattr("tcprism.stages.budget.time.monotonic", lambda: self.now)
        monkeypatch.setattr("tcprism.stages.budget.os.cpu_count", lambda: 4)
        self.budget = Budget(LIMIT, lambda: self.spent, steps, self.taken.append)

    def share(self) -> float:
        """Return what of the load is left at the present step: each halves it."""
        effort = self.steps[self.budget.step]
        return 0.0 if "send" in effort.resting else 0.5**self.budget.step

    def run(self, seconds: int, load: float) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.spent += load * self.share() * LIMIT * 4
            self._tell(self.budget.tick(0))

    def _tell(self, batch: Batch) -> None:
        for part in batch.parts:
            told_ns = int(part.rows["ts_ns"][0]) + batch.clock_offset_ns
            assert abs(time.time_ns() - told_ns) < 60e9
            self.told += part.derived["effort"].tolist()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, efforts(REQUEST))


def test_the_order_in_which_less_is_recorded() -> None:
    assert [effort.name for effort in efforts(REQUEST)] == [
        "everything",
        "1024 bytes of payload",
        "256 bytes of payload",
        "no segments",
        *(f"1 of {1 << n} connections" for n in range(1, 9)),
        "no acked",
        "no undo",
        "no messages",
    ]


def test_without_messages_only_hooks_can_go_off() -> None:
    names = [effort.name for effort in efforts(Request(kinds=("retransmit", "undo", "close")))]
    assert names == ["everything", "no undo", "no users of sockets"]


def test_what_fits_is_left_alone(machine: Machine) -> None:
    machine.run(100, 0.9)
    assert (machine.taken, machine.told) == ([], [])
    assert not machine.budget.account().remarks


def test_a_load_that_rises_and_falls(machine: Machine) -> None:
    machine.run(3, 0.4)
    machine.run(2, 7.0)  # three halvings, at once
    assert machine.taken == [3]
    assert machine.told == ["no segments"]
    machine.run(9, 2.0)  # a quarter of the budget now, which is twice too much room
    assert machine.taken == [3]
    machine.run(20, 2.0)
    assert machine.taken == [3, 2]  # where it fits
    machine.run(40, 0.1)
    assert machine.budget.step == 0
    counts = machine.budget.account().counts
    assert counts["effort_changes"] == len(machine.taken)
    assert 30 < counts["reduced_effort_seconds"] < 60


def test_all_that_there_is_goes_off_under_a_flood(machine: Machine) -> None:
    machine.run(3, 1e6)
    assert machine.budget.step == len(machine.steps) - 1
    assert "now no messages" in machine.budget.account().remarks[0]


def test_what_was_too_much_is_tried_less_and_less_often(machine: Machine) -> None:
    machine.run(3, 1e6)
    machine.taken.clear()
    machine.run(600, 1e6)
    trials = sum(step < len(machine.steps) - 1 for step in machine.taken)
    assert 4 <= trials <= 7  # after 10, 20, 40, ... seconds
    assert machine.budget.step == len(machine.steps) - 1


def _end(number: int, port: int) -> bytes:
    return bytes(10) + b"\xff\xff" + struct.pack("<IH", number, port)


@pytest.mark.parametrize("sampling", [1, 2, 5, 8])
def test_a_sample_has_its_share_of_connections(sampling: int) -> None:
    draw = random.Random(7)
    ends = [(_end(1, 80), _end(draw.getrandbits(32), port)) for port in range(1024, 41024)]
    chosen = [pair for pair in ends if is_sampled(*pair, sampling)]
    assert len(chosen) == pytest.approx(len(ends) / 2**sampling, rel=0.25)
    for one, other in chosen:
        assert is_sampled(other, one, sampling)
        assert is_sampled(one, other, sampling - 1)


def test_of_one_clients_ports_a_sample_has_its_share() -> None:
    ends = [(_end(0x0100007F, 8080), _end(0x0100007F, port)) for port in range(32768, 61000)]
    chosen = sum(is_sampled(*pair, 4) for pair in ends)
    assert chosen == pytest.approx(len(ends) / 16, rel=0.2)
