"""Requests added up: how long they took at each end, and where the time went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events.column import Mask
from tcprism.events.columns import BY_NAME
from tcprism.events.requests import ATTRIBUTES, SPLIT, STATES, UNKNOWN_NS, VIEWS
from tcprism.metrics import instruments as i

Add = Callable[..., None]

# RFC 9110, section 9, and RFC 5789.
_METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
)  # fmt: skip
_PROTOCOLS = {each.name: each.protocols for each in ATTRIBUTES}
_COMPLETE = STATES.index("complete")


def add_requests(add: Add, part: Part) -> None:
    """Add the requests that were answered, as `add` of Metrics takes them."""
    rows = part.rows
    part = part.take((rows["request_state"] == _COMPLETE) & (rows["request_ns"] != UNKNOWN_NS))
    views = part.rows["view"]
    for role, other in (("client", "server"), ("server", "client")):
        seen = part.take(views != VIEWS.index(other))
        if len(seen):
            _add_at(add, seen, role)


def _add_at(add: Add, part: Part, role: str) -> None:
    server = role == "server"
    protocols = part.rows["protocol"]
    shown = _texts(part, "protocol")
    errors = np.where(part.rows["failed"] != 0, _texts(part, "status"), "")
    roles = np.full(len(part), role)
    add(i.REQUEST_COUNT, part, np.ones(len(part)), (roles, shown, errors), server=server)
    for name in SPLIT:
        spans = part.rows[f"{name}_ns"]
        known = (spans != UNKNOWN_NS) & (spans > 0)
        some = part.take(known)
        parts = np.full(len(some), name)
        columns = (roles[known], shown[known], parts)
        add(i.REQUEST_TIME, some, some.rows[f"{name}_ns"] / 1e9, columns, server=server)
    _add_http(add, part, _of(protocols, "http.request.method"), server, errors)
    if not server:
        _add_database(add, part, _of(protocols, "db.system.name"), errors)


def _add_http(add: Add, part: Part, which: Mask, server: bool, errors: NDArray[Any]) -> None:
    part, errors = part.take(which), errors[which]
    methods = _texts(part, "method")
    methods = np.where(np.isin(methods.astype(str), _METHODS), methods, "_OTHER")
    columns = (methods, _texts(part, "status"), errors)
    instrument = i.HTTP_SERVER if server else i.HTTP_CLIENT
    add(instrument, part, part.rows["request_ns"] / 1e9, columns, server=server)


def _add_database(add: Add, part: Part, which: Mask, errors: NDArray[Any]) -> None:
    part, errors = part.take(which), errors[which]
    columns = (_texts(part, "protocol"), _texts(part, "method"), errors)
    add(i.DATABASE, part, part.rows["request_ns"] / 1e9, columns)


def _of(protocols: NDArray[Any], attribute: str) -> Mask:
    mask: Mask = np.isin(protocols, [name.encode() for name in _PROTOCOLS[attribute]])
    return mask


def _texts(part: Part, column: str) -> NDArray[Any]:
    """Return a column of texts, "" where it is null."""
    values = BY_NAME[column].values(part)
    return np.where(BY_NAME[column].mask(part), "", values)
