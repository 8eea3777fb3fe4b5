"""Which requests to show: by how long they took, by status, by an expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.ledger import Account
from tcprism.events.requests import UNKNOWN_NS
from tcprism.stages import StatefulStage

Mask = NDArray[np.bool_]
ERROR = "error"

# Takes a batch of requests, tells which are chosen, in their order.
Where = Callable[[Batch], Mask]


@dataclass(slots=True)
class RequestFilter(StatefulStage):
    """A stage that lets requests through that match all of what is given.

    `slower_ns`: took at least so long. `statuses`: one of these, where "error" stands for whatever
    failed and an x for any digit. `where` chooses by anything else. With `pending`, requests that
    wait for a response pass as well.
    """

    slower_ns: int = 0
    statuses: Sequence[str] = ()
    where: Where | None = None
    pending: bool = False
    _passed: int = field(default=0, init=False)
    _turned_away: int = field(default=0, init=False)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without the requests that do not match."""
        parts = [self._counted(part, batch) for part in batch.parts]
        return Batch([part for part in parts if len(part)], batch.clock_offset_ns)

    def _counted(self, part: Part, batch: Batch) -> Part:
        chosen = self._chosen(part, batch)
        if part.family == "request":
            answered = int((BY_NAME["request_state"].values(part) != "pending").sum())
            self._passed += len(chosen)
            self._turned_away += max(0, answered - len(chosen))
        return chosen

    def _chosen(self, part: Part, batch: Batch) -> Part:
        if part.family != "request":
            return part
        waits = BY_NAME["request_state"].values(part) == "pending"
        chosen = ~waits if not self.pending else np.ones(len(part), np.bool_)
        if self.slower_ns:
            took = part.rows["request_ns"]
            chosen &= waits | ((took >= self.slower_ns) & (took != UNKNOWN_NS))
        if self.statuses:
            chosen &= _has_status(part, self.statuses)
        if self.where:
            part, chosen = part.take(chosen), np.ones(int(chosen.sum()), np.bool_)
            if len(part):
                alone = Batch([part], batch.clock_offset_ns)
                chosen[alone.permutation] = self.where(alone)
        return part.take(chosen)

    def account(self) -> Account:
        """Say that there were requests where all were turned away."""
        if self._passed or not self._turned_away:
            return Account()
        were = "a request was" if self._turned_away == 1 else f"{self._turned_away:,} requests were"
        options = "--slower, --status or --where"
        return Account(remarks=(f"{were} read, and none matches {options}",))


def _has_status(part: Part, statuses: Sequence[str]) -> Mask:
    chosen = np.zeros(len(part), np.bool_)
    if ERROR in statuses:
        chosen |= part.rows["failed"] != 0
    texts = [re.escape(text.lower()).replace("x", "[0-9]") for text in statuses if text != ERROR]
    if texts:
        known = re.compile("|".join(texts), re.IGNORECASE)
        for index, status in enumerate(BY_NAME["status"].to_list(part)):
            chosen[index] |= bool(status and known.fullmatch(status))
    return chosen
