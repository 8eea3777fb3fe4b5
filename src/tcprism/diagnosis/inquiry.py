"""Inquiry: watch connections on this machine, and explain what limits each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from tcprism.diagnosis.arrivals import Arrivals
from tcprism.diagnosis.cpu_time import cpu_times
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.explain import explained
from tcprism.diagnosis.explanation import Explanation, asked_by, states
from tcprism.diagnosis.facts import with_facts
from tcprism.diagnosis.port_exhaustion import exhausted
from tcprism.diagnosis.request_facts import pending_of
from tcprism.diagnosis.segments import KINDS as SEGMENT_KINDS
from tcprism.diagnosis.segments import are_whole
from tcprism.diagnosis.survey import Survey
from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events.kinds import TLS_KINDS
from tcprism.filters import Criteria
from tcprism.pipeline import Stop, run
from tcprism.sinks import Sink
from tcprism.sources import Source
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.together import Together
from tcprism.sources.tracing import Tracing

# Of the connections that are asked about.
KINDS = ("send", "recv", "connect", "accept", "close")
_UNSEEN = "what segments prove is not told: `tcprism doctor` says why receive cannot be traced"
LOSSES = ("retransmit", "undo", "drop")  # of all: the peer may be on this host, too
PAYLOAD = 4096  # bytes of a message: heads of requests, but few that follow others in one write
PACE = 0.1  # seconds between two snapshots
SHARE = 0.05  # of the time at most: many sockets are looked at less often
SEGMENTS_A_SECOND = 20_000  # more, with the work that they are, would take what others need
SEGMENTS_RING = 16 << 20  # bytes
REQUESTS_SHARE = 0.25  # of the time at most, for reading requests: other evidence must not suffer


class Inquiry(Sink):
    """Watches connections from `with` to its end: a sink of its own sources.

    With `tls`, requests are read off the plaintext of TLS, too; `lines` say whose is read.
    Raises PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    def __init__(self, chosen: Criteria, tls: bool = False) -> None:
        self._chosen = chosen
        self._kinds = (*KINDS, *TLS_KINDS) if tls else KINDS
        self.lines: list[str] = []
        self._survey, self._evidence = Survey(), Evidence(REQUESTS_SHARE)
        self._segments: Arrivals | None = None
        self._cpu_before: dict[int, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._snapshots = self._machine = stack.enter_context(
                Snapshots(self._chosen, every=PACE, share=SHARE)
            )
            if self._chosen != Criteria():
                self._machine = stack.enter_context(Snapshots(Criteria()))
            chosen = stack.enter_context(
                Tracing(Request(self._kinds, self._chosen, PAYLOAD, skip_bodies=True))
            )
            others = stack.enter_context(Tracing(Request(LOSSES, payload=0)))
            segments = Request(SEGMENT_KINDS, self._chosen, 0, SEGMENTS_RING, options=True)
            with suppress(KernelRefused):
                self._segments = stack.enter_context(Arrivals(segments, SEGMENTS_A_SECOND))
            if libraries := chosen.libraries:
                self.lines = [*libraries.lines]
            sources: list[Source] = [self._snapshots, others, chosen]
            if self._segments:
                sources.append(self._segments)
            else:
                self.lines.append(_UNSEEN)
            # Losses are read first, so that what caused them has come by then.
            self._source = Together(*sources)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def watch(self, stop: Stop) -> None:
        """Watch until `stop` is reached."""
        run(self._source, (), [self], stop)

    def write(self, batch: Batch) -> None:
        """Take a look at the connections, or what happened between two."""
        for part in batch.parts:
            if part.family == "snapshot":
                self._look(part)
        events = [part for part in batch.parts if part.family != "snapshot"]
        self._evidence.add(Batch(events, batch.clock_offset_ns))

    def _look(self, part: Part) -> None:
        if not self._survey.snapshots:
            self._evidence.begin(part)
            self._cpu_before = cpu_times(part.rows["pid"].tolist())
        self._survey.add(part)

    def explanation(self) -> Explanation:
        """Return what was found out."""
        part, change = self._survey.result()
        ran = cpu_times(self._cpu_before)
        cpu_us = {pid: us - self._cpu_before[pid] for pid, us in ran.items()}
        (machine,) = self._machine.take().parts
        ledger = self._source.ledger()
        given_up = self._segments is not None and self._segments.given_up
        lost = sum(e.lost for e in ledger.entries if not (given_up and e.kind in SEGMENT_KINDS))
        lost += self._evidence.refused + self._evidence.forgotten + self._survey.forgotten
        pending = pending_of(self._evidence.requests, part, not lost)
        whole = are_whole(ledger) and not given_up
        facts = with_facts(change, self._evidence, machine, cpu_us, pending, whole)
        connections = tuple(explained(part, facts))
        return Explanation(
            connections,
            states(part),
            self._survey.snapshots,
            tuple(self._survey.pauses(self._snapshots.pace)),
            tuple(exhausted(_homes(part))),
            lost,
            servers=asked_by(connections, self._evidence.requests, pending),
            skipped=self._evidence.requests.skipped,
            segments=not given_up,
        )


def _homes(part: Part) -> Iterator[tuple[int, int]]:
    """Yield each network namespace and a process that has a socket of it."""
    return zip(part.rows["netns"].tolist(), part.rows["pid"].tolist(), strict=True)
