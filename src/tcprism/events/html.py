"""A batch as HTML, as notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tcprism.events.columns import BY_NAME
from tcprism.events.event import Event

ROWS_MAX = 20
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


def _values(event: Event) -> Mapping[str, Any]:
    return {name: event[name] for name in event.columns}


def _text(value: Any) -> str:
    return "" if value is None else escape(str(value))
