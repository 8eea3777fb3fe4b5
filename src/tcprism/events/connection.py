"""What names a connection: its ends, its network namespace and, for link-local addresses, the link.

Not the socket cookie, which some hooks do not know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events.part import Rows

NAMED_BY = ("netns", "scope_id", "local_ip", "local_port", "remote_ip", "remote_port")

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing


def connection_keys(rows: Rows) -> NDArray[np.uint64]:
    """Return a number a record that stands for its connection."""
    keys: NDArray[np.uint64] = rows["local_port"].astype(np.uint64)
    keys <<= np.uint64(16)
    keys |= rows["remote_port"]
    keys <<= np.uint64(32)
    keys |= rows["netns"] ^ rows["scope_id"] << np.uint32(16)
    for name in ("local_ip", "remote_ip"):
        for word in rows[name].view(np.uint64).T:
            keys ^= word
            keys *= _MULTIPLIER
            keys ^= keys >> np.uint64(32)
    return keys


def same_connection(rows: Rows, of: np.void) -> NDArray[np.bool_]:
    """Tell which records are of the same connection as another."""
    same = np.ones(len(rows), np.bool_)
    for name in NAMED_BY:
        equal = rows[name] == of[name]
        same &= equal.all(axis=1) if equal.ndim > 1 else equal
    return same
