"""Answers: which of two ends asks, and how long an answer has been due."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcprism.diagnosis.delta import (
    ESTABLISHED,
    LISTEN,
    Delta,
    Flags,
    Numbers,
    Rows,
    microseconds,
    ratio,
)
from tcprism.diagnosis.ends import port_keys
from tcprism.diagnosis.measures import (
    FIRST_SEGMENTS,
    LEAST_ANSWERS,
    LONG_US,
    MOST,
    SLOW_US,
    enough,
)


def asks(change: Delta) -> Flags:
    """Tell which ends ask and which answer; without better knowledge the higher port asks."""
    known = change.facts.get("asks")
    if known is not None:
        return known
    rows = change.after
    listening = rows["state"] == LISTEN
    higher: Flags = rows["local_port"] > rows["remote_port"]
    return higher & ~np.isin(port_keys(rows), port_keys(rows[listening]))


def last_word_us(rows: Rows) -> tuple[Numbers, Numbers]:
    """Return how long ago this end had the last word, and the peer; 0 for who had not, us."""
    sent, came = (rows[f"last_data_{way}_us"].astype(np.float64) for way in ("sent", "recv"))
    never_sent, never_came = rows["data_segs_out"] == 0, rows["data_segs_in"] == 0
    mine = ~never_sent & (never_came | (sent < came))
    theirs = ~never_came & (never_sent | (came < sent))
    return np.where(mine, sent, 0), np.where(theirs, came, 0)


def due_us(change: Delta, side: str) -> Numbers:
    """Return for how long an answer has been due, microseconds; 0 where none may be.

    All that was sent was acknowledged, all that came was read, and both ends are there. Who goes
    on sending without an answer asks for none, and of a connection on which none has ever come
    that is only told where it sent no more than a request. Where requests are read, they tell.
    """
    rows = change.after
    way, out, back = ("sent", "out", "received") if side == "asked" else ("received", "in", "sent")
    age = change.facts.get(f"{side}_pending_us")
    if age is None and side == "served":  # whether an answer is due, only messages tell
        return np.zeros(len(change))
    if age is None:
        age = last_word_us(rows)[side != "asked"]
    quiet = (rows["unsent"] == 0) & (rows["unacked"] == 0) & (rows["unread"] == 0)
    quiet &= rows["state"] == ESTABLISHED
    first = rows[f"data_segs_{out}"] <= FIRST_SEGMENTS
    seen = change.before[f"data_segs_{out}"] == 0
    request = (rows[f"bytes_{back}"] > 1) | first | seen
    request &= (rows[f"bytes_{way}"] > 0) & (change.fact(f"{side}_alone") == 0)
    own = asks(change) if side == "asked" else ~asks(change)
    due = np.where(quiet & request & own, age, 0)
    requests = change.facts.get(f"{side}_due_us")
    if requests is None:
        return due
    return np.where(np.isnan(requests), due, np.where(quiet, requests, 0))


def waited(change: Delta, side: str) -> Numbers:
    """Share of the time in which an answer was due, what is due now with its age."""
    total = change.fact(f"{side}_total_us") + np.minimum(
        due_us(change, side), np.nan_to_num(change.elapsed_us)
    )
    own = asks(change) if side == "asked" else ~asks(change)
    return np.where(own, ratio(total, change.elapsed_us).clip(0, 1), 0)


def share(side: str) -> Callable[[Delta], Numbers]:
    """Return the measure of what one side waited, as a rule wants it."""
    return lambda change: waited(change, side)


def slow(side: str) -> Callable[[Delta], Flags]:
    """Return what proves that answers are slow: most of the time, or one long one."""

    def proves(change: Delta) -> Flags:
        pending, share = due_us(change, side), waited(change, side)
        typical = np.maximum(SLOW_US, np.nan_to_num(microseconds(change.after, "srtt_us")))
        many = change.fact(f"{side}_count") >= LEAST_ANSWERS
        often = many & (share >= MOST) & (change.fact(f"{side}_median_us") >= typical)
        once = np.maximum(pending, change.fact(f"{side}_longest_us")) >= LONG_US
        proven: Flags = (share > 0) & (once | (often & enough(change)))
        return proven

    return proves


def unaccepted(change: Delta) -> Numbers:
    """1 where the peer's end is still in an accept queue of this host."""
    known = change.facts.get("queued_at")
    queued = np.zeros(len(change), np.bool_) if known is None else known != ""
    return queued.astype(np.float64)
