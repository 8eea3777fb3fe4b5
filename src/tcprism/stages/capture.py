"""Choose segments by their packets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.ledger import Account
from tcprism.stages import StatefulStage

Mask = NDArray[np.bool_]
FAMILIES = ("segment", "loss")
_ABOUT_CONNECTIONS = "translation"


class Captured(StatefulStage):
    """A stage that lets through the segments which `matching` chooses, and no other packet.

    `matching` takes a part of one of FAMILIES and tells which of its events match, and which do not
    only because not all of their payload was recorded. What is told of connections, of which any
    segment may follow, passes.
    """

    def __init__(self, matching: Callable[[Part], tuple[Mask, Mask]]) -> None:
        self._matching = matching
        self._unknown = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return those that match."""
        segments = (part for part in batch.parts if part.family in FAMILIES)
        parts = [self._chosen(part) for part in segments]
        parts += [part for part in batch.parts if part.family == _ABOUT_CONNECTIONS]
        return Batch(parts, batch.clock_offset_ns)

    def _chosen(self, part: Part) -> Part:
        matches, unknown = self._matching(part)
        self._unknown += int(np.count_nonzero(unknown))
        return part.take(matches)

    def account(self) -> Account:
        """Say how many may have been left out wrongly."""
        if not self._unknown:
            return Account()
        remark = (
            f"--capture-filter left out {self._unknown:,} segments for payload that was not"
            " recorded; --payload records it, but of none that is sent again"
        )
        return Account(counts={"segments_not_judged": self._unknown}, remarks=(remark,))
