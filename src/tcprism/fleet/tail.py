"""The latest rows of a fleet's tables, as they come."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.fleet.records import batch_of
from tcprism.fleet.server import Server
from tcprism.stages import Stage

BEHIND = 10.0  # seconds: hosts insert every five; what comes later than this is not shown
EVERY = 2.0  # seconds between two looks
_AT_ONCE = 100_000  # rows
_SNAPSHOTS = 10.0  # seconds between two of a host


class Requests:
    """A source: the requests of all hosts from `since` seconds ago on. Raises ServerError."""

    stages: Sequence[Stage] = ()  # hosts have done all that

    def __init__(self, server: Server, since: float = 60.0) -> None:
        self.facts = Facts(kinds=("request",))
        self.ended = False
        self._server = server
        self._read_to = time.time_ns() - int((since + BEHIND) * 1e9)

    def now_ns(self) -> int:
        """Return how far it has come."""
        return self._read_to

    def read(self) -> Batch:
        """Return the rows that have come since."""
        until = time.time_ns() - int(BEHIND * 1e9)
        if until - self._read_to < EVERY * 1e9:
            return Batch([])
        found = self._server.arrow(
            "SELECT * FROM requests WHERE time > fromUnixTimestamp64Nano({since:Int64})"
            " AND time <= fromUnixTimestamp64Nano({until:Int64}) ORDER BY time"
            f" LIMIT {_AT_ONCE} WITH TIES",
            {"since": self._read_to, "until": until},
        )
        batch = batch_of(found, "request")
        self._read_to = until if found.num_rows < _AT_ONCE else int(batch["ts_ns"].max())
        return batch

    def pause(self) -> float:
        """Return the seconds until there may be more."""
        return EVERY

    def stop(self) -> None:
        """Read no more."""
        self._server.close()

    def drain(self) -> Batch:
        """Return nothing: it is all there tomorrow, too."""
        return Batch([])

    def ledger(self) -> Ledger:
        """Return an empty account: each host's is in the table ledger."""
        return Ledger(())


class Snapshots:
    """The latest snapshot of each host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._taken = 0.0

    def due(self) -> bool:
        """Tell whether each host has a later one than at the last look."""
        return time.monotonic() - self._taken > _SNAPSHOTS

    def take(self) -> Batch:
        """Return the latest snapshots. Raises ServerError."""
        self._taken = time.monotonic()
        found = self._server.arrow(
            "SELECT s.* FROM snapshots AS s INNER JOIN ("
            " SELECT host, max(time) AS latest FROM snapshots"
            " WHERE time > now() - INTERVAL 40 SECOND GROUP BY host) AS l ON l.host = s.host"
            " WHERE s.time > now() - INTERVAL 45 SECOND"
            " AND s.time > l.latest - INTERVAL 3 SECOND"
        )
        return batch_of(found, "snapshot")
