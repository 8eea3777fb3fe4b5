"""An SQL expression over columns, as a mask over a batch: DuckDB evaluates it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events.kinds import RECORDS
from tcprism.events.optional import need
from tcprism.recording.sql import LOCKED, NO_VARIABLES

_PLACE = "place_in_batch"
_NO_COLUMN = re.compile(r'Binder Error: Referenced column "(.{1,100}?)" not found')


class Where:
    """Tells which events of a batch an expression holds for.

    `family` is that of the events. The expression has no access to files and the network. Raises
    UsageError when it is none, and ExtraMissing.
    """

    def __init__(self, expression: str, family: str) -> None:
        self._duckdb = need("duckdb", "sql")
        need("pyarrow", "arrow")
        self._expression = expression
        self._connection = self._duckdb.connect()
        for setting in (NO_VARIABLES, *LOCKED):
            self._connection.execute(setting)
        self(Batch([Part(np.zeros(0, RECORDS[family]))]))

    def __call__(self, batch: Batch) -> NDArray[np.bool_]:
        """Return whether it holds for each event, in time order; null is no."""
        table = batch.to_arrow()
        places = self._places(table.append_column(_PLACE, [np.arange(len(batch))]))
        chosen = np.zeros(len(batch), np.bool_)
        chosen[places] = True
        return chosen

    def _places(self, table: Any) -> list[int]:
        try:
            found = self._connection.from_arrow(table).filter(self._expression).project(_PLACE)
            return [place for (place,) in found.fetchall()]
        except self._duckdb.Error as error:
            raise UsageError(
                f"--where: {_said(str(error))}; write for example --where \"method = 'GET'\""
            ) from error


def _said(text: str) -> str:
    """Return what DuckDB says as a sentence's part."""
    first = text.strip().splitlines()[0].rstrip(".!")
    if column := _NO_COLUMN.match(first):
        return (
            f"there is no column {column[1]} (docs/events.md lists them; text needs single quotes,"
            " and the shell double ones around all)"
        )
    kind, _, rest = first.partition(": ")
    return rest[:1].lower() + rest[1:] if kind.endswith("Error") else first
