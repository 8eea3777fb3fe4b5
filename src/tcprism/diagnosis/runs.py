"""Runs: waits, and highest numbers so far, in rows that are sorted by group and time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

_STEP = 1 << 34  # between two groups: more than the numbers of one differ
_LOW = -(1 << 33)
_UNKNOWN = -(1 << 32)


def waits(groups: Places, starts: Flags, ends: Flags) -> tuple[Places, Places, Places]:
    """Return the rows that end a wait, those that began it, and those that began one that goes on.

    A wait begins with the first start after an end. `groups` counts from 0 without gaps.
    """
    chosen = np.flatnonzero(starts | ends)
    if not len(chosen):
        return chosen, chosen, chosen
    group, is_end, places = groups[chosen], ends[chosen], np.arange(len(chosen))
    last_end = np.maximum.accumulate(np.where(is_end, places, -1))
    first = np.searchsorted(group, group)  # of its group
    begin = np.maximum(np.r_[-1, last_end[:-1]] + 1, first)
    over = is_end & (begin < places)
    last = np.r_[np.flatnonzero(np.diff(group)), len(group) - 1]
    open_ = last[~is_end[last]]
    return chosen[over], chosen[begin[over]], chosen[begin[open_]]


def during(groups: Places, starts: Flags, ends: Flags) -> Flags:
    """Tell which rows come after a start and before the next end."""
    places = np.arange(len(groups))
    start = np.maximum.accumulate(np.where(starts, places, -1))
    end = np.maximum.accumulate(np.where(ends, places, -1))
    inside: Flags = start > np.maximum(end, np.searchsorted(groups, groups) - 1)
    return inside


def highest_before(
    groups: Places, numbers: NDArray[np.uint32], counts: Flags
) -> tuple[NDArray[np.int64], Flags]:
    """Return how far each row's number is above the highest that counts before it in its group.

    The second result tells where there is one. Sequence numbers and time stamps wrap, and are
    compared modulo 2 ** 32 (RFC 9293, section 3.4; RFC 7323, section 5.2).
    """
    relative = _relative(groups, numbers, counts)
    highest = np.maximum.accumulate(np.where(counts, relative, _LOW) + groups * _STEP)
    before = np.r_[_LOW - _STEP, highest[:-1]] - groups * _STEP
    known = before > _UNKNOWN
    return np.where(known, relative - before, 0), known


def last_highest(groups: Places, numbers: NDArray[np.uint32], counts: Flags) -> Places:
    """Return the row with the highest number that counts of each group that has one."""
    chosen = np.flatnonzero(counts)
    relative = _relative(groups, numbers, counts)[chosen]
    order = np.lexsort((relative, groups[chosen]))
    chosen = chosen[order]
    last = np.r_[np.diff(groups[chosen]) != 0, np.ones(min(1, len(chosen)), np.bool_)]
    return chosen[last]


def _relative(groups: Places, numbers: NDArray[np.uint32], counts: Flags) -> NDArray[np.int64]:
    """Return numbers as distances from the first of their group that counts."""
    chosen = np.flatnonzero(counts)
    base = np.zeros(int(groups[-1]) + 1 if len(groups) else 0, np.uint32)
    base[groups[chosen[::-1]]] = numbers[chosen[::-1]]
    return (numbers - base[groups]).view(np.int32).astype(np.int64)
