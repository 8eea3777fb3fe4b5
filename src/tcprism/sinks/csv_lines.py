"""CSV (RFC 4180 with newlines as Unix has them): one line per event, all columns, null empty.

A text that a spreadsheet would take for a formula has ' before it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any, BinaryIO

from tcprism.events import COLUMNS, Part
from tcprism.events.batch import time_texts
from tcprism.events.column import Column
from tcprism.events.part import HOST
from tcprism.sinks.base64_payload import base64_payloads
from tcprism.sinks.lines import LineSink

# A cell that begins so is a formula to a spreadsheet; what follows a ' is a text to it.
_FORMULA = tuple("=+-@\t\r")

_BOOLEANS = {True: "true", False: "false", None: None}


def harmless(text: str) -> str:
    """Return the text of a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


class Csv(LineSink):
    """Writes a header and then each event as a line to a binary file; `payload` is base64.

    With `hosts`, the last column says which host saw it.
    """

    def __init__(self, file: BinaryIO, *, hosts: bool = False) -> None:
        super().__init__(file)
        self._hosts = hosts
        names = [*(column.name for column in COLUMNS), *([HOST] if hosts else ())]
        self.header = _lines([tuple(names)])[0]

    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events."""
        times = time_texts(part.rows["ts_ns"], clock_offset_ns)
        cells = [_cells(column, part) for column in COLUMNS[1:]]
        if self._hosts:
            cells.append(list(map(harmless, part.derived[HOST].tolist())))
        return _lines(zip(times, *cells, strict=True))


def _cells(column: Column, part: Part) -> list[Any]:
    if column.name == "payload":
        return base64_payloads(part)
    values = column.to_list(part)
    if column.json_type == "string":
        return [value and harmless(value) for value in values]
    return values if column.json_type != "boolean" else list(map(_BOOLEANS.__getitem__, values))


class _Collector(list[str]):
    """What csv writes its lines to."""

    def write(self, line: str) -> None:
        self.append(line)


def _lines(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    lines = _Collector()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines
