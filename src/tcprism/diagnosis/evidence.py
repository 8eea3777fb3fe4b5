"""Evidence: what the events of one connection prove that its counters cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.event_history import chosen
from tcprism.diagnosis.watch import other_end, same_connection
from tcprism.events import Batch
from tcprism.events._wire import MICROSECONDS_UNKNOWN, EventKind, MessageFlag
from tcprism.events.columns import BY_NAME

PEEK = np.uint16(MessageFlag.PEEK)
REPETITION = "TCP_OLD_"  # what the kernel calls segments that it had already


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The events of one connection, in order of time.

    `waits_us` are the times from a send to the next receive's arrival, in microseconds: what the
    peer and the network took to answer. `drops` counts the segments dropped on this host by the
    kernel's reason, `retransmits` those sent again by cause.
    """

    waits_us: NDArray[np.float64]
    drops: Counter[str]
    retransmits: Counter[str]


def evidence(events: Batch, of: np.void) -> Evidence:
    """Return the evidence about the connection of a record."""
    own = chosen(events, lambda part: same_connection(part.rows, of))
    peers = chosen(events, lambda part: other_end(part.rows, of))
    drops = _count(own, EventKind.DROP, "reason") + _count(peers, EventKind.DROP, "reason")
    for reason in [reason for reason in drops if reason.startswith(REPETITION)]:
        del drops[reason]
    return Evidence(_waits(own), drops, _count(own, EventKind.RETRANSMIT, "cause"))


def _waits(own: Batch) -> NDArray[np.float64]:
    messages = [part.rows for part in own.parts if part.family == "message"]
    if not messages:
        return np.zeros(0)
    rows = np.concatenate(messages)
    rows = rows[(rows["bytes"] > 0) & (rows["flags"] & PEEK == 0)]
    rows = rows[np.argsort(rows["ts_ns"], kind="stable")]
    unread = np.where(rows["unread_us"] == MICROSECONDS_UNKNOWN, 0, rows["unread_us"])
    answered = np.flatnonzero(
        (rows["kind"][:-1] == EventKind.SEND) & (rows["kind"][1:] == EventKind.RECV)
    )
    gaps = (rows["ts_ns"][answered + 1] - rows["ts_ns"][answered]).astype(np.float64) / 1000
    waits: NDArray[np.float64] = (gaps - unread[answered + 1]).clip(0)
    return waits


def _count(events: Batch, kind: EventKind, column: str) -> Counter[str]:
    counter: Counter[str] = Counter()
    for part in events.parts:
        if part.family != "loss":
            continue
        these = part.take(part.rows["kind"] == kind)
        for name, segments in zip(
            BY_NAME[column].to_list(these), these.rows["segs"].tolist(), strict=True
        ):
            counter[name or "unknown"] += max(1, segments)
    return counter
