"""Evidence: the events of all connections, reduced as they come to what verdicts need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.answers import last_word_us
from tcprism.diagnosis.delta import ESTABLISHED, Rows
from tcprism.diagnosis.ends import Numbers, ends_keys, own_keys, port_keys
from tcprism.diagnosis.request_evidence import RequestEvidence
from tcprism.diagnosis.segments import Segments
from tcprism.diagnosis.waits import Waits
from tcprism.events import Batch, Part
from tcprism.events._wire import ELAPSED_UNKNOWN, EventKind
from tcprism.events.columns import BY_NAME
from tcprism.events.kinds import RECORDS
from tcprism.events.names import TcpFlag

CONNECTIONS_MAX = 65_536
LOSSES_MAX = 200_000
REASONS_MAX = 1000  # the kernel has some hundred; a recording may claim any

CONNECTED, ACCEPTED = 1, 2  # how a connection came about
_OPENED = np.dtype([("how", np.uint8), ("elapsed_ns", np.uint64)])

# A loss in short: its connection, its ends, and what its verdict needs.
_COPIED = (
    "ts_ns",
    "kind",
    "cause",
    "icsk_retransmits",
    "rto_us",
    "srtt_us",
    "packets_out",
    "seq",
    "bytes",
    "segs",
    "undone",
)
LOSS = np.dtype(
    [
        ("own", np.uint64),
        ("ends", np.uint64),
        ("reason", np.uint16),  # a place in Evidence.reasons
        ("payload_or_syn", np.bool_),
        ("duplicate_acks", np.uint32),  # that caused it, 0: not known
        *((name, RECORDS["loss"][name]) for name in _COPIED),
    ]
)


class Evidence:
    """Takes events; holds CONNECTIONS_MAX connections and the latest LOSSES_MAX losses.

    `refused` counts the connections that there was no room for, `forgotten` the losses. `share` is
    how much of the time reading requests may take, 0 for all.
    """

    def __init__(self, share: float = 0.0) -> None:
        self.numbers = Numbers(CONNECTIONS_MAX)
        self.waits = Waits()
        self.requests = RequestEvidence(share)
        self.segments = Segments(self.numbers)
        self.accepts: Counter[int] = Counter()
        self.forgotten = 0
        self.first_ns = self.last_ns = 0
        self.reasons: list[str] = ["unknown"]
        self._losses: list[Rows] = []
        self._opened = np.zeros(0, _OPENED)

    @property
    def refused(self) -> int:
        """How many connections there was no room for."""
        return self.numbers.refused

    def add(self, batch: Batch) -> None:
        """Take the events of a batch."""
        segments = [part for part in batch.parts if part.family == "segment"]
        others = [part for part in batch.parts if part.family != "segment"]
        self.requests.add(Batch(others, batch.clock_offset_ns))
        self.segments.add(segments)
        for part in batch.parts:
            if len(part) and part.family in _TAKERS:
                moments = part.rows["ts_ns"]
                self.first_ns = min(self.first_ns or int(moments.min()), int(moments.min()))
                self.last_ns = max(self.last_ns, int(moments.max()))
                _TAKERS[part.family](self, part)

    def begin(self, snapshot: Part) -> None:
        """Take what sockets tell of the time before: who had the last word, and when."""
        rows = snapshot.rows
        rows = rows[(rows["state"] == ESTABLISHED) & (rows["unsent"] == 0) & (rows["unread"] == 0)]
        mine, theirs = last_word_us(rows)
        known = (mine > 0) | (theirs > 0)
        rows, ages, ours = rows[known], np.maximum(mine, theirs)[known], (mine > 0)[known]
        moments = rows["ts_ns"].astype(np.int64) - (ages * 1000).astype(np.int64)
        kinds = np.where(ours, EventKind.SEND, EventKind.RECV).astype(np.uint8)
        self.waits.begin(self.numbers.of(own_keys(rows)), kinds, moments)

    def _add_messages(self, part: Part) -> None:
        self.waits.add(self.numbers.of(own_keys(part.rows)), part.rows)

    def _add_losses(self, part: Part) -> None:
        failed = (part.rows["kind"] == EventKind.RETRANSMIT) & (part.rows["error"] != 0)
        part = part.take(~failed)
        rows = np.zeros(len(part), LOSS)
        rows["own"], rows["ends"] = own_keys(part.rows), ends_keys(part.rows)
        for name in _COPIED:
            rows[name] = part.rows[name]
        rows["payload_or_syn"] = (part.rows["bytes"] > 0) | (part.rows["flags"] & TcpFlag.SYN != 0)
        if (acks := part.derived.get("duplicate_acks")) is not None:
            rows["duplicate_acks"] = acks.filled(0)
        rows["reason"] = list(map(self._reason, BY_NAME["reason"].to_list(part)))
        self._losses.append(rows)
        if sum(map(len, self._losses)) > 2 * LOSSES_MAX:
            losses = self.losses()
            self.forgotten += len(losses) - LOSSES_MAX
            self._losses = [losses[-LOSSES_MAX:]]

    def _reason(self, name: str | None) -> int:
        text = name or "unknown"
        if text not in self.reasons:
            if len(self.reasons) >= REASONS_MAX:
                return 0
            self.reasons.append(text)
        return self.reasons.index(text)

    def _add_connections(self, part: Part) -> None:
        kinds = part.rows["kind"]
        accepted = part.rows[kinds == EventKind.ACCEPT]
        if len(self.accepts) < CONNECTIONS_MAX:
            self.accepts.update(port_keys(accepted).tolist())
        done = part.rows[np.isin(kinds, (EventKind.CONNECT, EventKind.ACCEPT))]
        numbers = self.numbers.of(own_keys(done))
        done, numbers = done[numbers >= 0], numbers[numbers >= 0]
        if len(self.numbers) > len(self._opened):
            more = np.zeros(2 * len(self.numbers) - len(self._opened), _OPENED)
            self._opened = np.concatenate([self._opened, more])
        connected = done["kind"] == EventKind.CONNECT
        self._opened["how"][numbers] = np.where(connected, CONNECTED, ACCEPTED)
        self._opened["elapsed_ns"][numbers] = np.where(connected, done["elapsed_ns"], 0)

    def opened(self, numbers: NDArray[np.intp]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return how connections came about and what connecting took (us), 0 where unknown."""
        found = np.zeros(len(numbers), _OPENED)
        known = (numbers >= 0) & (numbers < len(self._opened))
        found[known] = self._opened[numbers[known]]
        elapsed = found["elapsed_ns"].astype(np.float64) / 1000
        return found["how"], np.where(found["elapsed_ns"] == ELAPSED_UNKNOWN, 0, elapsed)

    def losses(self) -> Rows:
        """Return the losses that are remembered, in order of time (LOSS)."""
        rows = np.concatenate([np.zeros(0, LOSS), *self._losses])
        return rows[np.argsort(rows["ts_ns"], kind="stable")]


_TAKERS: dict[str, Callable[[Evidence, Part], None]] = {
    "message": Evidence._add_messages,
    "loss": Evidence._add_losses,
    "connection": Evidence._add_connections,
}


class Grouped:
    """Rows by a key: `of(key)` gives those with it, in order of time."""

    def __init__(self, rows: Rows, keys: NDArray[np.uint64]) -> None:
        order = np.argsort(keys, kind="stable")
        self._rows, self._keys = rows[order], keys[order]

    def of(self, key: int) -> Rows:
        """Return the rows with a key."""
        wanted = np.uint64(key)
        first, last = (np.searchsorted(self._keys, wanted, side) for side in ("left", "right"))
        return self._rows[first:last]

    def has(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell for which keys there are rows."""
        found: NDArray[np.bool_] = np.isin(keys, self._keys)
        return found
