"""Requests added up: how long they took at each end, and where the time went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events.column import Mask, texts
from tcprism.events.columns import BY_NAME
from tcprism.events.requests import ATTRIBUTES, SPLIT, STATES, UNKNOWN_NS, VIEWS
from tcprism.metrics import instruments as i
from tcprism.metrics.owners import Owned, Owners

Add = Callable[..., None]

# RFC 9110, section 9, and RFC 5789.
_METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
)  # fmt: skip
_OTHER, _UNIMPLEMENTED = "_OTHER", "UNIMPLEMENTED"
# Operations that need not be done once to be known.
KNOWN = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "CALL", "EXECUTE", "PREPARE",
    "COPY", "CREATE", "ALTER", "DROP", "TRUNCATE", "BEGIN", "COMMIT", "ROLLBACK", "SET", "STARTUP",
    "GET", "PING", "AUTH", "HELLO",
)  # fmt: skip
_DONE_MAX = 4_096
_PROTOCOLS = {each.name: each.protocols for each in ATTRIBUTES}
_COMPLETE = STATES.index("complete")
_ENDED = [STATES.index(state) for state in ("complete", "partial", "gap")]


def add_requests(add: Add, owners: Owners, part: Part, done: set[str]) -> None:
    """Add requests, as `add` of Metrics takes them: those that were answered, and how many more.

    `done` are the operations that a server has done once, which is noted here.
    """
    part = _without_strange(part, done)
    states = part.rows["request_state"]
    whole = (states == _COMPLETE) & (part.rows["request_ns"] != UNKNOWN_NS)
    for which, add_at in ((whole, _add_at), (~whole & np.isin(states, _ENDED), _add_incomplete)):
        some = part.take(which)
        views = some.rows["view"]
        for role, other in (("client", "server"), ("server", "client")):
            seen = some.take(views != VIEWS.index(other))
            if len(seen):
                add_at(add, seen, owners.of(seen, role == "server"), role)


def _without_strange(part: Part, done: set[str]) -> Part:
    """Return requests with `_OTHER` for operations that failed and that no server has ever done.

    Anybody can send any word, such as a password, and fill all series with words.
    """
    rows = part.rows
    for attribute, column in (("db.system.name", "method"), ("rpc.method", "resource")):
        mine = _of(rows["protocol"], attribute)
        failed = mine & (rows["failed"] != 0)
        if not mine.any():
            continue
        names = _texts(part, column)
        if attribute == "rpc.method":
            failed &= _texts(part, "status") == _UNIMPLEMENTED
        if len(done) < _DONE_MAX:
            succeeded = mine & (rows["failed"] == 0) & (rows["request_state"] == _COMPLETE)
            done.update(names[succeeded].tolist())
        if failed.any() and (failed := failed & ~np.isin(names.astype(str), [*done])).any():
            shown = np.where(failed, _OTHER, names)
            part = part.derive(**{column: np.ma.MaskedArray(shown, names == "")})
    return part


def _add_incomplete(add: Add, part: Part, owned: Owned, role: str) -> None:
    columns = (np.full(len(part), role), _texts(part, "protocol"), _texts(part, "request_state"))
    add(i.REQUESTS_INCOMPLETE, part, np.ones(len(part)), columns, owned)


def _add_at(add: Add, part: Part, owned: Owned, role: str) -> None:
    protocols = part.rows["protocol"]
    roles, shown = np.full(len(part), role), _texts(part, "protocol")
    errors = np.where(part.rows["failed"] != 0, _texts(part, "status"), "")
    add(i.REQUEST_COUNT, part, np.ones(len(part)), (roles, shown, errors), owned)
    _add_split(add, part, owned.and_by(roles, shown))
    http = _of(protocols, "http.request.method")
    _add_http(add, part.take(http), owned.where(http), role, errors[http])
    rpc = _of(protocols, "rpc.method")
    _add_rpc(add, part.take(rpc), owned.where(rpc), role, errors[rpc])
    if role == "client":
        database = _of(protocols, "db.system.name")
        _add_database(add, part.take(database), owned.where(database), errors[database])


def _add_split(add: Add, part: Part, owned: Owned) -> None:
    for name in SPLIT:
        spans = part.rows[f"{name}_ns"]
        known = (spans != UNKNOWN_NS) & (spans > 0)
        keys = [(*key, name) for key in owned.keys]
        some = Owned(owned.ids[known], keys)
        add(i.REQUEST_TIME, part.take(known), spans[known] / 1e9, (), some)


def _add_http(add: Add, part: Part, owned: Owned, role: str, errors: NDArray[Any]) -> None:
    methods = _texts(part, "method")
    methods = np.where(np.isin(methods.astype(str), _METHODS), methods, _OTHER)
    columns = (methods, _texts(part, "status"), errors)
    instrument = i.HTTP_SERVER if role == "server" else i.HTTP_CLIENT
    add(instrument, part, part.rows["request_ns"] / 1e9, columns, owned)


def _add_rpc(add: Add, part: Part, owned: Owned, role: str, errors: NDArray[Any]) -> None:
    methods = [text.lstrip("/") for text in _texts(part, "resource").tolist()]
    columns = (_texts(part, "protocol"), texts(methods), _texts(part, "status"), errors)
    instrument = i.RPC_SERVER if role == "server" else i.RPC_CLIENT
    add(instrument, part, part.rows["request_ns"] / 1e9, columns, owned)


def _add_database(add: Add, part: Part, owned: Owned, errors: NDArray[Any]) -> None:
    columns = (_texts(part, "protocol"), _texts(part, "method"), errors)
    add(i.DATABASE, part, part.rows["request_ns"] / 1e9, columns, owned)


def _of(protocols: NDArray[Any], attribute: str) -> Mask:
    mask: Mask = np.isin(protocols, [name.encode() for name in _PROTOCOLS[attribute]])
    return mask


def _texts(part: Part, column: str) -> NDArray[Any]:
    """Return a column of texts, "" where it is null."""
    values = BY_NAME[column].values(part)
    return np.where(BY_NAME[column].mask(part), "", values)
