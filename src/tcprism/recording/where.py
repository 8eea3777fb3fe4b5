"""An SQL expression over columns, as a mask over a batch: DuckDB evaluates it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import MachineError, UsageError
from tcprism.events import Batch, Part
from tcprism.events.arrow import column_names, numbers
from tcprism.events.kinds import RECORDS
from tcprism.events.optional import need, pyarrow
from tcprism.recording.sql import LOCKED, NO_VARIABLES
from tcprism.recording.time_limit import time_limit

_PLACE = "place_in_batch"
_NAME = re.compile(r"\w+")
_ANY_COLUMNS = "columns"  # COLUMNS('.*_ns') names some by a pattern
_NO_COLUMN = re.compile(r'Binder Error: Referenced column "(.{1,100}?)" not found')


class Where:
    """Tells which events of a batch an expression holds for.

    `family` is that of the events. The expression has no access to files and the network. Raises
    UsageError, which begins with `option`, when it is none or takes longer than `seconds` for a
    batch (0: for ever), MachineError and ExtraMissing. Not for several threads at once.
    """

    def __init__(
        self, expression: str, family: str, option: str = "--where", seconds: float = 0
    ) -> None:
        self._duckdb = need("duckdb", "sql")
        need("pyarrow", "arrow")
        self._expression = expression
        self._option = option
        self._seconds = seconds
        named = set(_NAME.findall(expression.lower()))
        # What needs no column takes one, so that a table has rows.
        few = [name for name in column_names() if name in named] or ["kind"]
        self._columns = None if _ANY_COLUMNS in named else few
        try:
            self._connection = self._duckdb.connect()
        except self._duckdb.Error as error:
            raise MachineError(f"{option}: DuckDB does not start: {error}") from error
        for setting in (NO_VARIABLES, *LOCKED):
            self._connection.execute(setting)
        self(Batch([Part(np.zeros(0, RECORDS[family]))]))

    def __call__(self, batch: Batch) -> NDArray[np.bool_]:
        """Return whether it holds for each event, in time order; null is no."""
        table = batch.to_arrow(self._columns)
        places = numbers(np.arange(len(batch)), pyarrow().int64())
        chosen = np.zeros(len(batch), np.bool_)
        chosen[self._places(table.append_column(_PLACE, places))] = True
        return chosen

    def _places(self, table: Any) -> NDArray[np.int64]:
        try:
            with time_limit(self._connection, self._seconds):
                found = self._connection.from_arrow(table).filter(self._expression).project(_PLACE)
                return np.asarray(found.fetchnumpy()[_PLACE], np.int64)
        except self._duckdb.InterruptException as error:
            raise UsageError(f"{self._option}: takes longer than {self._seconds:g} s") from error
        except self._duckdb.Error as error:
            raise UsageError(
                f"{self._option}: {_said(str(error))};"
                f" write for example {self._option} \"method = 'GET'\""
            ) from error


def _said(text: str) -> str:
    """Return what DuckDB says as a sentence's part."""
    first = text.strip().splitlines()[0].rstrip(".!")
    if column := _NO_COLUMN.match(first):
        return (
            f"there is no column {column[1]} (docs/events.md lists them; text needs single quotes)"
        )
    kind, _, rest = first.partition(": ")
    return rest[:1].lower() + rest[1:] if kind.endswith("Error") else first
