"""Events as HTML, as notebooks show them: a chart over time, sums and a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from tcprism.events.columns import BY_NAME
from tcprism.events.event import Event
from tcprism.events.kinds import kind_name
from tcprism.events.part import Part
from tcprism.events.units import counted, duration

ROWS_MAX = 20
_BARS, _WIDE, _HIGH = 80, 640, 90  # of a chart: bars, pixels
# As dark as light on either ground.
_COLORS = (
    "#2f6fd0", "#2b8a5c", "#8a9099", "#c9342b", "#b7791f", "#7a55c7", "#1a8fa0", "#c2571a",
)  # fmt: skip
_FIRST = ("time", "kind", "comm", "pid", "local_ip", "local_port", "remote_ip", "remote_port")
# What tells people little, or is told by another column.
_LEFT_OUT = {
    "ts_ns", "tid", "uid", "cgroup_id", "netns", "socket", "family", "owner_source", "payload",
    "payload_truncated", "send_ts_ns", "start_ts_ns", "message_ts_ns", "session",
}  # fmt: skip


def table(events: list[Event], total: int) -> str:
    """Return a table of events, with the columns that say something of any; all text is escaped."""
    rows = [_values(event) for event in events[:ROWS_MAX]]
    named = [name for name in BY_NAME if name not in {*_FIRST, *_LEFT_OUT}]
    names = [*_FIRST, *(name for name in named if any(row.get(name) is not None for row in rows))]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [
        "<tr>" + "".join(f"<td>{_text(row.get(name))}</td>" for name in names) + "</tr>"
        for row in rows
    ]
    more = f"<p>{total - len(rows):,} more events</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"


def chart(parts: Iterable[Part]) -> str:
    """Return how many events of each kind happened when, as stacked bars; nothing for none."""
    filled = [part.rows for part in parts if len(part)]
    if not filled:
        return ""
    moments = np.concatenate([rows["ts_ns"].astype(np.uint64) for rows in filled])
    kinds = np.concatenate([rows["kind"].astype(np.intp) for rows in filled])
    since = moments - moments.min()
    span = int(since.max()) + 1
    places = np.minimum(_BARS - 1, (since.astype(np.float64) / span * _BARS).astype(np.intp))
    numbers = np.unique(kinds)
    counts = np.stack([np.bincount(places[kinds == n], minlength=_BARS) for n in numbers])
    tops = counts.cumsum(axis=0)
    scale = _HIGH / int(tops[-1].max())
    wide = _WIDE / _BARS
    bars, legend = [], []
    for place, number in enumerate(numbers.tolist()):
        color = _COLORS[place % len(_COLORS)]
        path = "".join(
            f"M{at * wide:.0f} {_HIGH - top * scale:.1f}h{wide - 1:.0f}v{count * scale:.1f}"
            f"h{1 - wide:.0f}z"
            for at, (top, count) in enumerate(
                zip(tops[place].tolist(), counts[place].tolist(), strict=True)
            )
            if count
        )
        bars.append(f'<path fill="{color}" d="{path}"/>')
        name = escape(kind_name(number))
        legend.append(f'<span style="color:{color}">&#9632;</span> {name}&ensp;')
    label = f"{counted(len(moments), 'event')} over {duration(span / 1000)}, by kind"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}"'
        f' height="{_HIGH}">{"".join(bars)}</svg><p>{"".join(legend)}over'
        f" {duration(span / 1000)}</p>"
    )


def cells(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts, which are escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _values(event: Event) -> Mapping[str, Any]:
    return {name: event[name] for name in event.columns}


def _text(value: Any) -> str:
    return "" if value is None else escape(str(value))
