"""Feeds: where the data comes from, this machine or a recording. Nothing here needs Textual."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from tcprism.diagnosis.arrivals import ARRIVING, entered
from tcprism.diagnosis.delta import Rows
from tcprism.diagnosis.rebuild import rebuild
from tcprism.diagnosis.survey import snapshots_of
from tcprism.diagnosis.table import HISTORY, Table, advance, empty
from tcprism.events import Batch, Part
from tcprism.events.batch import size_of
from tcprism.events.kinds import TLS_KINDS
from tcprism.events.ledger import Ledger
from tcprism.features import Choice
from tcprism.filters import Criteria
from tcprism.pipeline import Flow, account, flow
from tcprism.recording.framing import DEFAULT_MEMORY
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Tracing

MOST_EVENTS = 1_000_000


class Feed(Protocol):
    """What the screens ask for. With `has_requests`, they are among its events already."""

    has_requests: bool

    @property
    def filters(self) -> Criteria:
        """What is shown at all."""

    @property
    def choices(self) -> list[Choice]:
        """The hooks in use."""

    @property
    def clock_offset_ns(self) -> int:
        """CLOCK_REALTIME minus the clock of the events."""

    def table(self, previous: Table | None) -> Table:
        """Return the connections as they are now."""

    def want(self, kinds: tuple[str, ...], chosen: Criteria, payload: int) -> None:
        """Have events of these kinds from now on."""

    def events(self) -> Batch:
        """Return the events that have come since."""

    def now_ns(self) -> int:
        """Return the moment that is shown, on the clock of the events."""

    def go_on(self) -> bool:
        """Let the next interval come; False when there is none."""

    def ledger(self) -> Ledger | None:
        """Return the account of the events, if any were asked for."""

    def past(self, inode: int) -> list[Rows]:
        """Return the records of a socket up to this moment, as far as they are known."""

    def close(self) -> None:
        """Take all hooks off."""


class Readable(Protocol):
    """What is asked of a recording; the ledger is there once its batches were read."""

    @property
    def ledger(self) -> Ledger:
        """The account of what was recorded."""

    def batches(self) -> Iterator[Batch]:
        """Read what was recorded, oldest first."""


class _Never:
    """The screens ask for each batch."""

    reached = False

    def wait(self, seconds: float) -> None:
        """Not needed."""


class Live:
    """This machine. Hooks are on only for the kinds of events that are wanted.

    With `tls`, the plaintext of messages is among them.
    """

    has_requests = False

    def __init__(self, chosen: Criteria, tls: bool = False) -> None:
        self.filters = chosen
        self._tls = tls
        self._snapshots = Snapshots(chosen).__enter__()
        self._tracing: Tracing | None = None
        self._flow: Flow | None = None
        self._request: Request | None = None

    def table(self, previous: Table | None) -> Table:
        """Take a snapshot."""
        (part,) = self._snapshots.take().parts
        return advance(previous, part)

    def want(self, kinds: tuple[str, ...], chosen: Criteria, payload: int) -> None:
        """Take hooks off and put others on, where others are wanted."""
        if self._tls and {"send", "recv"} <= {*kinds}:
            kinds = (*kinds, *TLS_KINDS)
        request = None
        if kinds:  # what arrives proves most with the options of its header
            request = Request(kinds, chosen, payload, options=ARRIVING in kinds)
        if request == self._request:
            return
        self._stop()
        if request:
            self._tracing, self._request = entered(request), request
            self._flow = flow(self._tracing, (), _Never())

    def _stop(self) -> None:
        tracing, self._tracing, self._request = self._tracing, None, None
        if tracing and self._flow:
            self._flow.close()
            tracing.__exit__(None, None, None)

    @property
    def choices(self) -> list[Choice]:
        """The hooks in use."""
        return self._tracing.choices if self._tracing else []

    def events(self) -> Batch:
        """Read the rings."""
        return next(self._flow)[0] if self._tracing and self._flow else Batch([])

    @property
    def clock_offset_ns(self) -> int:
        """How far the two clocks are apart."""
        return time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def go_on(self) -> bool:
        """Time goes on by itself."""
        return True

    def ledger(self) -> Ledger | None:
        """Return the account of the hooks that are on."""
        return account(self._tracing, ()) if self._tracing else None

    def past(self, inode: int) -> list[Rows]:
        """Nothing: what was is not kept."""
        return []

    def close(self) -> None:
        """Take all hooks off."""
        self._stop()
        self._snapshots.__exit__(None, None, None)


class Recorded:
    """A recording, at a moment that can be moved.

    It holds the last MOST_EVENTS events, or what fits into `memory` bytes; `forgotten` counts those
    before.
    """

    has_requests = False

    def __init__(
        self, recording: Readable, interval: float, memory: int = DEFAULT_MEMORY // 2
    ) -> None:
        self._batches, self.forgotten = _last_events(recording.batches(), memory)
        self._interval_ns = round(interval * 1e9)
        self._ledger = recording.ledger
        self.filters = Criteria()  # what is shown has been chosen already
        self.choices: list[Choice] = []
        moments = [part.rows["ts_ns"] for batch in self._batches for part in batch.parts]
        self._moments = np.unique(np.concatenate([*moments, np.zeros(0, np.uint64)]))
        first, last = map(int, self._moments[[0, -1]] if len(self._moments) else (0, 0))
        self.span = (first, last)
        self.clock_offset_ns = self._batches[-1].clock_offset_ns if self._batches else 0
        self._now = self._read_to = first
        self._rebuilt: dict[int, Part] = {}  # the snapshots of the last time: most come again
        self._states = [
            snapshot
            for batch in self._batches
            for part in batch.parts
            if part.family == "snapshot"
            for snapshot in snapshots_of(part)
        ]

    @property
    def first_activity_ns(self) -> int:
        """The first moment at which something is seen to happen: what is shown first."""
        moments = [snapshot.rows["ts_ns"][0] for snapshot in self._states]
        totals = [_traffic(snapshot) for snapshot in self._states]
        pairs = zip(moments[1:], totals[1:], totals, strict=False)
        moved = next((int(moment) for moment, after, before in pairs if after != before), None)
        begun = min((int(p.rows["ts_ns"].min()) for p in self._parts() if len(p)), default=None)
        if moved is None:
            moved = self.span[0] if begun is None else begun + self._interval_ns
        return min(moved, self.span[1])

    def _parts(self) -> Iterator[Part]:
        """Yield the events, without the snapshots."""
        for batch in self._batches:
            yield from (part for part in batch.parts if part.family != "snapshot")

    def seek(self, moment_ns: int) -> None:
        """Show another moment; the events up to it come again."""
        self._now = max(self.span[0], min(moment_ns, self.span[1]))
        self._read_to = self.span[0] - 1

    def go_on(self) -> bool:
        """Go an interval on; only the events in between come. False at the end.

        A silence in which no rate is left is skipped.
        """
        before, step = self._now, self._interval_ns
        self._now = min(before + step, self.span[1])
        place = int(np.searchsorted(self._moments, before, side="right"))
        if place < len(self._moments):
            self._now = max(self._now, int(self._moments[place]) - HISTORY * step)
        return self._now > before

    def now_ns(self) -> int:
        """Return the moment that is shown."""
        return self._now

    def table(self, previous: Table | None) -> Table:
        """Return the connections at the moment, with the history before it."""
        table = None
        for part in self._shown():
            table = advance(table, part)
        return table or empty()

    def _shown(self) -> list[Part]:
        if not self._states:
            moments = [self._now - step * self._interval_ns for step in range(HISTORY, -1, -1)]
            known = self._rebuilt
            self._rebuilt = {
                moment: known[moment] if moment in known else rebuild(self._batches, moment)
                for moment in moments
                if moment >= 0
            }
            return [*self._rebuilt.values()]
        return self._past()[-HISTORY - 1 :]

    def _past(self) -> list[Part]:
        """Return the snapshots up to the moment."""
        return [part for part in self._states if part.rows["ts_ns"][0] <= self._now]

    def want(self, kinds: tuple[str, ...], chosen: Criteria, payload: int) -> None:
        """Nothing: all that was recorded is there."""

    def events(self) -> Batch:
        """Return the events between the last moment that was asked for and this one."""
        parts = [
            part.take(between)
            for part in self._parts()
            if (
                between := (part.rows["ts_ns"] > self._read_to) & (part.rows["ts_ns"] <= self._now)
            ).any()
        ]
        self._read_to = self._now
        return Batch(parts, self.clock_offset_ns)

    def ledger(self) -> Ledger | None:
        """Return the account of the recording."""
        return self._ledger

    def past(self, inode: int) -> list[Rows]:
        """Return the records of all snapshots up to the moment."""
        rows = [part.rows[part.rows["inode"] == inode][:1] for part in self._past()]
        return [row for row in rows if len(row)]

    def close(self) -> None:
        """Nothing is open."""


def _traffic(snapshot: Part) -> int:
    """Return the bytes that the sockets of a snapshot sent and received in all."""
    return sum(int(snapshot.rows[name].sum()) for name in ("bytes_sent", "bytes_received"))


def _last_events(batches: Iterable[Batch], memory: int) -> tuple[list[Batch], int]:
    kept: deque[Batch] = deque()
    count = forgotten = size = 0
    for batch in batches:
        kept.append(batch)
        count += len(batch)
        size += size_of(batch)
        while size > memory and len(kept) > 1:
            oldest = kept.popleft()
            size -= size_of(oldest)
            count -= len(oldest)
            forgotten += len(oldest)
        while count > MOST_EVENTS:
            oldest = kept.popleft()
            size -= size_of(oldest)
            left = min(len(oldest), count - MOST_EVENTS)
            count -= left
            forgotten += left
            if left < len(oldest):
                kept.appendleft(oldest.between(left, len(oldest)))
                size += size_of(kept[0])
    return list(kept), forgotten
