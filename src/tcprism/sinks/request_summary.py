"""Requests added up: how many, how many failed, how long they took, which part was the largest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events.column import Mask, texts
from tcprism.events.names import endpoint
from tcprism.events.optional import need
from tcprism.events.requests import SPLIT, STATES, UNKNOWN_NS, asked
from tcprism.events.units import duration
from tcprism.sinks import Sink
from tcprism.sinks.text_details import each

GROUPS_MAX = 4_096  # a flood of routes must not fill the memory
SHOWN = 30
OTHERS = "others"
ACCURACY = 0.01  # of percentiles, relative

_VALUE = re.compile(r"[0-9]+|[0-9a-fA-F]{8,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PENDING = STATES.index("pending")
_SEPARATORS = re.compile(r"([/:.?&=])")
_LINE = "{:>9} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}  {:<15} "
_TITLES = ("count", "failed", "rate/s", "p50", "p90", "p99", "max", "retrans", "mostly")


@lru_cache(GROUPS_MAX)
def route(protocol: str, method: str | None, resource: str | None) -> str:
    """Return what requests have in common that differ by a number in their resource only."""
    pieces = _SEPARATORS.split(resource or "")
    known = ("?" if _VALUE.fullmatch(piece) else piece for piece in pieces)
    return asked(protocol, method, "".join(known))


def _server(remote_ip: str, remote_port: int, server_comm: str | None) -> str:
    server = endpoint(remote_ip, remote_port)
    return f"{server_comm} {server}" if server_comm else server


def _client(local_ip: str) -> str:
    return local_ip


def _process(comm: str | None) -> str:
    return comm or "-"


def _status(protocol: str, status: str | None, request_state: str) -> str:
    return f"{protocol} {status or request_state}"


BY: dict[str, Callable[..., str]] = {
    "route": route,
    "server": _server,
    "client": _client,
    "process": _process,
    "status": _status,
}


def grouped(part: Part, by: str) -> Iterator[tuple[str, Mask]]:
    """Yield the names of the groups, by a key of BY, and which requests are theirs."""
    names, places = np.unique(texts(each(BY[by], part)), return_inverse=True)
    for place, name in enumerate(names.tolist()):
        yield name, places == place


class Group:
    """The requests of a group. `sketch` has their times, in nanoseconds (DDSketch)."""

    def __init__(self, sketch: Any) -> None:
        self.sketch = sketch
        self.count = 0
        self.failed = 0
        self.retransmissions = 0
        self.least, self.most = UNKNOWN_NS, 0
        self.parts = np.zeros(len(SPLIT), np.uint64)

    def add(self, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Add requests."""
        self.count += len(rows)
        self.failed += int(np.count_nonzero(rows["failed"]))
        self.retransmissions += int(rows["retransmissions"].sum())
        known = (rows["request_ns"] != UNKNOWN_NS) & (rows["request_state"] != _PENDING)
        times = rows["request_ns"][known]
        for value in times.tolist():
            self.sketch.add(value)
        self.least = min(self.least, int(times.min(initial=UNKNOWN_NS)))
        self.most = max(self.most, int(times.max(initial=0)))
        for place, name in enumerate(SPLIT):
            spans = rows[f"{name}_ns"]
            self.parts[place] += spans[spans != UNKNOWN_NS].sum()

    def cells(self, seconds: float) -> Iterator[str]:
        """Yield what a line shows of it."""
        yield f"{self.count}"
        yield f"{self.failed}"
        yield f"{self.count / seconds:,.1f}" if seconds and self.count > 1 else "-"
        for share in (0.5, 0.9, 0.99):
            value = self.percentile(share)
            yield "-" if value is None else duration(value / 1000)
        yield duration(self.most / 1000) if self.sketch.count else "-"
        yield f"{self.retransmissions}"
        yield self.mostly or "-"

    @property
    def mostly(self) -> str | None:
        """The largest part of their time in all."""
        largest = list(SPLIT)[int(self.parts.argmax())].replace("_", " ")
        return largest if self.parts.any() else None

    def percentile(self, share: float) -> float | None:
        """Return the time that a share of the requests did not exceed: that of the nearest rank.

        DDSketch takes ranks from 0 to the count less 1 and rounds them down: of two requests its
        99th percentile is the faster one.
        """
        count = int(self.sketch.count)
        if not count:
            return None
        rank = math.ceil(share * count - 1e-9) - 0.5
        value: float = self.sketch.get_quantile_value(min(1, rank / max(count - 1, 1)))
        return min(max(value, self.least), self.most)


class RequestSummary(Sink):
    """Adds up requests by what `by` names, a key of BY; when closed, passes lines to `show`.

    Raises ExtraMissing.
    """

    def __init__(self, show: Callable[[str], object], by: str = "route") -> None:
        self._show = show
        self._by = by
        self._groups: dict[str, Group] = {}
        self._sketch = need("ddsketch", "requests").DDSketch
        self._first, self._last = 0, 0

    def write(self, batch: Batch) -> None:
        """Add a batch to the sums."""
        for part in batch.parts:
            if part.family == "request" and len(part):
                self._add(part)

    def _add(self, part: Part) -> None:
        self._first = self._first or int(part.rows["start_ts_ns"].min())
        self._last = max(self._last, int(part.rows["ts_ns"].max()))
        for name, which in grouped(part, self._by):
            self._group(name).add(part.rows[which])

    def _group(self, name: str) -> Group:
        if name not in self._groups and len(self._groups) >= GROUPS_MAX:
            name = OTHERS
        if name not in self._groups:
            self._groups[name] = Group(self._sketch(ACCURACY))
        return self._groups[name]

    def close(self) -> None:
        """Show the sums."""
        for line in self.lines():
            self._show(line)

    def lines(self) -> Iterator[str]:
        """Yield the table, the groups with the most time in all first."""
        groups = sorted(self._groups.items(), key=lambda item: -item[1].sketch.sum)
        yield from table_lines(groups, (self._last - self._first) / 1e9, self._by)


def table_lines(groups: Sequence[tuple[str, Group]], seconds: float, by: str) -> Iterator[str]:
    """Yield a table of the first SHOWN groups, as of so many seconds."""
    if not groups:
        yield "no requests"
        return
    yield _LINE.format(*_TITLES) + by
    for name, group in groups[:SHOWN]:
        yield _LINE.format(*group.cells(seconds)) + name
    if len(groups) > SHOWN:
        yield f"... and {len(groups) - SHOWN} more"
