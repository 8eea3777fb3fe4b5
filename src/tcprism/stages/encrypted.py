"""Leave out the encrypted messages whose plaintext is shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import MessageFlag, SocketSource

SOCKETS_MAX = 65_536  # whose plaintext was seen; the oldest go first


class WithoutEncrypted:
    """A stage that leaves out messages of TCP that carry TLS records, where those are read.

    Of a session that encrypts into memory these are all messages of its socket from the first
    plaintext on.
    """

    def __init__(self) -> None:
        self._sockets: dict[int, None] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without them."""
        for part in batch.parts:
            if part.family == "tls":
                self._note(part)
        parts = [
            part.take(~self._encrypted(part)) if part.family == "message" else part
            for part in batch.parts
        ]
        return Batch(parts, batch.clock_offset_ns)

    def _note(self, part: Part) -> None:
        in_memory = part.rows["socket_source"] == SocketSource.CIPHERTEXT
        self._sockets |= dict.fromkeys(np.unique(part.rows["socket"][in_memory]).tolist())
        while len(self._sockets) > SOCKETS_MAX:
            del self._sockets[next(iter(self._sockets))]

    def _encrypted(self, part: Part) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (part.rows["flags"] & MessageFlag.ENCRYPTED) != 0
        if self._sockets:
            inside |= np.isin(part.rows["socket"], [*self._sockets])
        return inside
