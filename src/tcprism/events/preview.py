"""Preview: many batches, and a ledger, as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from tcprism.events.batch import Batch, joined
from tcprism.events.html import ROWS_MAX, cells, chart, table
from tcprism.events.kinds import kind_name
from tcprism.events.ledger import Ledger
from tcprism.events.units import counted, size

EVENTS_MAX = 200_000  # that are looked at


def preview(batches: Iterable[Batch], heading: str) -> str:
    """Return a chart, sums by kind and the first events, of EVENTS_MAX events or a few more."""
    taken, count, more = [], 0, False
    for batch in batches:
        if more := count >= EVENTS_MAX:
            break
        if len(batch):
            taken.append(batch)
            count += len(batch)
    if not taken:
        return f"<p>{escape(heading)}: no events</p>"
    of = f"the first {counted(count, 'event')}" if more else counted(count, "event")
    enough = (n for n in range(1, len(taken)) if sum(map(len, taken[:n])) >= ROWS_MAX)
    first = joined(*taken[: next(enough, len(taken))])
    return (
        f"<p><b>{escape(heading)}</b>: {of}</p>"
        + chart(part for batch in taken for part in batch.parts)
        + _sums(taken)
        + table(list(first.between(0, ROWS_MAX)), count)
    )


def _sums(batches: Sequence[Batch]) -> str:
    events, moved = (sum(columns) for columns in zip(*(b.totals for b in batches), strict=True))
    kinds = np.flatnonzero(events).tolist()
    return cells(
        ("kind", "events", "bytes"),
        [(kind_name(n), f"{int(events[n]):,}", size(int(moved[n]))) for n in kinds],
    )


def of_ledger(ledger: Ledger, heading: str) -> str:
    """Return what was seen and lost of each kind."""
    rows = [
        (entry.kind, f"{entry.received:,}", size(entry.bytes), f"{entry.lost:,}")
        for entry in ledger.entries
    ]
    return f"<p><b>{escape(heading)}</b></p>" + cells(("kind", "events", "bytes", "lost"), rows)
