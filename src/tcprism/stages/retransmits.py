"""What a retransmission repeats, how often its first byte was sent, and which ACKs caused it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind, MessageFlag
from tcprism.events.column import DERIVED_TYPES
from tcprism.events.connection import connection_keys
from tcprism.events.escape import escape
from tcprism.events.ledger import Account
from tcprism.events.repeated import COLUMNS
from tcprism.stages import StatefulStage
from tcprism.stages.duplicate_acks import DuplicateAcks
from tcprism.stages.sends import Sends

# A send in short: what is needed when some of it is sent again.
FIRST_BYTES = 32
CONNECTIONS_MAX = 65_536
_FEW = 10_000  # sends: to forget fewer is not worth a word
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
    **{name: DERIVED_TYPES[json_type] for name, json_type, _ in COLUMNS},
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
    """A stage that fills `attempt` and the columns in events/repeated.py of retransmissions.

    It remembers the latest sends that were traced; `unjoined` counts the retransmissions that may
    have repeated one of those that had to go. If segments that arrive are traced, it remembers the
    latest duplicate ACKs, too. Sequence numbers are compared modulo 2 ** 32
    (RFC 9293, section 3.4). `all_sends` tells whether each send has come that returned: only then
    bytes of none of them are those of a call that has not returned yet.
    """

    keeps = "sends that may be sent again"

    def __init__(self, all_sends: Callable[[], bool]) -> None:
        self._all_sends = all_sends
        self._all_came: bool | None = None  # of the batch: None if nobody has asked
        self._sends = Sends(WRITE)
        self._acks = DuplicateAcks()
        self.unjoined = 0
        self._repeated: OrderedDict[int, deque[tuple[int, int, int]]] = OrderedDict()
        self._unplaced: OrderedDict[int, None] = OrderedDict()  # connections with sends without seq

    @property
    def room(self) -> int:
        """How many bytes of sends are remembered at most."""
        return self._sends.room

    @room.setter
    def room(self, size: int) -> None:
        self._sends.shrink(max(1, self._sends.size * size // self.room))

    def let_go(self) -> int:
        """Forget the older half of the sends, unless there are few; return how many those were."""
        count = len(self._sends)
        if count < _FEW:
            return 0
        self._sends.shrink(count - count // 2)
        return count // 2

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the columns filled."""
        for part in batch.parts:
            if part.family == "message":
                self._remember(part)
            elif part.family == "segment":
                self._acks.add(part)
        if not any(part.family == "loss" for part in batch.parts):
            return batch
        self._all_came = None
        found = self._explain([part for part in batch.parts if part.family == "loss"])
        parts = [next(found) if part.family == "loss" else part for part in batch.parts]
        return Batch(parts, batch.clock_offset_ns)

    def account(self) -> Account:
        """Return how many retransmissions are without their send."""
        return unjoined(self.unjoined) + _forgotten(self._acks.forgotten)

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
                columns[place].fill(index, self._found(row, connection))
        return (part.derive(**each.masked()) for part, each in zip(parts, columns, strict=True))

    def _found(self, row: np.void, connection: np.uint64) -> dict[str, Any]:
        attempt, sent_ns = self._attempt(row, int(connection))
        found = {"attempt": attempt, **self._message(row, connection)}
        if row["cause"] == Cause.FAST:
            found |= self._acks.cause_of(row, connection, sent_ns)
        return found

    def _attempt(self, row: np.void, connection: int) -> tuple[int, int]:
        """Return how often the first byte was sent, and when it was last sent again, or 0."""
        seq, end_seq = int(row["seq"]), int(row["end_seq"])
        before = self._repeated.setdefault(connection, deque(maxlen=REPETITIONS_MAX))
        self._repeated.move_to_end(connection)
        if len(self._repeated) > CONNECTIONS_MAX:
            self._repeated.popitem(last=False)
        times = [ts for start, end, ts in before if (seq - start) % _SEQ < (end - start) % _SEQ]
        if row["error"] == 0:
            before.append((seq, end_seq, int(row["ts_ns"])))
        return 2 + len(times), max(times, default=0)

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
        if not row["pid"]:
            return {}
        if self._all_came is None:
            self._all_came = self._all_sends()  # reads the kernel's counters: once a batch
        if not self._all_came:
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


def _forgotten(count: int) -> Account:
    if not count:
        return Account()
    remark = (
        f"{count} retransmissions are without the ACKs that caused them:"
        " too many others came after those; use a filter"
    )
    return Account(counts={"acks_forgotten": count}, remarks=(remark,))


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
