"""A stage and a sink of one's own, found by tcprism through entry points (pyproject.toml)."""

from collections import Counter
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from tcprism import Batch, Sink

DIGITS = (ord("0"), ord("9"))


class Redact:
    """A stage: hides each digit of the payload, before anything is shown or written."""

    def __call__(self, batch: Batch) -> Batch:
        """Return the same events with other payload."""
        parts = []
        for part in batch.parts:
            if part.payload is not None:
                digit = (part.payload >= DIGITS[0]) & (part.payload <= DIGITS[1])
                part = replace(part, payload=np.where(digit, np.uint8(ord("#")), part.payload))
            parts.append(part)
        return Batch(parts, batch.clock_offset_ns)


class PerPeer(Sink):
    """A sink: adds up what was sent to each peer and writes a line for each in the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sent: Counter[str] = Counter()

    def write(self, batch: Batch) -> None:
        """Add a batch; there are empty ones among them."""
        sent = batch["kind"] == "send"
        for peer, size in zip(batch["remote_ip"][sent], batch["bytes"][sent], strict=True):
            self._sent[peer] += int(size)

    def close(self) -> None:
        """Write the sums."""
        for peer, size in self._sent.most_common():
            self._file.write(f"{size:>12} {peer}\n".encode())
