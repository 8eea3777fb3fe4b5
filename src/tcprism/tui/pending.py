"""Requests without a response as lines. Nothing here needs Textual."""

from __future__ import annotations

from collections.abc import Iterator

from tcprism.diagnosis.request_history import proved
from tcprism.diagnosis.table import Table
from tcprism.events import Part
from tcprism.events.units import duration
from tcprism.sinks.requests import client, server, what
from tcprism.sinks.text_details import each


def pending_lines(part: Part, table: Table, now_ns: int, most: int) -> Iterator[str]:
    """Yield how long the oldest of the requests without a response have waited, and for what."""
    oldest = proved(part.take(slice(most)), table)
    begun = oldest.rows["start_ts_ns"].astype(int).tolist()
    columns = (begun, each(client, oldest), each(server, oldest), each(what, oldest))
    for start, asks, asked, wanted in zip(*columns, strict=True):
        age = duration(max(0, now_ns - start) / 1000)
        yield f"{age:>9}  {wanted}  {asks} -> {asked}"
    if len(part) > most:
        yield f"{'':>9}  and {len(part) - most} more"
