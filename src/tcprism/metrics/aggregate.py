"""Adds events up into the series of all instruments, in whole columns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, Cause, EventKind
from tcprism.events.columns import BY_NAME
from tcprism.events.kinds import RECORDS
from tcprism.events.ledger import Entry, Ledger
from tcprism.events.names import STATES, errno_name
from tcprism.metrics import instruments as i
from tcprism.metrics.instruments import INSTRUMENTS, Instrument
from tcprism.metrics.owners import ROLES, Owned, Owners
from tcprism.metrics.requests import KNOWN, add_requests
from tcprism.metrics.series import Key, Row, Series
from tcprism.metrics.totals import Change, Totals
from tcprism.sinks import Sink

Mask = NDArray[np.bool_]

_LOOK = 30.0  # seconds between two looks at which processes and listeners have ended
_LOST = ("ring_full", "ring_busy", "map_full", "missed")
_OUTCOMES = ("seen", "filtered", "sampled_out", "submitted", *_LOST, "received")
_ESTABLISHED = STATES.index("ESTABLISHED")

# network.tcp.retransmit.type of a cause.
TYPES = {
    Cause.RTO: "timeout",
    Cause.FAST: "fast",
    Cause.TLP: "tail_loss_probe",
    Cause.SYN: "syn",
    Cause.SYN_ACK: "syn_ack",
}
FAILED = {
    "ECONNREFUSED": "refused",
    "ECONNRESET": "reset",
    "ETIMEDOUT": "timed_out",
    "EHOSTUNREACH": "host_unreachable",
    "ENETUNREACH": "net_unreachable",
}
_OTHER = "_OTHER"
_DIRECTIONS = ("receive", "transmit")


class Metrics(Sink):
    """Adds up batches. `families` may be called from any thread."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._totals = Totals()
        self._done = {*KNOWN}  # operations of databases and calls
        self._series = {each: Series(each) for each in INSTRUMENTS}
        self._lock = threading.Lock()
        self._latest: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._empty = 0  # the latest snapshot without a connection that is known of
        self._looked = time.monotonic()

    def families(self) -> Iterable[tuple[Instrument, Sequence[Row]]]:
        """Return the instruments that have values, with their series."""
        with self._lock:
            return [(each, list(series.rows())) for each, series in self._series.items()]

    def set(self, instrument: Instrument, values: dict[Key, float]) -> None:
        """Have a gauge, or a counter of somebody else's, with these values."""
        with self._lock:
            self._series[instrument].set(values)

    def watch(self, latest: Callable[[], tuple[int, int]]) -> None:
        """Have this tell of snapshots without records, which make no batch (`Snapshots.latest`)."""
        self._latest = latest

    def write(self, batch: Batch) -> None:
        """Add a batch."""
        parts = [part for part in batch.parts if len(part) and part.family in _ADDERS]
        if not parts:
            return
        with self._lock:
            for part in parts:  # what explains the others comes first
                if part.family in ("snapshot", "connection"):
                    self._owners.learn(part)
            for part in parts:
                _ADDERS[part.family](self, part)

    def account(self, ledger: Ledger) -> None:
        """Take the account so far."""
        with self._lock:
            self._series[i.EVENTS].set(_counts(ledger.entries, _OUTCOMES))
            self._series[i.LOST].set(_counts(ledger.entries, _LOST))
            counts = {"unremembered": ledger.unremembered, **ledger.counts}
            beyond: dict[Key, float]
            self._series[i.COUNTS].set({(name,): count for name, count in counts.items()})
            beyond = {(s.instrument.name,): s.others for s in self._series.values() if s.others}
            self._series[i.OTHER_SERIES].set(beyond)
            self._series[i.UNKNOWN_BEFORE].set({(): self._totals.unaccounted})
            number, records = self._latest()
            if not records and number > self._empty:
                self._empty = number
                self._add_snapshot(Part(np.empty(0, RECORDS["snapshot"])))
            if time.monotonic() - self._looked > _LOOK:
                self._looked = time.monotonic()
                self._expire()

    def _expire(self) -> None:
        self._owners.processes.look()
        self._owners.listeners.look()
        for series in self._series.values():
            series.expire(self._owners.processes.lives)

    def add(
        self,
        instrument: Instrument,
        part: Part,
        amounts: Any,
        columns: Sequence[NDArray[Any]] = (),
        owned: Owned | None = None,
    ) -> None:
        """Add an amount for each record; `columns` are the attributes after those of the owner.

        `owned` says whose they are, if that is known. What is of a sample counts for all.
        """
        if len(part):
            ids, keys = (owned or self._owners.of(part)).and_by(*columns)
            weights = BY_NAME["weight"].values(part) if part.rows["sampling"].any() else None
            self._series[instrument].add(ids, keys, amounts, part.rows["socket"], weights)

    def _add_snapshot(self, part: Part) -> None:
        part, change = self._totals.snapshot(part)
        self._add_change(part, change)
        flowing = np.zeros(len(part), bool)
        for name in ("bytes_sent", "bytes_received"):
            flowing |= change[name] > 0
        self._add_rtt(part, flowing)
        self._count_open(part)

    def _count_open(self, part: Part) -> None:
        states = _named(part.rows["state"], lambda state: STATES[state])
        ids, keys = self._owners.of(part).and_by(states)
        found: dict[Key, float] = {}
        for key, count in zip(keys, np.bincount(ids).tolist(), strict=True):
            found[key] = found.get(key, 0) + count
        self._series[i.OPEN].set(found)

    def _add_change(self, part: Part, change: Change) -> None:
        sent = np.maximum(change["bytes_sent"] - change["bytes_retrans"], 0)
        busy, window, buffer = (
            change[name] / 1e6 for name in ("busy_us", "rwnd_limited_us", "sndbuf_limited_us")
        )
        other = np.maximum(busy - window - buffer, 0)
        for name, amount in (("transmit", sent), ("receive", change["bytes_received"])):
            self._add_some(i.IO, part, amount, name)
        for name, amount in (("receive_window", window), ("send_buffer", buffer), ("other", other)):
            self._add_some(i.LIMITED, part, amount, name)

    def _add_some(self, instrument: Instrument, part: Part, amounts: Any, name: str) -> None:
        """Add what is not 0, under one name."""
        which = amounts > 0
        if which.any():
            part = part.take(which)
            self.add(instrument, part, amounts[which], (np.full(len(part), name),))

    def _add_rtt(self, part: Part, which: Mask) -> None:
        which = which & (part.rows["srtt_us"] != MICROSECONDS_UNKNOWN)
        part = part.take(which)
        self.add(i.RTT, part, part.rows["srtt_us"] / 1e6)

    def _add_connection(self, part: Part) -> None:
        kinds, states = part.rows["kind"], part.rows["new_state"]
        opened = (kinds == EventKind.CONNECT) | (kinds == EventKind.ACCEPT)
        made = opened & (states == _ESTABLISHED)
        self._add_opened(part.take(made))
        self._add_failed(part.take(opened & ~made))
        closed = part.take(kinds == EventKind.CLOSE)
        if len(closed):
            self._add_closed(closed)
        resets = part.take(kinds == EventKind.RESET)
        direction = np.array(_DIRECTIONS)[(resets.rows["sent"] != 0).astype(int)]
        self.add(i.RESETS, resets, np.ones(len(resets)), (direction,))

    def _roles(self, part: Part) -> NDArray[Any]:
        return np.array(ROLES)[self._owners.listeners.roles(part)]

    def _add_opened(self, part: Part) -> None:
        self.add(i.SUCCESSES, part, np.ones(len(part)), (self._roles(part),))
        part = part.take((part.rows["kind"] == EventKind.CONNECT) & _known(part, "elapsed_ns"))
        self.add(i.HANDSHAKE, part, part.rows["elapsed_ns"] / 1e9, (self._roles(part),))

    def _add_failed(self, part: Part) -> None:
        reasons = _named(part.rows["error"], _why)
        self.add(i.FAILURES, part, np.ones(len(part)), (self._roles(part), reasons))

    def _add_closed(self, part: Part) -> None:
        self._add_change(part, self._totals.close(part))
        self._add_rtt(part, np.ones(len(part), bool))
        part = part.take(_known(part, "elapsed_ns"))
        endings = BY_NAME["ending"].values(part)
        self.add(i.LIFE, part, part.rows["elapsed_ns"] / 1e9, (endings.astype(str),))

    def _add_losses(self, part: Part) -> None:
        kinds = part.rows["kind"]
        left = part.rows["error"] == 0  # what the kernel refused to send is not in RetransSegs
        again = part.take((kinds == EventKind.RETRANSMIT) & left)
        types = _named(again.rows["cause"], lambda cause: TYPES.get(cause, "unknown"))
        self.add(i.RETRANSMITS, again, again.rows["segs"], (types,))
        undone = part.take(kinds == EventKind.UNDO)
        spurious = np.full(len(undone), "spurious")
        self.add(i.RETRANSMITS, undone, undone.rows["undone"], (spurious,))
        drops = part.take(kinds == EventKind.DROP)
        directions = np.array(_DIRECTIONS)[(drops.rows["outgoing"] != 0).astype(int)]
        reasons = np.array([str(name or "") for name in BY_NAME["reason"].values(drops)], object)
        self.add(i.DROPS, drops, _segments(drops), (directions, reasons))

    def _add_segments(self, part: Part) -> None:
        probes = part.take(part.rows["kind"] == EventKind.PROBE)
        self.add(i.FLOW_CONTROL, probes, np.ones(len(probes)))

    def _add_requests(self, part: Part) -> None:
        add_requests(self.add, self._owners, part, self._done)


_ADDERS: dict[str, Any] = {
    "snapshot": Metrics._add_snapshot,
    "connection": Metrics._add_connection,
    "loss": Metrics._add_losses,
    "segment": Metrics._add_segments,
    "request": Metrics._add_requests,
}


def _counts(entries: Iterable[Entry], columns: Sequence[str]) -> dict[Key, float]:
    return {(entry.kind, name): getattr(entry, name) for entry in entries for name in columns}


def _known(part: Part, column: str) -> Mask:
    return ~BY_NAME[column].mask(part)


def _segments(part: Part) -> NDArray[np.int64]:
    return np.maximum(part.rows["segs"].astype(np.int64), 1)


def _why(error: int) -> str:
    return FAILED.get(errno_name(error) or "", _OTHER)


def _named(numbers: NDArray[Any], name: Any) -> NDArray[Any]:
    """Return the name of each number; each distinct one is looked up once."""
    found, places = np.unique(np.ascontiguousarray(numbers), return_inverse=True)
    return np.array([name(number) for number in found.tolist()], object)[places]
