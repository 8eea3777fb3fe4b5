"""The connections as plain lines, for pipes and for programs. Nothing here needs Textual."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator

import numpy as np

from tcprism.diagnosis.connections import Column, shown_columns
from tcprism.diagnosis.rules import LABELS, limits
from tcprism.events.batch import time_texts
from tcprism.events.columns import columns_of
from tcprism.events.part import HOST
from tcprism.tui.layout import fitted, printable, shortened
from tcprism.tui.model import Model

Printer = Callable[[Model], Iterator[str]]

CLEAR = "\x1b[H\x1b[2J"
_ANY_LENGTH = 1000
_NOT_OF_A_STATE = ("time", "ts_ns", "kind", "bytes", "error")


def table_text(model: Model) -> Iterator[str]:
    """Yield a table; on a terminal it stands where the last one stood, and fits."""
    columns, lines = os.get_terminal_size() if sys.stdout.isatty() else (_ANY_LENGTH, 0)
    shown = shown_columns(model.table)
    places = model.places()[: lines - 3 if lines else None]
    texts = [list(map(printable, column.texts(model.table, places))) for column in shown]
    needs = [
        max(map(len, [column.title, *cells])) for column, cells in zip(shown, texts, strict=True)
    ]
    chosen = fitted(shown, columns - 1, needs, model.sort)
    moment = time_text(model)
    yield f"{CLEAR if lines else ''}{moment}  {len(model.table)} sockets"
    for row in zip(
        *([c.title, *cells] for c, cells in zip(shown, texts, strict=True)), strict=True
    ):
        yield " ".join(_cell(row[place], shown[place], wide) for place, wide in chosen).rstrip()
    if not lines:
        yield ""


def _cell(text: str, column: Column, width: int) -> str:
    text = shortened(text, width, column.tail)
    return text.rjust(width) if column.right else text.ljust(width)


def json_line(model: Model) -> Iterator[str]:
    """Yield one JSON object with the time and all connections, in the order asked for."""
    table, places = model.table, model.places()
    part = table.part.take(places)
    names = [c for c in columns_of("snapshot") if c.name not in _NOT_OF_A_STATE]
    values = {column.name: column.to_list(part) for column in names}
    if (hosts := part.derived.get(HOST)) is not None:
        values["host"] = hosts.tolist()
    values["holders"] = table.holders[places].tolist()
    values["rate_out"] = _numbers(table.rate_out[places])
    values["rate_in"] = _numbers(table.rate_in[places])
    values["retransmit_share"] = table.retransmit_share[places].round(6).tolist()
    values["limited_by"] = [LABELS[n] or None for n in limits(table.change)[places].tolist()]
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    yield json.dumps({"time": time_text(model), "connections": rows}, ensure_ascii=True)


def _numbers(rates: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    whole: list[int] = rates.round().astype(np.int64).tolist()
    return whole


def time_text(model: Model) -> str:
    """Return the moment that is shown."""
    moment = np.array([model.feed.now_ns()], np.uint64)
    return time_texts(moment, model.feed.clock_offset_ns)[0]
