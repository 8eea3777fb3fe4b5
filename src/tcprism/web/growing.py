"""Growing: NumPy columns that rows are appended to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LEAST = 1024  # rows


class Growing:
    """Columns of equal length; `columns` gives each its type, with the shape of a row if any.

    `table["name"]` is a view of the rows so far: it is written to in place.
    """

    def __init__(self, columns: Mapping[str, DTypeLike]) -> None:
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros(_LEAST, dtype) for name, dtype in columns.items()
        }
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name][: self._length]

    def grow(self, count: int) -> slice:
        """Add rows of zeros; return where they are."""
        before, self._length = self._length, self._length + count
        for name, column in self._columns.items():
            if self._length > len(column):
                larger = np.zeros(
                    (max(self._length, 2 * len(column)), *column.shape[1:]), column.dtype
                )
                larger[:before] = column[:before]
                self._columns[name] = larger
        return slice(before, self._length)

    def append(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Add rows; columns that are not named are zero in them."""
        where = self.grow(len(next(iter(values.values()))))
        for name, column in values.items():
            self._columns[name][where] = column

    def keep(self, places: NDArray[np.intp]) -> None:
        """Take all rows away but those at some places, which rise."""
        for column in self._columns.values():
            column[: len(places)] = column[places]
            column[len(places) : self._length] = 0
        self._length = len(places)
