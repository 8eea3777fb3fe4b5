"""Expressions: which requests an SQL expression holds for, worked out once for each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.recording.where import Where

_LONGEST = 10.0  # seconds that an expression may take for some rows
WHERE = "where "  # begins a filter that is an expression
_KEPT = 4  # expressions
_ROWS = 100_000  # at once

Mask = NDArray[np.bool_]


def expression_of(text: str) -> str | None:
    """Return the expression of a filter, None for one of words."""
    return text[len(WHERE) :].strip() if text.startswith(WHERE) else None


class Expressions:
    """Evaluates the expressions of filters over parts, whose results it keeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def mask(self, expression: str, parts: Sequence[Part], forgotten: int) -> Mask:
        """Return for which requests of some parts an expression holds.

        `forgotten` counts the parts that were before these. Raises UsageError for what is no
        expression, and ExtraMissing.
        """
        with self._lock:
            held = self._held.pop(expression, None) or _Held(expression)
            self._held[expression] = held  # the last that was asked for
            for old in list(self._held)[:-_KEPT]:
                del self._held[old]
        return held.mask(parts, forgotten)


class _Held:
    def __init__(self, expression: str) -> None:
        self._lock = threading.Lock()
        self._expression = expression
        self._where: Where | None = None
        self._forgotten = 0
        self._masks: list[Mask] = []

    def mask(self, parts: Sequence[Part], forgotten: int) -> Mask:
        with self._lock:
            self._where = self._where or Where(self._expression, "request", "where", _LONGEST)
            late = self._forgotten - forgotten  # another thread may have come later
            if late > 0:
                parts = parts[late:]
            else:
                del self._masks[:-late]
                self._forgotten = forgotten
            for some in _chunks(parts[len(self._masks) :]):
                self._masks += self._of(self._where, some)
            return np.concatenate([np.zeros(0, np.bool_), *self._masks[: len(parts)]])

    def _of(self, where: Where, parts: Sequence[Part]) -> Iterator[Mask]:
        batch = Batch(parts)
        found = np.empty(len(batch), np.bool_)
        found[batch.permutation] = where(batch)  # which answers in time order
        ends = np.cumsum([len(part) for part in parts])
        yield from np.split(found, ends[:-1])


def _chunks(parts: Sequence[Part]) -> Iterator[list[Part]]:
    rest = iter(parts)
    while some := list(islice(rest, 1)):
        size = len(some[0])
        while size < _ROWS and (more := next(rest, None)) is not None:
            some.append(more)
            size += len(more)
        yield some
