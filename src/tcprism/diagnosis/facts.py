"""Facts: what events add to the counters of each connection, as columns that rules can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.answers import last_word_us
from tcprism.diagnosis.connections import owners
from tcprism.diagnosis.delta import LISTEN, Delta, Numbers, Rows, microseconds
from tcprism.diagnosis.ends import ends_keys, other_end_keys, own_keys, port_keys
from tcprism.diagnosis.evidence import ACCEPTED, CONNECTED, Evidence, Grouped
from tcprism.diagnosis.lost import Lost, causes_text, lost_of, overlap, waiting
from tcprism.diagnosis.request_facts import SIDES, Pending, request_facts
from tcprism.diagnosis.waits import ASKED, answers
from tcprism.events import Part
from tcprism.events._wire import EventKind

Facts = dict[str, NDArray[Any]]


def with_facts(
    change: Delta,
    found: Evidence,
    machine: Part,
    cpu_us: Mapping[int, int] | None = None,
    pending: Pending | None = None,
    segments: bool = True,
) -> Delta:
    """Return the change with what events tell of each connection.

    `machine` has the records of all sockets of the host, as far as they are known.
    `cpu_us` is how long processes ran during the watch, `pending` the requests without a response
    at its end. `segments` tells whether none is missing: else nothing is told of them.
    """
    rows = change.after
    numbers = found.numbers.find(own_keys(rows))
    lost = _losses(change, found)
    facts: Facts = {"asks": asks(rows, machine.rows, found.opened(numbers)[0])}
    facts |= _loss_facts(change, lost)
    facts |= _opening(found, numbers, rows, lost)
    facts |= _answer_facts(change, found, numbers, lost)
    facts |= _queued(rows, machine)
    if segments:
        facts |= found.segments.facts(numbers, rows["ts_ns"].astype(np.int64))
    if pending is not None:
        facts |= request_facts(change, found.requests, facts, pending)
    ran = cpu_us or {}
    facts["cpu_us"] = np.array([ran.get(pid, np.nan) for pid in rows["pid"].tolist()], np.float64)
    return replace(change, facts=facts)


def asks(rows: Rows, machine: Rows, how: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which connections' ends are the ones who ask.

    That is who connected, where that was seen, or whose port nobody listens on; else the higher
    port, which is rarely a server's.
    """
    listening = np.unique(port_keys(machine[machine["state"] == LISTEN]))
    serves = np.isin(port_keys(rows), listening)
    higher = rows["local_port"] > rows["remote_port"]
    answer: NDArray[np.bool_] = np.where(how == 0, higher, how == CONNECTED) & ~serves
    answer &= how != ACCEPTED
    return answer


def _losses(change: Delta, found: Evidence) -> dict[int, Lost]:
    """Return the losses of each connection that has any, by its place."""
    losses = found.losses()
    if not len(losses):
        return {}
    rows = change.after
    by_own, by_ends = Grouped(losses, losses["own"]), Grouped(losses, losses["ends"])
    own, others = own_keys(rows), other_end_keys(rows)
    guilty = np.flatnonzero(by_own.has(own) | by_ends.has(others))
    dsack = change.delta("dsack_dups")
    return {
        place: lost_of(
            by_own.of(int(own[place])),
            by_ends.of(int(others[place])),
            found.reasons,
            int(dsack[place]),
            int(rows["mss"][place]),
        )
        for place in guilty.tolist()
    }


def _loss_facts(change: Delta, lost: dict[int, Lost]) -> Facts:
    count, ends = len(change), change.after["ts_ns"].astype(np.int64)
    starts = ends - np.nan_to_num(change.elapsed_us * 1000).astype(np.int64)
    in_vain, stalled = np.zeros(count), np.zeros(count)
    where, causes = np.full(count, "", object), np.full(count, "", object)
    for place, one in lost.items():
        in_vain[place] = one.in_vain
        if len(one.timed):
            watched = starts[place : place + 1], ends[place : place + 1]
            stalled[place] = overlap(one.timed, *watched)[0] / 1000
        where[place], causes[place] = where_lost(one), _causes(one)
    return {"in_vain": in_vain, "stalled_us": stalled, "where": where, "causes": causes}


def where_lost(lost: Lost) -> str:
    """Say whether segments were lost on this host, and why they were retransmitted."""
    causes = lost.why()
    because = f" (retransmitted: {causes})" if causes else ""
    if not lost.drops:
        return f"this host dropped none that was seen: they were lost out there{because}"
    reasons = causes_text(lost.drops.most_common(3))
    return f"this host dropped {lost.drops.total()}: {reasons}{because}"


