"""Events as lines of a grid."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.connections import ends, owners
from tcprism.diagnosis.event_history import EventHistory
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.units import duration
from tcprism.sinks.text_details import details
from tcprism.tui.grid import GridColumn, Line

COLUMNS = [
    GridColumn("time", "TIME", 15),
    GridColumn("kind", "KIND", 10),
    GridColumn("owner", "OWNER", 18, least=12, most=36, tail="["),
    GridColumn("local", "LOCAL", 21, rank=2, least=6, most=47, tail=":"),
    GridColumn("remote", "REMOTE", 21, rank=1, least=10, most=47, tail=":"),
    GridColumn("detail", "WHAT", 40, least=20, most=120),
]

_STYLES = {
    "send": "good",
    "recv": "cool",
    "transmit": "dim",
    "receive": "dim",
    "acked": "dim",
    "state": "dim",
    "retransmit": "bad",
    "drop": "bad",
    "reset": "bad",
    "undo": "warn",
    "probe": "warn",
}


def style(column: str, text: str) -> str:
    """Return the style of a cell."""
    if column == "kind":
        return _STYLES.get(text, "")
    return "dim" if column in ("time", "local") else ""


def event_lines(batch: Batch) -> list[Line]:
    """Return a line an event, in time order."""
    lines = [line for part in batch.parts for line in _lines(part, batch.clock_offset_ns)]
    return list(map(lines.__getitem__, batch.permutation.tolist()))


def _lines(part: Part, offset_ns: int) -> list[Line]:
    def clock(moments: NDArray[np.uint64]) -> list[str]:
        return clock_texts(moments, offset_ns)

    texts = (
        clock(part.rows["ts_ns"]),
        BY_NAME["kind"].to_list(part),
        owners(part),
        ends(part, "local"),
        ends(part, "remote"),
        _whats(part, details(part, clock)),
    )
    return [list(line) for line in zip(*texts, strict=True)]


def _whats(part: Part, texts: list[str]) -> list[str]:
    """Return what happened; why a segment was sent again comes first, for lines get cut."""
    if part.family != "loss":
        return [text.strip() for text in texts]
    causes = BY_NAME["cause"].to_list(part)
    return [
        f"{cause or ''} {text.strip()}".strip() for cause, text in zip(causes, texts, strict=True)
    ]


def clock_texts(moments: NDArray[np.uint64], offset_ns: int) -> list[str]:
    """Return times of day with microseconds."""
    texts = []
    for moment in (moments.astype(np.int64) + offset_ns).tolist():
        seconds, rest = divmod(moment, 1_000_000_000)
        texts.append(time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{rest // 1000:06d}")
    return texts


def book_lines(book: EventHistory, first: int, last: int) -> list[Line]:
    """Return the lines of some events of a book."""
    return [line for batch in book.between(first, last) for line in event_lines(batch)]


def after_lines(book: EventHistory, first: int, last: int, begun_ns: int) -> list[Line]:
    """Return the lines of some events, with the time since a moment in place of that of day."""
    lines = []
    for batch in book.between(first, last):
        moments = np.concatenate([part.rows["ts_ns"] for part in batch.parts])[batch.permutation]
        for line, moment in zip(event_lines(batch), moments.tolist(), strict=True):
            sign = "-" if moment < begun_ns else "+"
            lines.append([f"{sign}{duration(abs(moment - begun_ns) / 1000)}", *line[1:]])
    return lines
