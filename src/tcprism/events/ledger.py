"""The ledger: what became of every event, in the kernel and here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcprism.events import KINDS, Batch
from tcprism.events._wire import COUNTERS
from tcprism.events.kinds import KIND_NUMBERS, NUMBERS
from tcprism.events.units import counted

Counters = np.ndarray[tuple[int], np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind's account: received = submitted, and what the kernel saw adds up.

    seen = filtered + sampled_out + submitted + ring_full + ring_busy + map_full. `sampled_out` are
    events of connections that a sample leaves out, to keep a budget. `ring_busy` are events whose
    program found every lane that it tried in use: a larger ring does not help. `missed` are hook
    runs that the kernel skipped because the same hook was interrupted (counted for fentry and
    tracepoints since 5.12, for kprobes since 6.7); they are not in `seen`.
    If a hook makes several kinds of events, a skipped run counts as missed in each. `bytes` and
    `payload_cut` are bytes, all else events. For `acked`, map_full are not losses: these are sends
    whose acknowledgement is not reported, because more were under way than are remembered, or
    because their place in the stream is not known.
    """

    kind: str
    seen: int
    filtered: int
    sampled_out: int
    submitted: int
    ring_full: int
    ring_busy: int
    map_full: int
    missed: int
    received: int
    bytes: int
    payload_cut: int

    @classmethod
    def of_stage(cls, kind: str, made: int, dropped: int = 0, size: int = 0) -> Entry:
        """Return the account of a kind that a stage makes of others: `size` are its bytes.

        `dropped` are those that it had no room for.
        """
        nothing = dict.fromkeys(cls.__dataclass_fields__.keys() - {"kind"}, 0)
        counts = {"seen": made + dropped, "submitted": made, "map_full": dropped}
        return cls(kind=kind, **nothing | counts | {"received": made, "bytes": size})

    @property
    def unjoined(self) -> int:
        """Sends that no `acked` could be joined to."""
        return self.map_full if self.kind == "acked" else 0

    @property
    def lost(self) -> int:
        """Events that passed the filters but did not arrive."""
        return self.ring_full + self.ring_busy + self.map_full + self.missed - self.unjoined

    @property
    def absent(self) -> int:
        """Events that passed the filters and are not here: lost, or not in the sample."""
        return self.lost + self.sampled_out

    def balances(self) -> bool:
        """Return whether every event is accounted for."""
        lost = self.ring_full + self.ring_busy + self.map_full
        accounted = self.filtered + self.sampled_out + self.submitted + lost
        return self.seen == accounted and self.received == self.submitted


_COLUMNS = tuple(Entry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Account:
    """The part of the ledger that a stage or a sink contributes.

    `entries` are the accounts of the event kinds that it makes, `counts` are its other counters by
    name, and `remarks` are sentences that say what is missing and what helps.
    """

    entries: tuple[Entry, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __add__(self, other: Account) -> Account:
        names = dict.fromkeys((*self.counts, *other.counts))
        return Account(
            self.entries + other.entries,
            {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names},
            self.remarks + other.remarks,
        )


class Received:
    """What has come out of the rings, per kind."""

    def __init__(self) -> None:
        self.events = np.zeros(KIND_NUMBERS, np.int64)
        self.bytes = np.zeros(KIND_NUMBERS, np.int64)

    def add(self, batch: Batch) -> None:
        """Count events."""
        events, size = batch.totals
        self.events += events
        self.bytes += size


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounts of all traced kinds, and of those that stages made.

    `unremembered` counts sockets that could not be remembered for lack of room: their events have
    no owner unless a process was using the socket. `counts` and `remarks` come from stages (see
    Account): `counts["unjoined"]` are retransmissions of sends too far back to be remembered.
    """

    entries: tuple[Entry, ...]
    unremembered: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __add__(self, other: Ledger) -> Ledger:
        whole = self.with_account(Account(other.entries, other.counts, other.remarks))
        return replace(whole, unremembered=self.unremembered + other.unremembered)

    def with_account(self, account: Account) -> Ledger:
        """Return the ledger with the account of a stage or a sink added."""
        own = Account(self.entries, self.counts, self.remarks) + account
        return Ledger(own.entries, self.unremembered, own.counts, own.remarks)

    @property
    def lost(self) -> int:
        """All lost events."""
        return sum(entry.lost for entry in self.entries)

    @property
    def absent(self) -> int:
        """All events that passed the filters and are not here: lost, or not in the sample."""
        return sum(entry.absent for entry in self.entries)

    def lines(self) -> list[str]:
        """Return one line if nothing was lost, else the table of kinds with events."""
        told = [entry for entry in self.entries if entry.received or entry.absent]
        return [*(_table(told) if self.absent else [self._summary()]), *self._advice()]

    def whole(self) -> list[str]:
        """Return the table of all kinds, header first, and remarks on it."""
        return [*_table(self.entries), *self._advice()]

    def _summary(self) -> str:
        received, seen = (sum(getattr(e, c) for e in self.entries) for c in ("received", "seen"))
        if received:
            return f"{counted(received, 'event')}, none lost"
        return f"no events: {f'filters turned all {seen:,} away' if seen else 'none was seen'}"

    def _advice(self) -> Iterable[str]:
        hooked = [entry for entry in self.entries if entry.lost and entry.kind in KINDS]
        for name, text in _ADVICE.items():
            if any(getattr(entry, name) for entry in hooked):
                yield text
        if unjoined := sum(entry.unjoined for entry in self.entries):
            yield (
                f"{unjoined:,} sends are without their acked: the connection had more under way"
                " than are remembered, or where in the stream they are is not known"
            )
        if self.unremembered:
            yield (
                f"the owners of {self.unremembered} sockets were not remembered:"
                " use a larger --max-connections"
            )
        yield from self.remarks


def _table(entries: Iterable[Entry]) -> list[str]:
    rows = [_COLUMNS, *(tuple(str(getattr(e, c)) for c in _COLUMNS) for e in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


_ADVICE = {
    "ring_full": "events were lost because a ring was full:"
    " use a larger --ring-size, a filter, or less --payload",
    "ring_busy": "events were lost because too many programs wrote to a ring at once:"
    " use a filter or fewer --kinds; a larger --ring-size does not help",
    "map_full": "events were lost because there was no room to remember a call until it returned",
    "missed": "events were missed because the kernel runs a hook only once at a time on each CPU",
}


def close_accounts(
    kinds: Iterable[str],
    counters: Counters,
    missed: Mapping[str, int],
    received: Received,
    unremembered: int = 0,
) -> Ledger:
    """Put the kernel's counters (struct counters, a row a kind) and ours together."""
    return Ledger(
        tuple(
            Entry(
                kind=kind,
                missed=missed.get(kind, 0),
                received=int(received.events[NUMBERS[kind]]),
                bytes=int(received.bytes[NUMBERS[kind]]),
                **{name: int(counters[NUMBERS[kind]][name]) for name in COUNTERS.names or ()},
            )
            for kind in KINDS
            if kind in set(kinds)
        ),
        unremembered,
    )
