"""Ends: numbers that stand for a connection, for its other end, and for a listener."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events.connection import connection_keys
from tcprism.events.part import Rows

Keys = NDArray[np.uint64]
Places = NDArray[np.intp]

_ENDS = np.dtype(
    [
        ("netns", np.uint32),
        ("scope_id", np.uint32),
        ("local_ip", np.uint8, 16),
        ("remote_ip", np.uint8, 16),
        ("local_port", np.uint16),
        ("remote_port", np.uint16),
    ]
)
_LOOPBACK_4 = np.frombuffer(bytes(10) + b"\xff\xff\x7f", np.uint8)  # 127.0.0.0/8, mapped
_SWAPPED = {
    "local_ip": "remote_ip",
    "remote_ip": "local_ip",
    "local_port": "remote_port",
    "remote_port": "local_port",
}


def own_keys(rows: Rows) -> Keys:
    """Return a number a record, the same for all records of one end of a connection."""
    return connection_keys(rows)


def ends_keys(rows: Rows) -> Keys:
    """Return a number a record for its ends: the peer may be in another namespace of this host.

    There a link-local address has another scope, too. What goes to the loopback device stays in its
    namespace, and others may use the same addresses and ports.
    """
    return _keys(rows, {name: name for name in _SWAPPED})


def other_end_keys(rows: Rows) -> Keys:
    """Return what `ends_keys` gives for the records of the peer's socket."""
    return _keys(rows, _SWAPPED)


def _keys(rows: Rows, names: dict[str, str]) -> Keys:
    ends = np.zeros(len(rows), _ENDS)
    ends["netns"] = np.where(_is_loopback(rows), rows["netns"], 0)
    for name, source in names.items():
        ends[name] = rows[source]
    return connection_keys(ends)


def _is_loopback(rows: Rows) -> NDArray[np.bool_]:
    """Tell which connections are of a host with itself."""
    found: NDArray[np.bool_] = (rows["local_ip"] == rows["remote_ip"]).all(axis=1)
    for name in ("local_ip", "remote_ip"):
        found |= (rows[name][:, : len(_LOOPBACK_4)] == _LOOPBACK_4).all(axis=1)
    return found


def port_keys(rows: Rows) -> Keys:
    """Return a number a record for its local port and namespace, which a listener has, too."""
    keys: Keys = rows["netns"].astype(np.uint64) << np.uint64(16) | rows["local_port"]
    return keys


class Numbers:
    """Gives each connection a number, in the order in which they come; at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._numbers: dict[int, int] = {}
        self._limit = limit
        self.refused = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, keys: Keys) -> Places:
        """Return the number of each key; -1 for new ones that there is no more room for."""
        distinct, places = np.unique(keys, return_inverse=True)
        return np.array(list(map(self._number, distinct.tolist())), np.intp)[places]

    def find(self, keys: Keys) -> Places:
        """Return the number of each key, -1 for those that have not come."""
        return np.array([self._numbers.get(key, -1) for key in keys.tolist()], np.intp)

    def _number(self, key: int) -> int:
        if key not in self._numbers and len(self._numbers) >= self._limit:
            self.refused += 1
            return -1
        return self._numbers.setdefault(key, len(self._numbers))
