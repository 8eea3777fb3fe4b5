"""All hosts of a fleet as a feed for the screens."""

from __future__ import annotations

import time

import numpy as np

from tcprism.diagnosis.delta import Rows
from tcprism.diagnosis.table import Table, advance, empty
from tcprism.events import Batch, Part
from tcprism.events.kinds import RECORDS
from tcprism.events.ledger import Ledger
from tcprism.features import Choice
from tcprism.filters import Criteria
from tcprism.fleet.server import Server
from tcprism.fleet.tail import Requests, Snapshots
from tcprism.recording.selection import Selection


class Fleet:
    """What hosts insert: their snapshots, every ten seconds, and requests. Raises ServerError."""

    has_requests = True

    def __init__(self, server: Server, chosen: Criteria) -> None:
        self.filters = chosen
        self.choices: list[Choice] = []
        self.clock_offset_ns = 0  # its events have CLOCK_REALTIME already
        self._selection = Selection(chosen)
        self._requests = Requests(server)
        self._snapshots = Snapshots(server)
        self._server = server

    def table(self, previous: Table | None) -> Table:
        """Return the connections as the latest snapshots have them."""
        if previous is not None and not self._snapshots.due():
            return previous
        parts = self._selection(self._snapshots.take()).parts
        part = parts[0] if parts else Part(np.zeros(0, RECORDS["snapshot"]))
        return advance(previous, part) if len(part) else previous or empty()

    def want(self, kinds: tuple[str, ...], chosen: Criteria, payload: int) -> None:
        """Nothing: hosts insert what they were told to."""

    def events(self) -> Batch:
        """Return the requests that have come."""
        return self._selection(self._requests.read())

    def now_ns(self) -> int:
        """Return CLOCK_REALTIME."""
        return time.time_ns()

    def go_on(self) -> bool:
        """Time goes on by itself."""
        return True

    def ledger(self) -> Ledger | None:
        """Nothing: each host's account is in the table ledger."""
        return None

    def past(self, inode: int) -> list[Rows]:
        """Nothing: what was is in the tables."""
        return []

    def close(self) -> None:
        """Close the connection."""
        self._server.close()
