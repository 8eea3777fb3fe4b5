"""Part: records of one family as they came out of one ring."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import MESSAGE, SEGMENT

Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Records of one family and, for messages, the payload behind them.

    `rows` has the dtype MESSAGE or SEGMENT. `payload` has one row of bytes a record, as wide as the
    ring's size class; only the first `payload_length` bytes of a row count. It is None where no
    payload was asked for. Raises ValueError when the two do not fit together.
    """

    rows: Rows
    payload: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.rows.dtype not in (MESSAGE, SEGMENT):
            raise ValueError("rows must have the dtype MESSAGE or SEGMENT")
        if self.payload is not None and len(self.payload) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows but {len(self.payload)} payloads")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def family(self) -> str:
        """The records' family, "message" or "segment"."""
        return "message" if self.rows.dtype == MESSAGE else "segment"

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Part":
        """Return a part with the records at some indices, in a slice, or where a mask is true."""
        # As raw bytes: NumPy copies a structured array field by field.
        raw = self.rows.view(f"V{self.rows.itemsize}")[which]
        payload = None if self.payload is None else self.payload[which]
        return Part(raw.view(self.rows.dtype), payload)

    def payload_lengths(self) -> NDArray[np.int64]:
        """Return how many bytes of payload each message has, never more than a row holds."""
        width = 0 if self.payload is None else self.payload.shape[1]
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


def row_bytes(array: NDArray[np.uint8]) -> list[bytes]:
    """Return each row of a table of bytes as a bytes object."""
    width = array.shape[1]
    rows: list[Any] = np.ascontiguousarray(array).view(f"V{width}").ravel().tolist()
    return rows
