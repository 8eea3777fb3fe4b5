"""Requests as lines, and one of them as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tcprism.events import Batch, Part
from tcprism.events.requests import SPLIT, UNKNOWN_NS
from tcprism.events.units import duration, percent, size
from tcprism.sinks.requests import (
    client,
    part_names,
    sent_again,
    server,
    what,
    where_time_went,
)
from tcprism.sinks.text_details import each
from tcprism.tui.lines import clock_texts

_WHAT = (what, where_time_went, sent_again)
_BAR = 40  # characters of a part that takes all the time


def request_lines(part: Part, offset_ns: int) -> list[list[str]]:
    """Return a line a request: time, client, server, time taken, bytes each way, and all else."""
    texts = (
        clock_texts(part.rows["ts_ns"], offset_ns),
        each(client, part),
        each(server, part),
        *(each(write, part) for write in (_took, _there, _back)),
        map("".join, zip(*(each(write, part) for write in _WHAT), strict=True)),
    )
    return [list(line) for line in zip(*texts, strict=True)]


def answered_lines(batches: Iterable[Batch]) -> Iterator[str]:
    """Yield what is told of a connection's requests, the latest first."""
    lines = [
        line
        for batch in batches
        for part in batch.parts
        for line in request_lines(part, batch.clock_offset_ns)
    ]
    for line in reversed(lines):
        yield f"{line[3]:>9}  {line[-1]}, {line[0]}"


def page(request: Part, offset_ns: int) -> Iterator[str]:
    """Yield what is known of one request: where its time went, and what was sent again."""
    row = request.rows[0]
    (begun,) = clock_texts(request.rows["start_ts_ns"], offset_ns)
    took, there, back = (each(write, request)[0] for write in (_took, _there, _back))
    yield each(what, request)[0]
    yield f"{each(client, request)[0]} -> {each(server, request)[0]}"
    yield f"began {begun}, took {took}, {there} there, {back} back"
    names = each(_part_names, request)[0].split(", ")
    spans = [int(row[f"{part}_ns"]) for part in SPLIT]
    for name, span in zip(names, spans, strict=True):
        if span != UNKNOWN_NS and span and row["request_ns"]:
            share = span / int(row["request_ns"])
            bar = "█" * max(1, round(share * _BAR))
            yield f"{name:<18} {bar:<{_BAR}} {duration(span / 1000):>8} {percent(share):>5}"
    if again := each(sent_again, request)[0]:
        yield again.removeprefix("; ")


def _part_names(server_source: str | None) -> str:
    return ", ".join(part_names(server_source))


def _took(request_ns: int | None) -> str:
    return "-" if request_ns is None else duration(request_ns / 1000)


def _there(request_bytes: int | None) -> str:
    return "-" if request_bytes is None else size(request_bytes)


def _back(response_bytes: int | None) -> str:
    return "-" if response_bytes is None else size(response_bytes)
