"""Request facts: what requests tell of each connection, as columns that rules can read.

Where requests are known, they replace what the order of sends and receives suggests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Delta, Numbers, microseconds
from tcprism.diagnosis.ends import ends_keys
from tcprism.diagnosis.request_evidence import Asked, RequestEvidence, meanwhile
from tcprism.diagnosis.waits import ASKED, SERVED, Answers, Waits, answers
from tcprism.events import Part
from tcprism.events.units import duration

Facts = dict[str, NDArray[Any]]
SIDES = ((ASKED, "asked"), (SERVED, "served"))
MEANWHILE_MAX = 100  # connections, those with the slowest requests


@dataclass(frozen=True, slots=True)
class Pending:
    """Requests without a response: all, and by the number of the end that asks or serves.

    `whole` is False where events are missing: a response may have been among them.
    """

    whole: bool
    requests: list[Asked]
    by_number: tuple[dict[int, list[Asked]], dict[int, list[Asked]]]


def pending_of(found: RequestEvidence, sockets: Part, whole: bool) -> Pending:
    """Return the requests without a response when sockets were last looked at.

    `whole` tells whether all events were seen.
    """
    whole = whole and not found.skipped
    now_ns = int(sockets.rows["ts_ns"].max()) if len(sockets) else 0
    by_number: tuple[dict[int, list[Asked]], dict[int, list[Asked]]] = ({}, {})
    requests = []
    for one, *numbers in found.pending(now_ns) if whole else ():
        requests.append(one)
        for side, number in enumerate(numbers):
            by_number[side].setdefault(number, []).append(one)
    return Pending(whole, requests, by_number)


def request_facts(change: Delta, found: RequestEvidence, facts: Facts, pending: Pending) -> Facts:
    """Return the columns that requests add or replace."""
    rows, count = change.after, len(change)
    numbers = _numbers(found, ends_keys(rows))
    trip = np.nan_to_num(microseconds(rows, "srtt_us"))
    gap = np.isin(numbers, [*found.gaps])
    parallel = np.isin(numbers, [*found.parallel])
    told: Facts = {"asks": facts["asks"].copy()}
    for side, name in reversed(SIDES):
        took = _took(found.waits, numbers, side, trip)
        known = (took.count > 0) & ~gap
        total = np.where(parallel, took.longest_us, took.total_us)
        told["asks"][took.count > 0] = side == ASKED
        replaced = {"count": took.count, "total": total, "median": took.median_us}
        replaced["longest"] = took.longest_us
        for field, values in replaced.items():
            column = f"{name}_{field}" + ("" if field == "count" else "_us")
            told[column] = np.where(known, values, facts[column])
        told |= _texts(name, numbers, found.slowest[side])
        told |= _due(name, numbers, known & pending.whole, pending.by_number[side])
        told["asks"][~np.isnan(told[f"{name}_due_us"]) & (took.count == 0)] = side == ASKED
    told["served_meanwhile"] = _meanwhile(found, numbers, pending)
    assert all(len(column) == count for column in told.values())
    return told


def _numbers(found: RequestEvidence, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the number of each end; -1 where several namespaces have the same addresses."""
    numbers = found.numbers.find(keys)
    _, which, many = np.unique(keys, return_inverse=True, return_counts=True)
    return np.where(many[which] > 1, -1, numbers)


def _took(waits: Waits, numbers: NDArray[np.intp], side: int, trip: Numbers) -> Answers:
    found, short = waits.of(side, numbers)
    nothing = np.zeros(len(found), np.int64)
    return answers(len(numbers), short, found, nothing, trip * (side == ASKED))


def _texts(name: str, numbers: NDArray[np.intp], slowest: dict[int, Asked]) -> Facts:
    """Return what the slowest request was."""
    texts = np.full(len(numbers), "", object)
    for place in _places(numbers, slowest):
        one = slowest[int(numbers[place])]
        by = f" by {one.server_name}" if name == "asked" and one.server else ""
        texts[place] = f"{one.what}{by}"
    return {f"{name}_slowest": texts}


def _due(
    name: str,
    numbers: NDArray[np.intp],
    known: NDArray[np.bool_],
    pending: dict[int, list[Asked]],
) -> Facts:
    """Return since when a response has been due, us: nan where requests do not tell."""
    ages = np.where(known, 0.0, np.nan)
    texts, readers = np.full(len(numbers), "", object), np.full(len(numbers), "", object)
    for place in _places(numbers, pending):
        oldest, *more = pending[int(numbers[place])]
        ages[place] = (oldest.done_ns - oldest.begun_ns) / 1000
        texts[place] = oldest.what + (f" (and {len(more)} more)" if more else "")
        readers[place] = _reader(oldest)
    return {f"{name}_due_us": ages, f"{name}_due": texts, f"{name}_reader": readers}


def _reader(one: Asked) -> str:
    if not one.server:
        return ""
    return (
        f"and read by {one.server_name}"
        if one.waiting_for == "response"
        else (f"but not read by {one.server_name}")
    )


def _places(numbers: NDArray[np.intp], which: dict[int, Any]) -> list[int]:
    return np.flatnonzero((numbers >= 0) & np.isin(numbers, [*which])).tolist()


def _meanwhile(
    found: RequestEvidence, numbers: NDArray[np.intp], pending: Pending
) -> NDArray[np.object_]:
    """Return what the process that served a slow request asked others for meanwhile."""
    texts = np.full(len(numbers), "", object)
    served = found.slowest[SERVED] | {
        number: those[0] for number, those in pending.by_number[SERVED].items()
    }
    places = _places(numbers, served)
    places.sort(key=lambda place: -_span(served[int(numbers[place])]))
    others = [*found.slow, *pending.requests]
    for place in places[:MEANWHILE_MAX]:
        one = meanwhile(served[int(numbers[place])], others)
        if one:
            waited = duration((one.done_ns - one.begun_ns) / 1000)
            texts[place] = f"meanwhile it waited {waited} for {one.at} ({one.what})"
    return texts


def _span(one: Asked) -> int:
    return one.done_ns - one.begun_ns
