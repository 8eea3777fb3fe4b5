"""Families: kinds of events that share one record."""

from __future__ import annotations

import numpy as np

from tcprism.events import _wire
from tcprism.events._wire import EventKind

FAMILIES: dict[str, tuple[str, ...]] = {
    "message": ("send", "recv"),
    "delivery": ("acked",),
    "segment": ("transmit", "probe"),
    "loss": ("retransmit", "undo", "drop"),
    "connection": ("connect", "accept", "close", "reset", "state"),
}

# A snapshot is asked for, where the others are made by hooks as things happen.
RECORDS: dict[str, np.dtype[np.void]] = {
    "message": _wire.MESSAGE,
    "delivery": _wire.DELIVERY,
    "segment": _wire.SEGMENT,
    "loss": _wire.LOSS,
    "connection": _wire.CONNECTION_EVENT,
    "snapshot": _wire.SNAPSHOT,
}

FAMILY_OF_KIND = {kind: family for family, kinds in FAMILIES.items() for kind in kinds} | {
    "snapshot": "snapshot"
}

# The numbers of the kinds, as records have them.
KINDS_OF_FAMILY = {
    family: [EventKind[kind.upper()].value for kind in FAMILIES.get(family, (family,))]
    for family in RECORDS
}

_FAMILY_OF_SIZE = {dtype.itemsize: family for family, dtype in RECORDS.items()}


def family_of(dtype: np.dtype[np.void]) -> str | None:
    """Return the family whose records have this dtype, or None."""
    family = _FAMILY_OF_SIZE.get(dtype.itemsize)
    return family if family and RECORDS[family] == dtype else None
