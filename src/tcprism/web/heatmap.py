"""Heatmap: how many requests began when, and how long they took."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.web.requests import UNKNOWN, Requests

COLUMNS_MAX = 120
_STEPS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)  # of a decade, in tenths
_ROUND = (1, 2, 5)
_TOOK = np.array([0, *(step * 10**power for power in range(17) for step in _STEPS)], np.int64)
_TENTHS = 10  # of a nanosecond, so that the first decade has whole numbers
_LONGEST = int(_TOOK[-1]) // _TENTHS - 1


def heatmap(found: Requests, numbers: NDArray[np.intp], first_ns: int) -> dict[str, Any]:
    """Return how many of some requests are in each cell of time and duration.

    `began` are the beginnings of the columns, which are `width` wide, in nanoseconds since
    `first_ns`. `took` are the limits of the rows in nanoseconds, one more than rows. `cells` has
    (column, row, requests, failed ones) of each cell that is not empty. `unknown` counts requests
    whose time is not known.
    """
    table = found.table
    took = table["took"][numbers]
    known = took != UNKNOWN
    numbers, took = numbers[known], np.clip(took[known], 0, _LONGEST)
    answer = {"began": [], "width": 1, "took": [], "cells": [], "unknown": int((~known).sum())}
    if not len(numbers):
        return answer
    start = table["start"][numbers] - first_ns
    width = _width(int(start.min()), int(start.max()))
    left = int(start.min()) // width
    columns = start // width - left
    rows = np.searchsorted(_TOOK, took * _TENTHS, side="right") - 1
    lowest, highest = int(rows.min()), int(rows.max())
    shape = int(columns.max()) + 1, highest - lowest + 1
    cells = columns * shape[1] + rows - lowest
    counts = np.bincount(cells, minlength=shape[0] * shape[1])
    failed = np.bincount(cells[table["failed"][numbers] != 0], minlength=len(counts))
    filled = np.flatnonzero(counts)
    inside = np.stack([*np.divmod(filled, shape[1]), counts[filled], failed[filled]], axis=1)
    limits = -(-_TOOK[lowest : highest + 2] // _TENTHS)
    return answer | {
        "began": [(left + column) * width for column in range(shape[0])],
        "width": width,
        "took": limits.tolist(),
        "cells": inside.tolist(),
    }


def _width(first: int, last: int) -> int:
    """Return the least round width with which moments fill at most COLUMNS_MAX columns."""
    power = 1
    while True:
        for step in _ROUND:
            width = step * power
            if last // width - first // width < COLUMNS_MAX:
                return width
        power *= 10
