"""What changed in connections between two snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import MICROSECONDS_UNKNOWN

Rows = NDArray[np.void]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

ESTABLISHED, SYN_SENT, CLOSE_WAIT, LISTEN = 1, 2, 8, 10  # include/net/tcp_states.h
MANY_IN_FLIGHT = 4  # segments: fewer may wait for nothing but a delayed acknowledgement


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """Two records (struct snapshot) of each connection, at the same place in both arrays.

    `elapsed_us` is the time between them. `seen` says of each of the CONDITIONS in which share of
    the snapshots between the two it held; it is the last alone where there were only two.
    `snapshots` counts them; None where their number does not matter. `facts` is what events add, a
    value a connection.
    """

    before: Rows
    after: Rows
    elapsed_us: Numbers
    seen: Mapping[str, Numbers] = field(default_factory=dict)
    snapshots: Numbers | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.after)

    def only(self, place: int) -> Delta:
        """Return the change of one connection."""
        here = slice(place, place + 1)
        seen = {name: shares[here] for name, shares in self.seen.items()}
        facts = {name: values[here] for name, values in self.facts.items()}
        snapshots = None if self.snapshots is None else self.snapshots[here]
        return Delta(
            self.before[here], self.after[here], self.elapsed_us[here], seen, snapshots, facts
        )

    def delta(self, name: str) -> Numbers:
        """Return how much a counter has grown."""
        grown = self.after[name] - self.before[name]  # unsigned: right across a wrap
        numbers: Numbers = grown.astype(np.float64)
        return numbers

    def fact(self, name: str) -> Numbers:
        """Return a number that events tell, 0 where they do not."""
        known = self.facts.get(name)
        return np.zeros(len(self)) if known is None else known.astype(np.float64)

    def words(self, name: str, index: int) -> str:
        """Return what events tell of one connection in words, nothing where they do not."""
        known = self.facts.get(name)
        return "" if known is None else str(known[index] or "")

    def share_of_time(self, name: str) -> Numbers:
        """Return the share of the time that a counter of microseconds has grown by, 0 to 1."""
        return ratio(self.delta(name), self.elapsed_us).clip(0, 1)

    def share_seen(self, condition: str) -> Numbers:
        """Return the share of snapshots in which a condition held."""
        known = self.seen.get(condition)
        return CONDITIONS[condition](self.after).astype(np.float64) if known is None else known

    @property
    def new_bytes(self) -> Numbers:
        """Payload bytes that left for the first time."""
        return (self.delta("bytes_sent") - self.delta("bytes_retrans")).clip(0)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Numbers:
    """Return part / whole, 0 where there is no whole."""
    quotient: Numbers = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return quotient


def microseconds(rows: Rows, name: str) -> Numbers:
    """Return a field of microseconds, nan where it is unknown."""
    values = rows[name]
    return np.where(values == MICROSECONDS_UNKNOWN, np.nan, values.astype(np.float64))


def _syn_unanswered(rows: Rows) -> Flags:
    unanswered: Flags = (rows["state"] == SYN_SENT) & (rows["icsk_retransmits"] > 0)
    return unanswered


def _unanswered(rows: Rows) -> Flags:
    unanswered: Flags = (
        (rows["icsk_retransmits"] > 1) & (rows["unacked"] > 0) & (rows["state"] != SYN_SENT)
    )
    return unanswered


def _zero_window(rows: Rows) -> Flags:
    closed: Flags = (rows["unsent"] > 0) & (rows["snd_wnd"] == 0) & (rows["state"] != SYN_SENT)
    return closed


def _reader_behind(rows: Rows) -> Flags:
    """More lies unread than the peer may still send."""
    behind: Flags = (rows["unread"] > 0) & (rows["rcv_wnd"] < rows["unread"])
    return behind


def _nagle_waits(rows: Rows) -> Flags:
    """Less than a segment waits, for nothing but the acknowledgement of what is in flight."""
    small = (rows["unsent"] > 0) & (rows["unsent"] < rows["mss"])
    room = (rows["packets_out"] < rows["cwnd"]) & (
        rows["snd_wnd"].astype(np.int64) >= rows["unacked"].astype(np.int64) + rows["unsent"]
    )
    waits: Flags = small & room & (rows["unacked"] > 0) & (rows["nodelay"] == 0)
    return waits


def _held_back(rows: Rows) -> Flags:
    """A segment waits, and neither the peer's window nor Nagle's algorithm keeps it."""
    room = rows["unacked"].astype(np.int64) + rows["mss"] <= rows["snd_wnd"]
    held: Flags = (rows["unsent"] >= rows["mss"]) & room & (rows["mss"] > 0)
    return held


def _backlog_full(rows: Rows) -> Flags:
    full: Flags = (rows["state"] == LISTEN) & (rows["backlog"] > rows["backlog_limit"])
    return full


def _backlog_waits(rows: Rows) -> Flags:
    waits: Flags = (rows["state"] == LISTEN) & (rows["backlog"] > 0)
    return waits


def _close_wait(rows: Rows) -> Flags:
    """The peer has closed, and the process here neither sends nor closes."""
    left: Flags = (
        (rows["state"] == CLOSE_WAIT)
        & (rows["unsent"] == 0)
        & (rows["unacked"] == 0)
        & (rows["unread"] == 0)
    )
    return left


def _keepalive_unanswered(rows: Rows) -> Flags:
    """Two probes of a connection that has nothing to send: those of a closed window have."""
    gone: Flags = (rows["probes_out"] > 1) & (rows["unsent"] == 0) & (rows["unacked"] == 0)
    return gone


def _many_in_flight(rows: Rows) -> Flags:
    many: Flags = rows["packets_out"] >= MANY_IN_FLIGHT
    return many


CONDITIONS: dict[str, Callable[[Rows], Flags]] = {
    "syn_unanswered": _syn_unanswered,
    "unanswered": _unanswered,
    "zero_window": _zero_window,
    "reader_behind": _reader_behind,
    "nagle_waits": _nagle_waits,
    "held_back": _held_back,
    "backlog_full": _backlog_full,
    "backlog_waits": _backlog_waits,
    "close_wait": _close_wait,
    "keepalive_unanswered": _keepalive_unanswered,
    "many_in_flight": _many_in_flight,
}
