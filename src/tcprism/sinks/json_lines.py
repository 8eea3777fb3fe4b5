"""JSON lines: one object per line, keys as in docs/events.md and always in that order."""

import json
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from tcprism.events import COLUMNS, Part
from tcprism.events.column import Column
from tcprism.events.columns import BY_NAME, columns_of
from tcprism.events.escape import escape_payloads_for_json
from tcprism.events.kinds import remembered
from tcprism.events.part import HOST
from tcprism.sinks.base64_payload import base64_payloads
from tcprism.sinks.lines import (
    NANOSECONDS,
    IdentityCache,
    LineBuilder,
    LineSink,
    Memo,
    SecondTexts,
    digits,
)

# These columns depend on nothing but the identity of a record. They are neighbours.
IDENTITY_COLUMNS = COLUMNS[COLUMNS.index(BY_NAME["kind"]) : COLUMNS.index(BY_NAME["bytes"])]

# Looking a number's text up pays only where numbers come back, and takes memory.
OFTEN_REPEATED = {"bytes", "requested", "window", "segs", "packets_out", "cwnd", "srtt_us"}

Encode = Callable[[Part], list[str]]


class JsonLines(LineSink):
    """Writes each event as a JSON object on a line of its own to a binary file.

    With `hosts`, each says last which host saw it.
    """

    def __init__(self, file: BinaryIO, *, hosts: bool = False) -> None:
        super().__init__(file)
        self._hosts = hosts
        self._identities = IdentityCache(self._identity_texts)
        self._seconds = SecondTexts("%Y-%m-%dT%H:%M:%S", local=False)
        self._encoders = {column.name: _encoder(column) for column in COLUMNS}

    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events."""
        line = LineBuilder()
        moments = part.rows["ts_ns"].astype(np.int64) + clock_offset_ns
        line.text('{"time":"')
        line.texts(self._seconds.texts((moments // NANOSECONDS).tolist()))
        line.text(".")
        line.texts(digits(moments % NANOSECONDS, 9))
        line.text('Z"')
        self._add_column(line, BY_NAME["ts_ns"], part)
        line.texts(self._identities.texts(part))
        for column in _columns_behind(part.family):
            self._add_column(line, column, part)
        if self._hosts:
            line.texts(f',"{HOST}":{json.dumps(host)}' for host in part.derived[HOST].tolist())
        line.text("}\n")
        return line.lines()

    def _identity_texts(self, part: Part) -> list[str]:
        line = LineBuilder()
        for column in IDENTITY_COLUMNS:
            self._add_column(line, column, part)
        return line.lines()

    def _add_column(self, line: LineBuilder, column: Column, part: Part) -> None:
        null = column.mask(part)
        if null.all():
            line.text(f"{_key(column)}null")
            return
        texts = self._encoders[column.name](part)
        for index in np.flatnonzero(null).tolist():
            texts[index] = f"{_key(column)}null"
        line.texts(texts)


@remembered
def _columns_behind(family: str) -> tuple[Column, ...]:
    """Return the columns from `bytes` on."""
    columns = columns_of(family)
    return columns[columns.index(BY_NAME["bytes"]) :]


def _key(column: Column) -> str:
    return f',"{column.key or column.name}":'


def _encoder(column: Column) -> Encode:
    """Return what writes a column's key and values, whatever where it is null."""
    key = _key(column)
    if column.name == "payload":
        return lambda part: base64_payloads(part, f'{key}"', '"')
    if column.name == "payload_text":
        return lambda part: [f'{key}"{text}"' for text in escape_payloads_for_json(part)]
    if column.json_type == "integer" and column.name not in OFTEN_REPEATED:
        return lambda part: [f"{key}{value}" for value in column.values(part).tolist()]
    known: Memo[Any] = Memo(lambda value: key + json.dumps(value))
    return lambda part: known.texts(column.values(part).tolist())
