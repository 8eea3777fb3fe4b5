"""TLS of processes whose plaintext is not read: it is counted, and they are named with the reason.

What shows it is a hello that no call into a known library has sent, and whose connection has given
neither plaintext nor a call into such a library by its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag, SocketSource
from tcprism.events.connection import connection_keys
from tcprism.events.escape import escape
from tcprism.events.ledger import Account
from tcprism.events.names import process
from tcprism.events.part import Rows
from tcprism.events.units import counted
from tcprism.stages import StatefulStage

PATIENCE_NS = 10_000_000_000  # in which a connection that goes on has moved something
REMEMBERED_MAX = 65_536  # processes, hellos
_NAMED = 5

# RFC 8446: a record's type handshake and version 3.x, a message's type client_hello or server_hello
_HANDSHAKE, _VERSION, _HELLOS = 22, 3, (1, 2)
_HELLO = 6  # bytes up to there
_RANDOM = slice(11, 43)  # of either; no other hello has the same

_Key = tuple[int, int]  # process, connection
_Ports = tuple[int, int]  # local, remote


@dataclass(frozen=True, slots=True)
class _Hello:
    comm: str
    ts_ns: int
    why: str


class Uncovered(StatefulStage):
    """A stage that passes all events, and counts connections of processes that are not covered.

    `why` says why the plaintext of a process may not be read, None if it is; it is asked once for
    each. A hello is seen if its payload is captured. One that a process has received before is only
    passed on, as by a proxy.
    """

    def __init__(self, why: Callable[[int], str | None]) -> None:
        self._why = why
        self._reasons: dict[int, str | None] = {}
        self._received: dict[tuple[int, bytes], _Ports] = {}
        self._open: dict[_Key, _Hello] = {}
        self._named: dict[str, None] = {}
        self._count = 0

    def __call__(self, batch: Batch) -> Batch:
        """Look for hellos, and for what came of them."""
        messages = [part for part in batch.parts if part.family == "message"]
        for part in messages:
            self._note_received(part)
        for part in messages:
            self._note_sent(part)
        if self._open:
            for part in batch.parts:
                self._note_covered(part)
            for part in batch.parts:
                self._note_ended(part)
        return batch

    def tick(self, now_ns: int) -> Batch:
        """Wait no longer for connections that have not moved anything."""
        late = [key for key, one in self._open.items() if now_ns - one.ts_ns > PATIENCE_NS]
        for key in late:
            self._settle(key)
        return Batch(())

    def close(self) -> Batch:
        """Nothing more will come."""
        for key in [*self._open]:
            self._settle(key)
        return Batch(())

    def account(self) -> Account:
        """Return how many there were, and of whom."""
        counts = {"tls_uncovered": self._count}
        if not self._count:
            return Account(counts=counts)
        more = "; ..." if len(self._named) == _NAMED else ""
        of = "was of a process" if self._count == 1 else "were of processes"
        said = (
            f"{counted(self._count, 'TLS handshake')} {of} whose plaintext is not read:"
            f" {'; '.join(self._named)}{more} (`tcprism doctor --tls PID` says more)"
        )
        return Account(counts=counts, remarks=(said,))

    def _note_received(self, part: Part) -> None:
        for index in np.flatnonzero(_hellos(part, EventKind.RECV)):
            if len(self._received) >= REMEMBERED_MAX:
                del self._received[next(iter(self._received))]
            row = part.rows[index]
            self._received[int(row["pid"]), _random(part, index)] = _ports(row)

    def _note_sent(self, part: Part) -> None:
        found = np.flatnonzero(_hellos(part, EventKind.SEND))
        for index, key in zip(found, _keys(part.rows[found]), strict=True):
            row = part.rows[index]
            if self._is_passed_on(part, index) or (why := self._reason(key[0])) is None:
                continue
            if len(self._open) >= REMEMBERED_MAX:
                self._settle(next(iter(self._open)))
            self._open[key] = _Hello(escape(row["comm"]), int(row["ts_ns"]), why)

    def _is_passed_on(self, part: Part, index: np.intp) -> bool:
        """Tell whether the process has received the hello: not from itself, on this connection."""
        row = part.rows[index]
        came = self._received.get((int(row["pid"]), _random(part, index)))
        return came is not None and came != _ports(row)[::-1]

    def _reason(self, pid: int) -> str | None:
        if pid not in self._reasons:
            if len(self._reasons) >= REMEMBERED_MAX:
                self._reasons.clear()
            self._reasons[pid] = self._why(pid)
        return self._reasons[pid]

    def _note_covered(self, part: Part) -> None:
        """Forget hellos of connections that a known library has used."""
        rows = part.rows
        if part.family == "message":
            rows = rows[(rows["flags"] & MessageFlag.ENCRYPTED) != 0]
        elif part.family != "tls":
            return
        for key in {*_keys(rows)} & self._open.keys():
            del self._open[key]
        if part.family == "tls":  # it is read, though not known to be of the connection
            nowhere = {*rows["pid"][rows["socket_source"] == SocketSource.NONE].tolist()}
            for key in [key for key in self._open if key[0] in nowhere]:
                del self._open[key]

    def _note_ended(self, part: Part) -> None:
        if part.family == "connection":
            ended = {*connection_keys(part.rows[part.rows["kind"] == EventKind.CLOSE]).tolist()}
            for key in [key for key in self._open if key[1] in ended]:
                self._settle(key)

    def _settle(self, key: _Key) -> None:
        hello = self._open.pop(key)
        self._count += 1
        if len(self._named) < _NAMED:
            self._named[f"{process(hello.comm, key[0])}, {hello.why}"] = None


def _hellos(part: Part, kind: EventKind) -> NDArray[np.bool_]:
    """Tell which messages of a kind begin with a hello outside of a call into a known library."""
    payload, rows = part.payload, part.rows
    if payload is None or payload.shape[1] < _HELLO:
        return np.zeros(len(part), np.bool_)
    hellos: NDArray[np.bool_] = (payload[:, 0] == _HANDSHAKE) & (payload[:, 1] == _VERSION)
    hellos &= (rows["flags"] & (MessageFlag.ENCRYPTED | MessageFlag.PEEK)) == 0
    hellos &= (rows["kind"] == kind) & (part.payload_lengths() >= _HELLO)
    hellos &= np.isin(payload[:, _HELLO - 1], _HELLOS)
    return hellos


def _random(part: Part, index: np.intp) -> bytes:
    assert part.payload is not None
    return part.payload[index, : part.payload_lengths()[index]][_RANDOM].tobytes()


def _ports(row: np.void) -> _Ports:
    return int(row["local_port"]), int(row["remote_port"])


def _keys(rows: Rows) -> list[_Key]:
    return [*zip(rows["pid"].tolist(), connection_keys(rows).tolist(), strict=True)]
