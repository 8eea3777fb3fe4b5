"""Choose segments by their packets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part

FAMILIES = ("segment", "loss")
_ABOUT_CONNECTIONS = "translation"


class Captured:
    """A stage that lets through the segments which `matching` chooses, and no other packet.

    `matching` takes a part of one of FAMILIES and tells which of its events match. What is told of
    connections, of which any segment may follow, passes.
    """

    def __init__(self, matching: Callable[[Part], NDArray[np.bool_]]) -> None:
        self._matching = matching

    def __call__(self, batch: Batch) -> Batch:
        """Return those that match."""
        segments = (part for part in batch.parts if part.family in FAMILIES)
        parts = [part.take(self._matching(part)) for part in segments]
        parts += [part for part in batch.parts if part.family == _ABOUT_CONNECTIONS]
        return Batch(parts, batch.clock_offset_ns)
