"""Vocabulary: what may be written in a filter, with the values that are known."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from tcprism.events.columns import columns_of
from tcprism.events.escape import escape
from tcprism.events.requests import SERVER_SOURCES, SPLIT, STATES, VIEWS, WAITING_FOR
from tcprism.web.connections import Connections
from tcprism.web.requests import KEY, Requests

VALUES_MAX = 200  # of a column
_LOOKED_AT = 5000  # of the latest, for values
_LONGEST = 80  # characters of a value

REQUEST_TERMS = {
    "failed": "the server says that it failed",
    "slow": "the slowest hundredth",
    "repeated": "a segment was sent again",
    **{state: "its state" for state in STATES if state and " " not in state},
    "took>": "it took longer than 10ms, 2s, ...",
    "took<": "it took less than 10ms, 2s, ...",
    "sent>": "more bytes were sent than 1kB, 2MB, ...",
    "received>": "more bytes came back than 1kB, 2MB, ...",
    "retransmissions>": "more of its segments were sent again",
    "connection:": "of the connection with this number",
    "where ": "an SQL expression of columns",
}
CONNECTION_TERMS = {
    "failed": "it was never established",
    "open": "its end was not seen",
    "repeated": "a segment was sent again",
}
_SETS = {
    "request_state": STATES,
    "view": VIEWS,
    "waiting_for": WAITING_FOR,
    "server_source": SERVER_SOURCES,
    "slowest_part": tuple(name.replace("_", " ") for name in SPLIT),
}


def of_requests(found: Requests, connections: Connections) -> dict[str, Any]:
    """Return the terms and columns of requests, and values by column: the latest first."""
    keys = list(islice(reversed(found.keys), _LOOKED_AT))
    values = {name: _distinct(key[place] for key in keys) for place, name in enumerate(KEY)}
    names = _processes(connections)
    its_own_first = sorted(columns_of("request"), key=lambda one: one.families != ("request",))
    columns = [
        {"name": column.name, "type": column.json_type, "means": column.doc.replace("`", "")}
        for column in its_own_first
        if column.json_type in ("string", "integer", "boolean")
    ]
    sets = {name: [value for value in known if value] for name, known in _SETS.items()}
    return {
        "terms": REQUEST_TERMS,
        "columns": columns,
        "values": {**values, "comm": names, "server_comm": names, **sets},
    }


def of_connections(found: Connections) -> dict[str, Any]:
    """Return the terms of connections, and known processes, containers and addresses."""
    ends = (end for pair in islice(reversed(found.ends), _LOOKED_AT) for end in reversed(pair))
    return {
        "terms": CONNECTION_TERMS,
        "columns": [],
        "values": {
            "process": _processes(found),
            "container": _distinct(reversed(found.containers)),
            "address": _distinct(end.rpartition(":")[0] for end in ends),
        },
    }


def _processes(found: Connections) -> list[str]:
    names = np.unique(found.table["comm"][-_LOOKED_AT:]).tolist()
    return _distinct(escape(name.split(b"\0")[0]) for name in names)


def _distinct(values: Iterable[str | None]) -> list[str]:
    short = (value for value in values if value and len(value) <= _LONGEST)
    return list(islice(dict.fromkeys(short), VALUES_MAX))