def _causes(lost: Lost) -> str:
    ends = [lost.why()] if lost.again else []
    ends += [f"{lost.theirs} by the peer"] if lost.theirs else []
    return ", ".join(ends)


def _opening(
    found: Evidence, numbers: NDArray[np.intp], rows: Rows, lost: dict[int, Lost]
) -> Facts:
    _, connect_us = found.opened(numbers)
    syns = np.zeros(len(rows))
    for place, one in lost.items():
        syns[place] = one.again["syn"] + one.again["syn-ack"]
    accepts = np.array([found.accepts[key] for key in port_keys(rows).tolist()], np.float64)
    return {"connect_us": connect_us, "syns_again": syns, "accepts": accepts}


def _answer_facts(
    change: Delta, found: Evidence, numbers: NDArray[np.intp], lost: dict[int, Lost]
) -> Facts:
    """Return the columns of both sides: what this end waited for, and what it worked on."""
    rows, count = change.after, len(change)
    known = (numbers >= 0) & (numbers < len(found.waits.state))
    state = np.zeros(count, found.waits.state.dtype)
    state[known] = found.waits.state[numbers[known]]
    ages = _ages(rows, state)
    trip = np.nan_to_num(microseconds(rows, "srtt_us"))
    facts: Facts = {}
    for side, name in SIDES:
        waits, short = found.waits.of(side, numbers)
        stalled = np.zeros(len(waits), np.int64)
        if side == ASKED:
            _take_out(waits, lost, stalled)
        took = answers(count, short, waits, stalled, trip * (side == ASKED))
        facts |= {f"{name}_{field}": getattr(took, field) for field in took.__slots__}
        facts[f"{name}_pending_us"] = ages[side]
        facts[f"{name}_alone"] = state["alone"][:, side].astype(np.float64)
    return facts


def _take_out(waits: NDArray[np.void], lost: dict[int, Lost], stalled: NDArray[np.int64]) -> None:
    """Note how much of each wait was one for a retransmission; waits come by connection."""
    numbers, places = np.ascontiguousarray(waits["number"]), np.array([*lost], np.intp)
    firsts, lasts = (np.searchsorted(numbers, places, side) for side in ("left", "right"))
    for one, first, last in zip(lost.values(), firsts.tolist(), lasts.tolist(), strict=True):
        these = slice(first, last)
        stalled[these] = waiting(one, waits["start"][these], waits["end"][these])


def _ages(rows: Rows, state: NDArray[np.void]) -> tuple[Numbers, Numbers]:
    """Return since when each end has waited for an answer, and since when it has owed one, us.

    Messages tell, unless the socket has since seen data that no hook has.
    """
    now = rows["ts_ns"].astype(np.int64)
    since = (now - state["ts_ns"]).clip(0) / 1000
    asked = np.where(state["kind"] == EventKind.SEND, since, 0) * (state["ts_ns"] > 0)
    served = np.where(state["kind"] == EventKind.RECV, since, 0) * (state["ts_ns"] > 0)
    unseen = state["ts_ns"] == 0
    mine, theirs = last_word_us(rows)
    asked, served = np.where(theirs > 0, 0, asked), np.where(mine > 0, 0, served)
    return np.where(unseen, mine, asked), np.where(unseen, theirs, served)


def _queued(rows: Rows, machine: Part) -> Facts:
    """Tell which connections' peers are still in the accept queue of a listener on this host.

    That is proven where the address is this namespace's own, nobody has the peer's socket open,
    and connections wait at the listener.
    """
    listeners = machine.take((machine.rows["state"] == LISTEN) & (machine.rows["backlog"] > 0))
    names = np.full(len(rows), "", object)
    if not len(listeners):
        return {"queued_at": names}
    homes = dict(zip(port_keys(listeners.rows).tolist(), owners(listeners), strict=True))
    there = rows.copy()
    there["local_port"] = rows["remote_port"]
    open_there = np.isin(other_end_keys(rows), ends_keys(machine.rows))
    own = (rows["local_ip"] == rows["remote_ip"]).all(axis=1) & ~open_there
    own &= rows["state"] != LISTEN
    for place in np.flatnonzero(own & np.isin(port_keys(there), list(homes))).tolist():
        names[place] = homes[int(port_keys(there[place : place + 1])[0])]
    return {"queued_at": names}
