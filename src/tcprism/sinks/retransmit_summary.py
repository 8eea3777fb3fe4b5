"""Retransmissions added up by cause, peer and owner, and this host's drops by reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind
from tcprism.events.names import OVERTAKEN, REPETITIONS, process
from tcprism.events.scopes import shown
from tcprism.sinks import Sink
from tcprism.sinks.text_details import each

TOP = 10
KEYS_MAX = 65_536  # a flood of peers must not fill the memory
OTHERS = "others"


class Sums:
    """Segments and bytes for each key; keys beyond KEYS_MAX are taken together."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._sums: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, keys: Iterable[str], part: Part) -> None:
        """Add events, a key each."""
        columns = (part.rows["segs"].tolist(), part.rows["bytes"].tolist())
        for key, segments, size in zip(keys, *columns, strict=True):
            place = key if key in self._sums or len(self._sums) < KEYS_MAX else OTHERS
            before = self._sums.get(place, (0, 0))
            self._sums[place] = (before[0] + segments, before[1] + size)

    def lines(self) -> Iterator[str]:
        """Yield a table of the largest."""
        largest = sorted(self._sums.items(), key=lambda item: item[1], reverse=True)
        yield f"{self._title:<40} {'segments':>10} {'bytes':>14}"
        for key, (segments, size) in largest[:TOP]:
            yield f"  {key:<38} {segments:>10} {size:>14}"
        if len(largest) > TOP:
            yield f"  ... and {len(largest) - TOP} more"


class RetransmitSummary(Sink):
    """Adds up what is sent again, and prints the sums when it is closed.

    Attempts that failed are left out, as in the kernel's own RetransSegs.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._causes = Sums("sent again, by cause")
        self._peers = Sums("sent again, by peer")
        self._owners = Sums("sent again, by owner")
        self._drops = Sums("dropped on this host, by reason")
        self._undone = 0
        self._repeated = 0
        self._repeated_bytes = 0

    def write(self, batch: Batch) -> None:
        """Add a batch to the sums."""
        for part in batch.parts:
            if part.family == "loss":
                self._add(part)

    def close(self) -> None:
        """Print the sums."""
        for line in self.lines():
            print(line, file=self._file)

    def lines(self) -> Iterator[str]:
        """Yield the tables."""
        yield from self._causes.lines() if self._causes else ["nothing was sent again"]
        if self._undone:
            yield f"  {'spurious (undone)':<38} {self._undone:>10}"
        if self._repeated:
            yield (
                f"  {'spurious (had already arrived)':<38} {self._repeated:>10}"
                f" {self._repeated_bytes:>14}"
            )
        for sums in filter(None, (self._peers, self._owners, self._drops)):
            yield from sums.lines()

    def _add(self, part: Part) -> None:
        kinds = part.rows["kind"]
        self._undone += int(part.rows["undone"][kinds == EventKind.UNDO].sum())
        again = part.take((kinds == EventKind.RETRANSMIT) & (part.rows["error"] == 0))
        self._causes.add(_names(again, "cause"), again)
        self._peers.add(_names(again, "remote_ip"), again)
        self._owners.add(each(process, again), again)
        drops = part.take(kinds == EventKind.DROP)
        reasons = np.array(_names(drops, "reason"), object)
        had = np.isin(reasons, REPETITIONS) & (drops.rows["bytes"] > 0)
        self._repeated += int(had.sum())
        self._repeated_bytes += int(drops.rows["bytes"][had].sum())
        lost = ~np.isin(reasons, (*REPETITIONS, *OVERTAKEN))
        self._drops.add(reasons[lost].tolist(), drops.take(lost))


def _names(part: Part, column: str) -> list[str]:
    return [name or "-" for name in shown(part, column)]
