"""The requests as plain lines, for pipes and for programs. Nothing here needs Textual."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from tcprism.diagnosis.request_history import RequestHistory, proved
from tcprism.events import Part
from tcprism.events.columns import BY_NAME
from tcprism.sinks.request_summary import Group, table_lines
from tcprism.tui.layout import printable
from tcprism.tui.model import Model
from tcprism.tui.pending import pending_lines
from tcprism.tui.plain import CLEAR, time_text

_PENDING = 10  # lines
_OF_PENDING = (
    *("protocol", "method", "resource", "waiting_for"),
    *("pid", "comm", "server_pid", "server_comm"),
    *("local_ip", "local_port", "remote_ip", "remote_port"),
)


def requests_text(model: Model) -> Iterator[str]:
    """Yield the requests without a response, and the routes; on a terminal as much as fits."""
    columns, rows = os.get_terminal_size() if sys.stdout.isatty() else (None, None)
    lines = list(_lines(model))[: rows and rows - 2]
    yield f"{CLEAR if rows else ''}{time_text(model)}"
    yield from (printable(line)[:columns] for line in lines)
    if not rows:
        yield ""


def _lines(model: Model) -> Iterator[str]:
    requests, now_ns = model.requests(), model.feed.now_ns()
    if waiting := requests.pending():
        yield f"{len(waiting)} without a response"
        yield from pending_lines(waiting, model.table, now_ns, _PENDING)
    yield from table_lines(_ordered(requests), _seconds(requests, now_ns), "route")


def requests_json(model: Model) -> Iterator[str]:
    """Yield one JSON object with the time, the requests without a response, and the routes."""
    requests, now_ns = model.requests(), model.feed.now_ns()
    waiting, seconds = requests.pending(), _seconds(requests, now_ns)
    told = {
        "time": time_text(model),
        "pending": [] if waiting is None else _pending(proved(waiting, model.table), now_ns),
        "routes": [_route(name, group, seconds) for name, group in _ordered(requests)],
    }
    yield json.dumps(told, ensure_ascii=True)


def _pending(waiting: Part, now_ns: int) -> list[dict[str, object]]:
    columns = [BY_NAME[name].to_list(waiting) for name in _OF_PENDING]
    rows = [dict(zip(_OF_PENDING, row, strict=True)) for row in zip(*columns, strict=True)]
    begun = waiting.rows["start_ts_ns"].tolist()
    return [{**row, "age_ns": max(0, now_ns - at)} for row, at in zip(rows, begun, strict=True)]


def _route(name: str, group: Group, seconds: float) -> dict[str, object]:
    percentiles = {
        f"p{round(100 * share)}_ns": None if (value := group.percentile(share)) is None
        else round(value) for share in (0.5, 0.9, 0.99)
    }  # fmt: skip
    return {
        "route": name,
        "count": group.count,
        "failed": group.failed,
        "rate": round(group.count / seconds, 3) if seconds else None,
        **percentiles,
        "max_ns": group.most if group.sketch.count else None,
        "retransmissions": group.retransmissions,
        "mostly": group.mostly,
    }


def _ordered(requests: RequestHistory) -> list[tuple[str, Group]]:
    """Return the routes, the one with the most time in all first."""
    found = [(name, route.sums) for name, route in requests.routes.items()]
    return sorted(found, key=lambda one: -one[1].sketch.sum)


def _seconds(requests: RequestHistory, now_ns: int) -> float:
    return max(0, now_ns - requests.began_ns) / 1e9 if requests.routes else 0.0
