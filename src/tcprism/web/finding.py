"""Finding: which rows a filter's terms choose, and in which order they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.web.connections import Connections
from tcprism.web.expressions import expression_of
from tcprism.web.requests import UNKNOWN, Requests, state_number

Mask = NDArray[np.bool_]

_AMOUNT = re.compile(
    r"(took|sent|received|retransmissions)([<>])([0-9]{1,15}(?:\.[0-9]{1,9})?)([a-zµ]*)"
)
_UNITS: dict[str, dict[str, float]] = {
    "took": {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "": 1e6, "s": 1e9},
    "sent": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9},
    "retransmissions": {"": 1},
}
_UNITS["received"] = _UNITS["sent"]
REQUEST_ORDERS = ("start", "took", "sent", "received", "retransmissions", "what")
CONNECTION_ORDERS = ("first", "written", "read", "retransmissions", "requests", "duration")


def terms(text: str) -> list[str]:
    """Return the terms of a filter, in lower case."""
    return text.lower().split()[:32]


class Range(NamedTuple):
    """The least and the largest value that a column may have; None: any."""

    least: int | None
    most: int | None


def requests(
    found: Requests, connections: Connections, text: str, ranges: Mapping[str, Range]
) -> NDArray[np.intp]:
    """Return the places of requests that every term of a filter matches, and ranges of columns.

    A term is a word in what is asked for, its status, processes and addresses; or `failed`, `slow`
    (the slowest hundredth), `pending`, `repeated` (a segment was sent again), `connection:N`,
    `took>10ms`, `sent<1kB`, `received>1MB`, `retransmissions>2`. One that begins with `-` must not
    match. Instead of terms, `where` begins an SQL expression of columns. Raises UsageError for one
    that makes no sense, and ExtraMissing.
    """
    table = found.table
    mask = np.ones(len(found), np.bool_)
    for name, (least, most) in ranges.items():
        if least is not None:
            mask &= table[name] >= least
        if most is not None:
            mask &= table[name] <= most
    expression = expression_of(text)
    if expression:
        mask &= found.evaluation(expression)()
    for term in () if expression is not None else terms(text):
        without = term.startswith("-") and len(term) > 1
        match = _request_term(found, connections, term[1:] if without else term)
        mask &= ~match if without else match
    return np.flatnonzero(mask)


def _request_term(found: Requests, connections: Connections, term: str) -> Mask:
    table, took = found.table, found.table["took"]
    mask: Mask
    if term == "failed":
        mask = table["failed"] != 0
    elif term == "repeated":
        mask = table["retransmissions"] > 0
    elif term == "slow":
        known = took[took != UNKNOWN]
        mask = (took != UNKNOWN) & (took >= (np.quantile(known, 0.99) if len(known) else 0))
    elif state_number(term) > 0:
        mask = table["state"] == state_number(term)
    elif (amount := _amount(term)) is not None:
        name, above, limit = amount
        column = table[name]
        mask = (column > limit if above else column < limit) & (column != UNKNOWN)
    elif term.startswith("connection:") and term[11:26].isdecimal():
        place = connections.place(int(term[11:26]))
        mask = np.full(len(found), False) if place is None else table["connection"] == place
    else:
        asked_for = np.array([term in what for what in found.whats] or [False], np.bool_)
        mask = asked_for[table["what"]] | _ends_with(connections, term)[table["connection"]]
    return mask


def _amount(term: str) -> tuple[str, bool, float] | None:
    match = _AMOUNT.fullmatch(term)
    if not match or match[4] not in _UNITS[match[1]]:
        return None
    return match[1], match[2] == ">", float(match[3]) * _UNITS[match[1]][match[4]]


def _ends_with(connections: Connections, term: str) -> Mask:
    """Tell of each connection whether its ends have a word; last, that none has not: index -1."""
    texts = map(connections.text, range(len(connections)))
    return np.array([*(term in text for text in texts), False], np.bool_)


def connections(found: Connections, text: str) -> NDArray[np.intp]:
    """Return the numbers of connections that every term of a filter matches.

    A term is a word in its processes and addresses; or `failed`, `open`, `repeated`.
    """
    mask = np.ones(len(found), np.bool_)
    for term in terms(text):
        without = term.startswith("-") and len(term) > 1
        match = _connection_term(found, term[1:] if without else term)
        mask &= ~match if without else match
    return np.flatnonzero(mask)


def _connection_term(found: Connections, term: str) -> Mask:
    special: dict[str, Callable[[], Mask]] = {
        "failed": lambda: found.table["failed"],
        "open": lambda: ~found.table["closed"].any(axis=1) & ~found.table["failed"],
        "repeated": lambda: found.table["causes"].sum(axis=1) > 0,
    }
    return special[term]() if term in special else _ends_with(found, term)[:-1]


def ordered(keys: NDArray[np.int64], numbers: NDArray[np.intp], falling: bool) -> NDArray[np.intp]:
    """Return numbers in the order of their keys; equal ones stay as they are."""
    chosen = keys[numbers]
    return numbers[np.argsort(-chosen if falling else chosen, kind="stable")]


def request_keys(found: Requests, order: str) -> NDArray[np.int64]:
    """Return what requests are sorted by. `order` is one of REQUEST_ORDERS."""
    if order != "what":
        return found.table[order]
    rank = _ranks(found.whats)
    return rank[found.table["what"]] if len(found) else np.zeros(0, np.int64)


def _ranks(texts: Sequence[str]) -> NDArray[np.int64]:
    rank = np.empty(len(texts), np.int64)
    rank[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return rank


def connection_keys(found: Connections, order: str) -> NDArray[np.int64]:
    """Return what connections are sorted by. `order` is one of CONNECTION_ORDERS."""
    table = found.table
    keys: NDArray[np.int64]
    if order == "retransmissions":
        keys = table["causes"].sum(axis=1)
    elif order == "duration":
        keys = table["last_ns"] - table["first_ns"]
    elif order == "first":
        keys = table["first_ns"]
    elif order == "requests":
        keys = table["requests"]
    else:  # both directions count: a connection is one row
        keys = found.moved(order).sum(axis=1)
    return keys
