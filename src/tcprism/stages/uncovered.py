"""TLS of processes whose plaintext is not read: it is counted, and they are named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag
from tcprism.events.escape import escape
from tcprism.events.ledger import Account
from tcprism.events.names import process
from tcprism.stages import StatefulStage

PROCESSES_MAX = 65_536
_NAMED = 5

# RFC 8446: a record's type handshake and version 3.x, a message's type client_hello or server_hello
_HANDSHAKE, _VERSION, _HELLOS = 22, 3, (1, 2)
_HELLO = 6  # bytes up to there


class Uncovered(StatefulStage):
    """A stage that passes all events, and counts hellos sent by processes that are not covered.

    `covers` tells whether the plaintext of a process is read; it is asked once for each. A hello
    is seen if its payload is captured.
    """

    def __init__(self, covers: Callable[[int], bool]) -> None:
        self._covers = covers
        self._covered: dict[int, bool] = {}
        self._named: dict[str, None] = {}
        self._count = 0

    def __call__(self, batch: Batch) -> Batch:
        """Look for hellos."""
        for part in batch.parts:
            if part.family == "message" and part.payload is not None:
                self._look(part, part.payload)
        return batch

    def _look(self, part: Part, payload: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> None:
        if payload.shape[1] < _HELLO:
            return
        outside = (part.rows["flags"] & MessageFlag.ENCRYPTED) == 0
        hellos = (payload[:, 0] == _HANDSHAKE) & (payload[:, 1] == _VERSION) & outside
        hellos &= (part.rows["kind"] == EventKind.SEND) & (part.payload_lengths() >= _HELLO)
        hellos &= np.isin(payload[:, _HELLO - 1], _HELLOS)
        for row in part.rows[hellos]:
            self._take(int(row["pid"]), escape(row["comm"]))

    def _take(self, pid: int, comm: str) -> None:
        if pid not in self._covered:
            if len(self._covered) >= PROCESSES_MAX:
                self._covered.clear()
            self._covered[pid] = self._covers(pid)
        if self._covered[pid]:
            return
        self._count += 1
        if len(self._named) < _NAMED:
            self._named[process(comm, pid)] = None

    def account(self) -> Account:
        """Return how many there were, and of whom."""
        if not self._count:
            return Account(counts={"tls_uncovered": 0})
        names = ", ".join(self._named)
        return Account(
            counts={"tls_uncovered": self._count},
            remarks=(
                f"{self._count:,} TLS handshakes were of processes whose plaintext is not read:"
                f" {names} (`tcprism doctor --tls PID` says why)",
            ),
        )
