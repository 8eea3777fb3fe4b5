"""Choose segments by their packets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part

FAMILIES = ("segment", "loss")


class Captured:
    """A stage that lets through the segments which `matching` chooses, and no other event.

    `matching` takes a part of one of FAMILIES and tells which of its events match.
    """

    def __init__(self, matching: Callable[[Part], NDArray[np.bool_]]) -> None:
        self._matching = matching

    def __call__(self, batch: Batch) -> Batch:
        """Return those that match."""
        parts = (part for part in batch.parts if part.family in FAMILIES)
        return Batch([part.take(self._matching(part)) for part in parts], batch.clock_offset_ns)
