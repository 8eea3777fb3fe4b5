"""Families of records made in user space: registered once, known everywhere.

What is registered has its place in every format, in recordings and in SQL, as what hooks make has.
A package makes its families known to the commands that read recordings by an entry point in the
group `tcprism.families`: it names the module that registers them, which is imported when a
recording has columns that are not known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcprism.events import kinds
from tcprism.events._wire import EVENT
from tcprism.events.column import DERIVED_TYPES, Column
from tcprism.events.columns import BY_NAME, COLUMNS
from tcprism.events.kinds import Family
from tcprism.events.part import Rows

GROUP = "tcprism.families"


def rows_from(heads: Rows, kind: str) -> Rows:
    """Return records of a kind with the struct event of other records; the rest is 0."""
    rows = np.zeros(len(heads), kinds.RECORDS[kinds.FAMILY_OF_KIND[kind]])
    for name in EVENT.names or ():
        rows[name] = heads[name]
    rows["kind"] = kinds.NUMBERS[kind]
    return rows


def register(family: Family, columns: Sequence[Column]) -> None:
    """Register a family and its columns, which come after all others.

    Call it before any sink or recording is created, for example when a module is imported. Raises
    ValueError if a name is taken, or if a column does not fit the record.
    """
    for column in columns:
        _check(family, column)
    kinds.add(family)
    COLUMNS.extend(columns)
    BY_NAME.update((column.name, column) for column in columns)
    kinds.forget()


def unregister(name: str) -> None:
    """Take a family and its columns away again, as tests do."""
    kinds.remove(name)
    for column in [column for column in COLUMNS if tuple(column.families) == (name,)]:
        COLUMNS.remove(column)
        del BY_NAME[column.name]
    kinds.forget()


def _check(family: Family, column: Column) -> None:
    if column.name in BY_NAME:
        raise ValueError(f"there is a column {column.name} already")
    if tuple(column.families) != (family.name,):
        raise ValueError(f"the column {column.name} is not one of {family.name} alone")
    if column.field is not None and column.field not in (family.record.names or ()):
        raise ValueError(f"the record of {family.name} has no field {column.field}")
    if column.json_type not in DERIVED_TYPES:
        raise ValueError(f"{column.name}: {column.json_type} is not {', '.join(DERIVED_TYPES)}")
