"""Inquiry: watch connections of this machine, and explain what limits each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tcprism.diagnosis.cpu_time import cpu_times
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.explain import explained
from tcprism.diagnosis.explanation import Explanation, states
from tcprism.diagnosis.facts import with_facts
from tcprism.diagnosis.port_exhaustion import exhausted
from tcprism.diagnosis.survey import Survey
from tcprism.events import Part
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Tracing, pause

KINDS = ("send", "recv", "connect", "accept")  # of the connections that are asked about
LOSSES = ("retransmit", "undo", "drop")  # of all: the peer may be on this host, too
PACE = 0.1  # seconds between two looks
SHARE = 0.05  # of the time at most: many sockets are looked at less often

Wait = Callable[[float], bool]


class Inquiry:
    """Watches connections from `with` to its end.

    Raises PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    def __init__(self, chosen: Criteria) -> None:
        self._chosen = chosen
        self._survey, self._evidence = Survey(), Evidence()
        self._cpu_before: dict[int, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._snapshots = stack.enter_context(Snapshots(self._chosen))
            self._machine = self._snapshots
            if self._chosen != Criteria():
                self._machine = stack.enter_context(Snapshots(Criteria()))
            self._monitors = [
                stack.enter_context(Tracing(Request(kinds, chosen, payload=0)))
                for kinds, chosen in ((KINDS, self._chosen), (LOSSES, Criteria()))
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, wait: Wait) -> Explanation:
        """Watch until `wait`, which is given the seconds to wait at most, returns True."""
        following = time.monotonic()
        while True:
            if time.monotonic() >= following:
                started, before = time.monotonic(), time.process_time()
                self._look()
                pace = max(PACE, (time.process_time() - before) / SHARE)
                following = started + pace
            until_then = max(0.0, following - time.monotonic())
            if wait(min(until_then, self._read())):
                break
        self._look()
        for monitor in self._monitors:
            monitor.stop()
            while len(batch := monitor.drain()):
                self._evidence.add(batch)
        return self._explanation(pace)

    def _look(self) -> None:
        (part,) = self._snapshots.take().parts
        if not self._survey.looks:
            self._evidence.begin(part)
            self._cpu_before = cpu_times(part.rows["pid"].tolist())
        self._survey.add(part)

    def _read(self) -> float:
        """Read the rings; return the seconds until they should be read again."""
        least = PACE
        for monitor in self._monitors:
            batch = monitor.read()
            self._evidence.add(batch)
            least = min(least, pause(len(batch), monitor.fill_level()))
        return least

    def _explanation(self, pace: float) -> Explanation:
        part, change = self._survey.result()
        ran = cpu_times(self._cpu_before)
        cpu_us = {pid: us - self._cpu_before[pid] for pid, us in ran.items()}
        (machine,) = self._machine.take().parts
        lost = sum(monitor.ledger().lost for monitor in self._monitors)
        lost += self._evidence.refused + self._evidence.forgotten + self._survey.forgotten
        return Explanation(
            tuple(explained(part, with_facts(change, self._evidence, machine, cpu_us))),
            states(part),
            self._survey.looks,
            tuple(self._survey.pauses(pace)),
            tuple(exhausted(_homes(part))),
            lost,
        )


def _homes(part: Part) -> Iterator[tuple[int, int]]:
    """Yield each network namespace and a process that has a socket of it."""
    return zip(part.rows["netns"].tolist(), part.rows["pid"].tolist(), strict=True)
