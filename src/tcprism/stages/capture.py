"""Choose segments by their packets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.kinds import NUMBERS, SEGMENT_KINDS
from tcprism.events.ledger import Account
from tcprism.stages import StatefulStage

Mask = NDArray[np.bool_]
FAMILIES = ("segment", "loss")
_SEGMENTS = [NUMBERS[kind] for kind in SEGMENT_KINDS]
_ABOUT_CONNECTIONS = "translation"


class Captured(StatefulStage):
    """A stage that lets through the segments which `matching` chooses, and no other packet.

    `matching` takes a part of one of FAMILIES and tells which of its events match, and which do not
    only because not all of them was recorded. What is told of connections, of which any
    segment may follow, passes.
    """

    def __init__(self, matching: Callable[[Part], tuple[Mask, Mask]]) -> None:
        self._matching = matching
        self._seen = self._matched = self._without_options = self._without_payload = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return those that match."""
        segments = (part for part in batch.parts if part.family in FAMILIES)
        parts = [self._chosen(part) for part in segments]
        parts += [part for part in batch.parts if part.family == _ABOUT_CONNECTIONS]
        return Batch(parts, batch.clock_offset_ns)

    def _chosen(self, part: Part) -> Part:
        matches, unknown = self._matching(part)
        self._seen += int(np.count_nonzero(np.isin(part.rows["kind"], _SEGMENTS)))
        self._matched += int(np.count_nonzero(matches))
        if "options" in part.derived:
            self._without_payload += int(np.count_nonzero(unknown))
        else:
            self._without_options += int(np.count_nonzero(unknown))
        return part.take(matches)

    def account(self) -> Account:
        """Say how many were chosen, and how many may have been left out wrongly."""
        remarks = [f"--capture-filter chose {self._matched:,} of {self._seen:,} segments"]
        if self._without_options:
            remarks.append(
                f"--capture-filter left out {self._without_options:,} segments, for without the"
                " options of their TCP headers their lengths are not known; --options records them"
            )
        if self._without_payload:
            remarks.append(
                f"--capture-filter left out {self._without_payload:,} segments for payload that was"
                " not recorded; --payload records it, but of none that is sent again"
            )
        unknown = self._without_options + self._without_payload
        return Account(counts={"segments_not_judged": unknown}, remarks=tuple(remarks))
