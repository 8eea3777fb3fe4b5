"""Batch: the unit that travels from the rings to the sinks."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tcprism.events.part import Part


class Batch:
    """Events of all families, kept as they came and read in time order.

    `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """

    def __init__(self, parts: Sequence[Part], clock_offset_ns: int = 0) -> None:
        self.parts = tuple(parts)
        self.clock_offset_ns = clock_offset_ns

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} events in {len(self.parts)} parts>"

    @cached_property
    def permutation(self) -> NDArray[np.intp]:
        """The time order as positions in the parts laid end to end. Equal times keep their order."""
        times = [part.rows["ts_ns"] for part in self.parts]
        return np.argsort(np.concatenate(times or [np.empty(0, np.uint64)]), kind="stable")

    def order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the time order as an array of part indices and one of row indices."""
        starts = np.cumsum([0, *map(len, self.parts)])
        parts = np.searchsorted(starts, self.permutation, side="right") - 1
        return parts, self.permutation - starts[parts]
