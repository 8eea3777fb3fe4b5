"""Columns as text for people: a link-local address with its interface, as in fe80::1%eth0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events.columns import BY_NAME
from tcprism.events.part import Part, Rows

_ADDRESSES = ("local_ip", "remote_ip")


def shown(part: Part, name: str) -> list[Any]:
    """Return a column as `to_list` does, addresses with their scope (RFC 4007).

    The scope is the interface's name where it is known, else its index.
    """
    values = BY_NAME[name].to_list(part)
    if name not in _ADDRESSES or not part.rows["scope_id"].any():
        return values
    rows = part.rows
    places = np.flatnonzero(_link_local(rows[name]) & (rows["scope_id"] != 0))
    for place in places.tolist():
        index = int(rows["scope_id"][place])
        interface = part.context.interface(int(rows["netns"][place]), index)
        values[place] += f"%{interface or index}"
    return values


def without_other_scopes(rows: Rows) -> Rows:
    """Return records whose scope_id is 0 where neither address is link-local.

    As the kernel has it, scope_id is the interface that a socket is bound to.
    """
    bound = np.flatnonzero(rows["scope_id"])
    if not len(bound):
        return rows
    rows = rows.copy()
    ends = (_link_local(rows[name][bound]) for name in _ADDRESSES)
    rows["scope_id"][bound[~np.logical_or(*ends)]] = 0
    return rows


def _link_local(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which addresses are in fe80::/10."""
    mask: NDArray[np.bool_] = (addresses[:, 0] == 0xFE) & (addresses[:, 1] & 0xC0 == 0x80)
    return mask
