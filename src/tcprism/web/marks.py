"""Marks: the events of one connection on a time axis, each with a sentence, and its curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.request_history import concerns
from tcprism.events import Part
from tcprism.events._wire import (
    DURATION_UNKNOWN,
    WINDOW_UNKNOWN,
    WSCALE_KNOWN,
    WSCALE_SHIFT,
    EventKind,
)
from tcprism.events.columns import BY_NAME, columns_of
from tcprism.events.names import TcpFlag
from tcprism.web.sentences import sentences

MARKS_MAX = 3000
POINTS_MAX = 2000
TEXT_MAX = 2000  # characters of payload

_RARE = ("loss", "connection")  # never left out before others
_CURVES = {"srtt_us": ("segment", "loss", "snapshot"), "cwnd": ("segment", "loss", "snapshot")}
_UNSCALED = TcpFlag.SYN | TcpFlag.RST  # the window of these says nothing of the connection's

Side = NDArray[np.intp]
Points = NDArray[np.int64]


def marks(
    events: Iterable[tuple[Part, Side]],
    client: int,
    since: int,
    until: int,
    request: np.void | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Return the marks of events between two moments, at most about MARKS_MAX, in time order.

    Side 0 of a mark is the client's. With a request, marks about its bytes are `own`. The second
    result is how many events are left out.
    """
    chosen = [
        (part.take(inside), sides[inside])
        for part, sides in events
        if part.family != "snapshot" and (inside := _between(part, since, until)).any()
    ]
    total = sum(len(part) for part, _ in chosen)
    if total > MARKS_MAX:
        rare = sum(len(part) for part, _ in chosen if part.family in _RARE)
        busy = max(1, total - rare)
        step = max(1, -(-busy // max(1, MARKS_MAX - min(rare, MARKS_MAX // 2))))
        thinned = [
            _thinned(part, sides, 1 if part.family in _RARE else step) for part, sides in chosen
        ]
        chosen = [(part, sides) for part, sides in thinned if len(part)]
    found = [mark for part, sides in chosen for mark in _of_part(part, sides, client, request)]
    found.sort(key=lambda mark: mark["t"])
    found = found[:MARKS_MAX]
    return found, total - len(found)


def _between(part: Part, since: int, until: int) -> NDArray[np.bool_]:
    moments = part.rows["ts_ns"].astype(np.int64)
    inside: NDArray[np.bool_] = (moments >= since) & (moments <= until)
    return inside


def _thinned(part: Part, sides: Side, step: int) -> tuple[Part, Side]:
    return part.take(slice(None, None, step)), sides[::step]


def _of_part(
    part: Part, sides: Side, client: int, request: np.void | None
) -> Iterable[dict[str, Any]]:
    own = concerns(request, part).tolist() if request is not None else [False] * len(part)
    columns: dict[str, list[Any]] = {
        "t": part.rows["ts_ns"].tolist(),
        "kind": BY_NAME["kind"].to_list(part),
        "side": np.where(sides == client, 0, 1).tolist(),
        "bytes": part.rows["bytes"].tolist(),
        "text": sentences(part),
        "own": own,
    }
    columns |= {
        name: BY_NAME[name].to_list(part)
        for name in ("cause", "seq", "ack", "window")
        if BY_NAME[name] in columns_of(part.family)
    }
    if part.family in ("message", "tls"):
        took = part.rows["duration_ns"].astype(np.int64)
        columns["took"] = np.where(part.rows["duration_ns"] == DURATION_UNKNOWN, 0, took).tolist()
        texts = BY_NAME["payload_text"].to_list(part)
        columns["payload"] = [text and text[:TEXT_MAX] for text in texts]
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def curves(
    events: Sequence[tuple[Part, Side]], client: int, since: int, until: int
) -> dict[str, list[list[list[int]]]]:
    """Return curves of each end, the client's first: points of time and value, at most POINTS_MAX.

    They are the round-trip time (us), the congestion window (segments) and the receive window
    (bytes, RFC 7323: scaled) that an end offers; of that, what the end sent itself, else what its
    peer got.
    """
    found: dict[str, list[list[Points]]] = {name: [[], []] for name in _CURVES}
    offered: list[list[Points]] = [[], [], [], []]  # as the client and the server sent it, got it
    for part, sides in events:
        inside = _between(part, since, until)
        at_client = sides == client
        for name in (name for name, families in _CURVES.items() if part.family in families):
            known = inside & ~BY_NAME[name].mask(part)
            for side, points in _by_side(part, part.rows[name], known, at_client):
                found[name][side].append(points)
        if part.family == "segment":
            flags = part.rows["flags"]
            known = inside & (flags & WSCALE_KNOWN != 0) & (flags & _UNSCALED == 0)
            known &= part.rows["window"] != WINDOW_UNKNOWN
            scale = flags.astype(np.int64) >> WSCALE_SHIFT & 15
            bytes_offered = part.rows["window"].astype(np.int64) << scale
            for first, kind in ((0, EventKind.TRANSMIT), (2, EventKind.RECEIVE)):
                of_kind = known & (part.rows["kind"] == kind)
                for side, points in _by_side(part, bytes_offered, of_kind, at_client):
                    offered[first + side].append(points)
    sent, got = offered[:2], offered[2:]
    windows = [_curve(sent[side]) or _curve(got[1 - side]) for side in (0, 1)]
    return {name: [_curve(one) for one in both] for name, both in found.items()} | {
        "window": windows
    }


def _by_side(
    part: Part, values: NDArray[Any], known: NDArray[np.bool_], at_client: NDArray[np.bool_]
) -> Iterable[tuple[int, Points]]:
    """Yield the points of the client, 0, and of the server, 1."""
    pair = np.stack([part.rows["ts_ns"].astype(np.int64), values.astype(np.int64)], 1)
    for side in (0, 1):
        yield side, pair[known & (at_client == (side == 0))]


def _curve(found: list[Points]) -> list[list[int]]:
    if not found:
        return []
    table = np.concatenate(found)
    table = table[np.argsort(table[:, 0], kind="stable")]
    step = -(-len(table) // POINTS_MAX) or 1
    points: list[list[int]] = table[::step].tolist()
    return points
