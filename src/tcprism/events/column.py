"""Column: how one public column is read from a part, and the ways of reading.

A column's values are NumPy values where JSON has a number, and objects where it has a string.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import _wire
from tcprism.events.kinds import RECORDS, REGISTERED
from tcprism.events.part import Part

Values = NDArray[Any]
Mask = NDArray[np.bool_]
Reader = Callable[[Part], Values]
Missing = Callable[[Part], Mask]


# What the values of derived columns are, by the column's type in JSON.
DERIVED_TYPES: dict[str, Any] = {"integer": np.int64, "boolean": np.bool_, "string": object}


@dataclass(frozen=True, eq=False)
class Column:
    """One public column.

    `families` have it, `field` is its wire field (None: computed), `values` reads it from a part,
    and `missing` returns the rows in which it is null (None: never). `derived` columns are
    added by stages. `key` is its name in JSON, if that differs.
    """

    name: str
    families: Collection[str]
    json_type: str
    doc: str
    field: str | None
    values: Reader
    missing: Missing | None = None
    derived: bool = False
    key: str = ""

    @property
    def everywhere(self) -> bool:
        """Whether all families have the column."""
        return len(self.families) == len(RECORDS)

    @property
    def nullable(self) -> bool:
        """Whether the column can be null in an event of a family that has it."""
        return self.missing is not None

    def mask(self, part: Part) -> Mask:
        """Return the rows of a part in which the column is null: all if the family lacks it."""
        if part.family not in self.families:
            return np.ones(len(part), np.bool_)
        return np.zeros(len(part), np.bool_) if self.missing is None else self.missing(part)

    def to_list(self, part: Part) -> list[Any]:
        """Return the column as Python values, None where it is null."""
        mask = self.mask(part)
        if mask.all():
            return [None] * len(part)
        values: list[Any] = self.values(part).tolist()
        for index in np.flatnonzero(mask).tolist():
            values[index] = None
        return values


def number(field: str) -> Reader:
    """Read a field as it is."""
    return lambda part: part.rows[field]


def equal(field: str, *sentinels: int) -> Missing:
    """Tell where a field has a value that stands for null."""

    def missing(part: Part) -> Mask:
        values = part.rows[field]
        masks: list[Mask] = [np.equal(values, sentinel) for sentinel in sentinels]
        return masks[0] if len(masks) == 1 else np.logical_or.reduce(masks)

    return missing


def other_kind(*kinds: int) -> Missing:
    """Tell which records are not of the kinds that have the column."""
    return lambda part: ~np.isin(part.rows["kind"], kinds)


def texts(values: list[Any]) -> Values:
    """Return texts, or whatever NumPy should keep as it is, as an array."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def named(field: str, name: Callable[[int], Any]) -> Reader:
    """Read a field as names; each distinct number is looked up once."""
    return looked_up(field, lambda _part: name)


def looked_up(field: str, table: Callable[[Part], Callable[[int], Any]]) -> Reader:
    """Read a field as names that the part's own table gives."""

    def read(part: Part) -> Values:
        # Contiguous, because NumPy sorts a field inside a record slowly.
        field_values = np.ascontiguousarray(part.rows[field])
        numbers, places = np.unique(field_values, return_inverse=True)
        return texts(list(map(table(part), numbers.tolist())))[places]

    return read


def field_column(
    name: str,
    families: Collection[str],
    json_type: str,
    doc: str,
    values: Reader | None = None,
    missing: Missing | None = None,
) -> Column:
    """Return a column that shows the field of the same name."""
    return Column(name, families, json_type, doc, name, values or number(name), missing)


def wire_column(
    name: str,
    families: Collection[str],
    json_type: str,
    values: Reader | None = None,
    missing: Missing | None = None,
) -> Column:
    """Return a column that shows the wire field of the same name, with that field's text."""
    return field_column(name, families, json_type, _doc(name, families), values, missing)


def derived_column(name: str, families: Collection[str], json_type: str, doc: str) -> Column:
    """Return a column that a stage adds; null where none did.

    Texts are printable ASCII, as `escape` in tcprism.events.escape makes them.
    """
    empty = np.zeros(0, DERIVED_TYPES[json_type])

    def values(part: Part) -> Values:
        column = part.derived.get(name)
        return np.resize(empty, len(part)) if column is None else np.ma.getdata(column)

    def missing(part: Part) -> Mask:
        column = part.derived.get(name)
        return np.ones(len(part), np.bool_) if column is None else np.ma.getmaskarray(column)

    return Column(name, families, json_type, doc, None, values, missing, derived=True)


def _doc(name: str, families: Collection[str]) -> str:
    """Return the text of a wire field, from the first struct that has it."""
    structs = ("event", *(REGISTERED[each].struct or each for each in families), "totals")
    return next(_wire.DOCS[key] for struct in structs if (key := f"{struct}.{name}") in _wire.DOCS)
