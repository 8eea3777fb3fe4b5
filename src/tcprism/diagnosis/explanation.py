"""Explanation: the findings about connections, and how to get them from a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tcprism.diagnosis.delta import CONDITIONS, Delta, Rows
from tcprism.diagnosis.ends import own_keys
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.explain import Explained, explained
from tcprism.diagnosis.facts import with_facts
from tcprism.diagnosis.lives import Lives
from tcprism.diagnosis.port_exhaustion import Exhaustion
from tcprism.diagnosis.request_evidence import RequestEvidence, Server
from tcprism.diagnosis.request_facts import Pending, pending_of
from tcprism.diagnosis.segments import are_whole
from tcprism.diagnosis.survey import Pause, Survey, snapshots_of
from tcprism.diagnosis.table import raw
from tcprism.events import Batch, Part
from tcprism.events._wire import SNAPSHOT
from tcprism.events.columns import BY_NAME
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.events.units import counted, percent

SLOW_PEER = "slow-peer"
RECORDED_PACE = 1.0  # seconds between two snapshots, as `record` takes them


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found: iterate over `connections`.

    `states` counts the sockets by state. `snapshots` is the number of snapshots, and `pauses` are
    gaps between them. `exhausted` are destinations that take nearly all local ports. `lost` counts
    events that the verdicts could not use: lost in a ring, or beyond the memory limit. `trouble`
    and `damaged` are those of the `Recording`. `servers` has, of each process that waits for a slow
    peer and asks several servers, what it asked each of them for; the one that took longest first.
    `skipped` counts events that requests were not read off, because they were too many at once;
    `segments` is False if those were too many to prove anything by.
    """

    connections: tuple[Explained, ...]
    states: dict[str, int]
    snapshots: int
    pauses: tuple[Pause, ...] = ()
    exhausted: tuple[Exhaustion, ...] = ()
    lost: int = 0
    trouble: tuple[str, ...] = ()
    damaged: bool = False
    servers: tuple[tuple[Server, ...], ...] = ()
    skipped: int = 0
    segments: bool = True

    def __iter__(self) -> Iterator[Explained]:
        return iter(self.connections)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: each verdict with its proof."""
        from tcprism.events.html import cells  # with the large class of events

        rows = [
            (one.heading, percent(verdict.share), verdict.title, verdict.proof)
            for one in self.connections
            for verdict in one.verdicts
        ]
        silent = sum(not one.verdicts for one in self.connections)
        of_rest = f"<p>Of {counted(silent, 'connection')} nothing can be proven.</p>"
        return cells(("connection", "of the time", "limit", "proof"), rows) + of_rest

    def __len__(self) -> int:
        return len(self.connections)


class Told(Protocol):
    """What can be explained: a recording, or events that are kept otherwise."""

    @property
    def facts(self) -> Facts:
        """What is known of it from the start."""

    @property
    def ledger(self) -> Ledger:
        """The account of what was recorded; there once its batches were read."""

    @property
    def trouble(self) -> Sequence[str]:
        """What is missing, a sentence a file."""

    @property
    def damaged(self) -> bool:
        """Whether something could not be read that is there."""

    def batches(self) -> Iterator[Batch]:
        """Read what was recorded, oldest first."""


def explain_recording(recording: Told) -> Explanation:
    """Explain what a recording tells: of its snapshots and of its events. Raises RecordingError."""
    survey, evidence, lives = Survey(), Evidence(), Lives()
    for batch in recording.batches():
        evidence.add(batch)
        for part in batch.parts:
            if part.family != "snapshot":
                lives.add(part)
                continue
            for snapshot in snapshots_of(part):
                if not survey.snapshots:
                    evidence.begin(snapshot)
                survey.add(snapshot)
    part, change = _together(*survey.result(), *lives.result(_end(survey, evidence)))
    lost = recording.ledger.absent + evidence.refused + evidence.forgotten
    whole = not lost and {"send", "recv"} <= {*recording.facts.kinds}
    pending = pending_of(evidence.requests, part, whole)
    segments = are_whole(recording.ledger)
    facts = with_facts(change, evidence, part, pending=pending, segments=segments)
    connections = tuple(explained(part, facts))
    return Explanation(
        connections,
        states(part),
        survey.snapshots,
        tuple(survey.pauses(RECORDED_PACE)),
        lost=lost + survey.forgotten + lives.forgotten,
        trouble=tuple(recording.trouble),
        damaged=recording.damaged,
        servers=asked_by(connections, evidence.requests, pending),
    )


def asked_by(
    connections: Sequence[Explained], found: RequestEvidence, pending: Pending
) -> tuple[tuple[Server, ...], ...]:
    """Return the servers of each process that waits for one, if it asked several."""
    slow = {
        one.pid
        for one in connections
        if one.pid and any(verdict.rule == SLOW_PEER for verdict in one.verdicts)
    }
    return tuple(map(tuple, found.servers(pending.requests, slow)))


def _end(survey: Survey, evidence: Evidence) -> int:
    return max(survey.end_ns, evidence.last_ns)


def _together(part: Part, change: Delta, life: Part, whole: Delta) -> tuple[Part, Delta]:
    """Add the connections that no snapshot has seen to those of the snapshots."""
    new = np.flatnonzero(~np.isin(own_keys(life.rows), own_keys(part.rows)))
    if not len(part):
        return life, whole
    if not len(new):
        return part, change

    def both(first: Rows, second: Rows) -> Rows:
        return np.concatenate([raw(first), raw(second[new])]).view(SNAPSHOT)

    rows, before = both(part.rows, life.rows), both(change.before, whole.before)
    elapsed = np.concatenate([change.elapsed_us, whole.elapsed_us[new]])
    unseen = np.zeros(len(new))
    seen = {name: np.concatenate([change.seen[name], unseen]) for name in CONDITIONS}
    counted = np.zeros(0) if change.snapshots is None else change.snapshots
    snapshots = np.concatenate([counted, unseen])
    return Part(rows, context=part.context), Delta(before, rows, elapsed, seen, snapshots)


def states(part: Part) -> dict[str, int]:
    """Count the sockets by state."""
    return dict(Counter(BY_NAME["state"].to_list(part)).most_common())
