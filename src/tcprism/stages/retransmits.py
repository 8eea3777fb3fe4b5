"""Which write a retransmission repeats, and how many times its first byte has been sent."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag
from tcprism.events.connection import connection_keys
from tcprism.events.escape import escape
from tcprism.events.ledger import Account
from tcprism.stages import StatefulStage
from tcprism.stages.sends import Sends

# A send in short: what is needed when some of it is sent again.
FIRST_BYTES = 32
CONNECTIONS_MAX = 65_536
REPETITIONS_MAX = 64  # of one connection: later ones push out the first

WRITE = np.dtype(
    [
        ("ts_ns", np.uint64),
        ("bytes", np.uint32),
        ("pid", np.uint32),
        ("comm", "S16"),
        ("length", np.uint8),
        ("first", f"V{FIRST_BYTES}"),
    ]
)
_DERIVED: dict[str, Any] = {
    "attempt": np.int64,
    "message_pid": np.int64,
    "message_comm": object,
    "message_ts_ns": np.int64,
    "message_offset": np.int64,
    "message_bytes": np.int64,
    "message_text": object,
}
_SEQ = 1 << 32


class _Columns:
    """The derived columns of a part, unknown until they are filled."""

    def __init__(self, part: Part) -> None:
        self.connections = connection_keys(part.rows)
        self._values = {name: np.zeros(len(part), kind) for name, kind in _DERIVED.items()}
        self._unknown = {name: np.ones(len(part), np.bool_) for name in _DERIVED}

    def fill(self, index: int, found: dict[str, Any]) -> None:
        """Fill in what is known of a record."""
        for name, value in found.items():
            self._values[name][index], self._unknown[name][index] = value, False

    def masked(self) -> dict[str, np.ma.MaskedArray[Any, Any]]:
        """Return the columns by name."""
        return {
            name: np.ma.MaskedArray(self._values[name], self._unknown[name]) for name in _DERIVED
        }


class Retransmits(StatefulStage):
    """A stage that fills `attempt` and the `message_` columns of retransmissions.

    It remembers the latest sends that were traced; `unjoined` counts the retransmissions that may
    have repeated one of those that had to go. Sequence numbers are compared modulo 2 ** 32
    (RFC 9293, section 3.4). `all_sends` tells whether each send has come that returned: only then
    bytes of none of them are those of a call that has not returned yet.
    """

    def __init__(self, all_sends: Callable[[], bool]) -> None:
        self._all_sends = all_sends
        self._sends = Sends(WRITE)
        self.unjoined = 0
        self._repeated: OrderedDict[int, deque[tuple[int, int]]] = OrderedDict()
        self._unplaced: OrderedDict[int, None] = OrderedDict()  # connections with sends without seq

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the columns filled."""
        for part in batch.parts:
            if part.family == "message":
                self._remember(part)
        if not any(part.family == "loss" for part in batch.parts):
            return batch
        found = self._explain([part for part in batch.parts if part.family == "loss"])
        parts = [next(found) if part.family == "loss" else part for part in batch.parts]
        return Batch(parts, batch.clock_offset_ns)

    def account(self) -> Account:
        """Return how many retransmissions are without their send."""
        return unjoined(self.unjoined)

    def _remember(self, part: Part) -> None:
        rows = part.rows
        unknown = np.uint16(MessageFlag.SEQ_UNKNOWN)
        wanted = (rows["kind"] == EventKind.SEND) & (rows["bytes"] > 0)
        unplaced = wanted & ((rows["flags"] & unknown) != 0)
        if unplaced.any():
            self._unplaced |= dict.fromkeys(connection_keys(rows[unplaced]).tolist())
        while len(self._unplaced) > CONNECTIONS_MAX:
            self._unplaced.popitem(last=False)
        wanted &= ~unplaced
        sends = part if wanted.all() else part.take(wanted)
        if len(sends):
            rows = sends.rows
            self._sends.add(connection_keys(rows), rows["seq"], rows["bytes"], _writes(sends))

    def _explain(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Yield parts of losses with the columns filled, looked at in the order of time."""
        columns = [_Columns(part) for part in parts]
        for place, index in zip(*(order.tolist() for order in Batch(parts).order()), strict=True):
            row = parts[place].rows[index]
            if row["kind"] == EventKind.RETRANSMIT:
                connection = columns[place].connections[index]
                found = self._message(row, connection)
                found["attempt"] = self._attempt(row, int(connection))
                columns[place].fill(index, found)
        return (part.derive(**each.masked()) for part, each in zip(parts, columns, strict=True))

    def _attempt(self, row: np.void, connection: int) -> int:
        seq, end_seq = int(row["seq"]), int(row["end_seq"])
        before = self._repeated.setdefault(connection, deque(maxlen=REPETITIONS_MAX))
        self._repeated.move_to_end(connection)
        if len(self._repeated) > CONNECTIONS_MAX:
            self._repeated.popitem(last=False)
        times = sum((seq - start) % _SEQ < (end - start) % _SEQ for start, end in before)
        if row["error"] == 0:
            before.append((seq, end_seq))
        return 2 + times

    def _message(self, row: np.void, connection: np.uint64) -> dict[str, Any]:
        """Find the write that has the segment's first byte: the latest, for numbers come again."""
        if not row["bytes"]:
            return {}
        place = self._sends.find(connection, row["seq"])
        if place.write is not None:
            return _of_write(place.write, place.offset)
        unplaced = int(connection) in self._unplaced
        if place.where == "behind" and not unplaced:
            return self._of_call(row, place.end)
        if place.where == "before" and self._sends.evicted:
            self.unjoined += 1
        elif place.where == "before" and row["first_seq_known"] and not unplaced:
            return self._of_call(row, int(row["first_seq"]))
        return {}

    def _of_call(self, row: np.void, start: int) -> dict[str, Any]:
        """Return the columns of a segment of a send that has not returned, if that is certain.

        The send began at `start`.
        """
        if not row["pid"] or not self._all_sends():
            return {}
        return {
            "message_pid": int(row["pid"]),
            "message_comm": _comm_text(row["comm"]),
            "message_offset": (int(row["seq"]) - start) % _SEQ,
        }


def unjoined(count: int) -> Account:
    """Return the account of retransmissions whose send is not remembered any more."""
    remark = (
        f"{count} retransmissions are without the send that they repeat:"
        " too many sends came after it; use a filter"
    )
    return Account(counts={"unjoined": count}, remarks=(remark,) if count else ())


def _writes(sends: Part) -> NDArray[np.void]:
    writes = np.empty(len(sends), WRITE)
    for name in ("ts_ns", "bytes", "pid", "comm"):
        writes[name] = sends.rows[name]
    writes["length"] = np.minimum(sends.payload_lengths(), FIRST_BYTES)
    if sends.payload is not None:
        first = sends.payload[:, :FIRST_BYTES]
        if first.shape[1] < FIRST_BYTES:
            first = np.pad(first, ((0, 0), (0, FIRST_BYTES - first.shape[1])))
        writes["first"] = first.view(f"V{FIRST_BYTES}")[:, 0]
    return writes


def _of_write(write: np.void, offset: int) -> dict[str, Any]:
    """Return the columns of a segment that begins so far inside a write."""
    found: dict[str, Any] = {
        "message_ts_ns": int(write["ts_ns"]),
        "message_offset": offset,
        "message_bytes": int(write["bytes"]),
    }
    if write["pid"]:
        found["message_pid"] = int(write["pid"])
        found["message_comm"] = _comm_text(write["comm"])
    if write["length"]:
        found["message_text"] = escape(write["first"].tobytes()[: write["length"]])
    return found


def _comm_text(comm: bytes) -> str:
    return escape(bytes(comm).split(b"\0")[0])
