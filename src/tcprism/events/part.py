"""Part: records of one family as they came out of one ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import EventKind
from tcprism.events.context import Context
from tcprism.events.kinds import NUMBERS, REGISTERED, family_of

HOST = "host"  # a derived column of records that come from several machines

Rows = NDArray[np.void]
Derived = Mapping[str, "np.ma.MaskedArray[Any, Any]"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Records of one family and, for messages, the payload behind them.

    `rows` has the dtype of one of the families' records. `payload` has one row of bytes a record,
    as wide as the ring's size class; only the first `payload_length` bytes of a row count. It is
    None where no payload was asked for. `derived` are the columns that stages have added, one value
    a record, masked where unknown. `context` explains the numbers that mean something only on the
    machine that they come from. `family` is the records', as in FAMILIES. Raises ValueError when
    the parts do not fit together.
    """

    rows: Rows
    payload: NDArray[np.uint8] | None = None
    derived: Derived = field(default_factory=dict)
    context: Context = field(default_factory=Context)
    family: str = field(init=False)

    def __post_init__(self) -> None:
        family = family_of(self.rows.dtype)
        if family is None:
            raise ValueError("rows must have the dtype of a family's record")
        object.__setattr__(self, "family", family)
        if any(len(column) != len(self.rows) for column in self.derived.values()):
            raise ValueError(f"a derived column does not have {len(self.rows)} values")
        if self.payload is not None and len(self.payload) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows but {len(self.payload)} payloads")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """How many bytes the records and their payload have."""
        return self.rows.nbytes + (0 if self.payload is None else self.payload.nbytes)

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Part:
        """Return a part with the records at some indices, in a slice, or where a mask is true."""
        # As raw bytes: NumPy copies a structured array field by field.
        raw = self.rows.view(f"V{self.rows.itemsize}")[which]
        payload = None if self.payload is None else self.payload[which]
        derived = {name: column[which] for name, column in self.derived.items()}
        return Part(raw.view(self.rows.dtype), payload, derived, self.context)

    def derive(self, **columns: np.ma.MaskedArray[Any, Any]) -> Part:
        """Return the same records with more derived columns."""
        return replace(self, derived={**self.derived, **columns})

    def outgoing(self) -> NDArray[np.bool_]:
        """Tell which events are about bytes that left this machine, not about some that arrived."""
        kinds = self.rows["kind"]
        arriving = [NUMBERS[k.name] for k in REGISTERED[self.family].kinds if k.incoming]
        leaves: NDArray[np.bool_] = ~np.isin(kinds, arriving)
        if self.family == "loss":
            leaves[(kinds == EventKind.DROP) & (self.rows["outgoing"] == 0)] = False
        return leaves

    def payload_lengths(self) -> NDArray[np.int64]:
        """Return how many bytes of payload each message has, never more than a row holds."""
        if self.payload is None:
            return np.zeros(len(self), np.int64)
        width = self.payload.shape[1]
        lengths: NDArray[np.int64] = self.rows["payload_length"].astype(np.int64)
        return np.minimum(lengths, width)

    def payloads(self) -> list[bytes]:
        """Return each message's captured payload."""
        if self.payload is None:
            return [b""] * len(self)
        lengths = self.payload_lengths()
        rows = row_bytes(self.payload)
        if (lengths == self.payload.shape[1]).all():
            return rows
        return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


def joined_rows(parts: Sequence[Part]) -> Rows:
    """Return the records of parts of one family, one after the other, padding and all."""
    raw = np.concatenate([part.rows.view(f"V{part.rows.itemsize}") for part in parts])
    return raw.view(parts[0].rows.dtype)


def row_bytes(array: NDArray[np.uint8]) -> list[bytes]:
    """Return each row of a table of bytes as a bytes object."""
    width = array.shape[1]
    rows: list[Any] = np.ascontiguousarray(array).view(f"V{width}").ravel().tolist()
    return rows
