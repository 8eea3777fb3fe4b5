"""The losses of one connection: where, which retransmissions were spurious, and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Rows
from tcprism.events._wire import MICROSECONDS_UNKNOWN, Cause, EventKind
from tcprism.events.names import OVERTAKEN, REPETITIONS, cause_name

_TIMEOUTS = (Cause.RTO, Cause.SYN, Cause.SYN_ACK)
_TIMED = (*_TIMEOUTS, Cause.TLP)

TIMER_SLACK_NS = 10_000_000  # a timer goes off a tick late
PROBE_ALONE_US = 200_000  # a probe for a single segment waits that much longer (tcp_rearm_rto)
PROBE_LEAST_US = 8_000

Intervals = NDArray[np.int64]  # of shape (n, 2): start and end, CLOCK_MONOTONIC, nanoseconds


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """The losses of one connection.

    `again` counts the segments that this end sent again by cause; `acks` are the least and the most
    duplicate ACKs behind one, if known. `in_vain` is how many had arrived before, `drops` what this
    host dropped by reason. `stalls` are the times that either end waited before it sent something
    again, `timed` those in which a timer ran, and `ours` the moments when this end did.
    """

    again: Counter[str]
    acks: tuple[int, int] | None
    in_vain: int
    drops: Counter[str]
    stalls: Intervals
    timed: Intervals
    ours: NDArray[np.int64]
    theirs: int

    def why(self) -> str:
        """Say why segments were sent again, as in 3 fast (after 1 to 3 duplicate ACKs), 1 rto."""
        text = causes_text(self.again.most_common())
        if not self.acks:
            return text
        least, most = self.acks
        many = f"{least}" if least == most else f"{least} to {most}"
        after = f"fast (after {many} duplicate {'ACK' if most == 1 else 'ACKs'})"
        return text.replace("fast", after)


def lost_of(own: Rows, peers: Rows, reasons: list[str], dsack: int, mss: int) -> Lost:
    """Add up the losses (LOSS) of a connection and of its peer, if that is on this host.

    `dsack` is how many duplicates the peer reported.
    """
    again, theirs = (rows[rows["kind"] == EventKind.RETRANSMIT] for rows in (own, peers))
    repeated_there, repeated_here = (_repetitions(rows, reasons) for rows in (peers, own))
    undone = int(own["undone"][own["kind"] == EventKind.UNDO].sum())
    segments = int(np.maximum(again["segs"], 1).sum())
    arrived = _segments(repeated_there["bytes"], mss)
    in_vain = min(segments, max(dsack, undone, arrived))
    useful = again if in_vain < segments else again[:0]
    useful = useful[~np.isin(useful["seq"], repeated_there["seq"])]
    needed = theirs[~np.isin(theirs["seq"], repeated_here["seq"])]
    resent = np.concatenate([useful, needed])
    stalls = _stalls(resent)
    timed = _merged(stalls[np.isin(resent["cause"], _TIMED)])
    stalls[:, 0] -= TIMER_SLACK_NS
    return Lost(
        Counter(_by_cause(again)),
        _acks(again),
        in_vain,
        _drops(own, reasons) + _drops(peers, reasons),
        _merged(stalls),
        timed,
        useful["ts_ns"].astype(np.int64),
        len(needed),
    )


def _repetitions(rows: Rows, reasons: list[str]) -> Rows:
    """Return what arrived and had arrived before."""
    numbers = [number for number, name in enumerate(reasons) if name in REPETITIONS]
    dropped = (rows["kind"] == EventKind.DROP) & (rows["bytes"] > 0)
    repeated: Rows = rows[dropped & np.isin(rows["reason"], numbers)]
    return repeated


def _segments(size: NDArray[np.uint32], mss: int) -> int:
    return int(np.ceil(size / max(mss, 1)).sum()) if mss else len(size)


def _acks(again: Rows) -> tuple[int, int] | None:
    known = again["duplicate_acks"][again["duplicate_acks"] > 0]
    return (int(known.min()), int(known.max())) if len(known) else None


def _by_cause(again: Rows) -> dict[str, int]:
    found: dict[str, int] = {}
    for cause, count in zip(again["cause"].tolist(), again["segs"].tolist(), strict=True):
        name = cause_name(cause)
        found[name] = found.get(name, 0) + max(1, count)
    return found


def _drops(rows: Rows, reasons: list[str]) -> Counter[str]:
    """Count what was dropped of data and SYNs: an acknowledgement alone is made up for."""
    dropped = rows[(rows["kind"] == EventKind.DROP) & rows["payload_or_syn"]]
    names = [reasons[number] for number in dropped["reason"].tolist()]
    return Counter(name for name in names if name not in (*REPETITIONS, *OVERTAKEN))


def _stalls(again: Rows) -> Intervals:
    """Return how long each segment's timer ran before it was retransmitted."""
    ends = again["ts_ns"].astype(np.int64)
    trip = np.where(again["srtt_us"] == MICROSECONDS_UNKNOWN, 0, again["srtt_us"]).astype(np.int64)
    timeout = np.where(again["rto_us"] == MICROSECONDS_UNKNOWN, trip, again["rto_us"])
    alone = np.where(again["packets_out"] <= 1, PROBE_ALONE_US, PROBE_LEAST_US)
    probe = np.minimum(2 * trip + alone, timeout)
    timed = np.isin(again["cause"], _TIMEOUTS) & (again["icsk_retransmits"] > 0)
    length = np.where(timed, timeout, np.where(again["cause"] == Cause.TLP, probe, trip))
    return np.stack([ends - length.astype(np.int64) * 1000, ends], 1)


def _merged(intervals: Intervals) -> Intervals:
    """Return the same times as intervals that do not overlap, in order."""
    if len(intervals) < 2:
        return intervals
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    ends = np.maximum.accumulate(intervals[:, 1])
    new = np.r_[True, intervals[1:, 0] > ends[:-1]]
    last = np.r_[np.flatnonzero(new)[1:] - 1, len(intervals) - 1]
    return np.stack([intervals[new, 0], ends[last]], 1)


def overlap(intervals: Intervals, start: Intervals, end: Intervals) -> NDArray[np.int64]:
    """Return how much of each time from `start` to `end` lies in intervals without overlaps."""
    lengths = np.r_[0, np.cumsum(intervals[:, 1] - intervals[:, 0])]

    def up_to(moments: Intervals) -> NDArray[np.int64]:
        place = np.searchsorted(intervals[:, 0], moments, side="right")
        inside = np.minimum(moments, intervals[np.maximum(place - 1, 0), 1])
        partly = (inside - intervals[np.maximum(place - 1, 0), 0]).clip(0)
        whole: NDArray[np.int64] = lengths[np.maximum(place - 1, 0)] + partly
        return np.where(place > 0, whole, 0)

    return (up_to(end) - up_to(start)).clip(0)


def waiting(lost: Lost, start: Intervals, end: Intervals) -> NDArray[np.int64]:
    """Return how long each wait for an answer was one for a retransmission, in nanoseconds.

    Until this end has sent its request again, nobody can have read it.
    """
    place = np.searchsorted(lost.ours, end, side="right") - 1
    ours = lost.ours[np.maximum(place, 0)] if len(lost.ours) else np.zeros(len(end), np.int64)
    again = np.where((place >= 0) & (ours > start), ours, start)
    rest = overlap(lost.stalls, again, end) if len(lost.stalls) else np.zeros(len(end), np.int64)
    return again - start + rest


def causes_text(counts: Iterable[tuple[str, int]]) -> str:
    """Return "3 tlp, 1 rto"."""
    return ", ".join(f"{count} {name}" for name, count in counts)
