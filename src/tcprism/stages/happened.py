"""What happened to the bytes of connections, read off events of several families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import (
    DURATION_UNKNOWN,
    EventKind,
    MessageFlag,
    PayloadReason,
    SegmentArrival,
    SocketSource,
)
from tcprism.events.columns import MESSAGES
from tcprism.events.connection import connection_keys

_NARROW = 1_024  # bytes
# What happened. The first two say which direction it is about, beside the end that it happened at.
WRITTEN, READ, ACKED, ARRIVED, REPEATED, CLOSED, ENCRYPTED, DECRYPTED, UNPLACED, NOTHING = range(10)
_UNSEEN = -1  # length of a payload that is not wanted: its plaintext is


def happened(parts: Sequence[Part], order: NDArray[np.intp]) -> Iterator[tuple[int, ...]]:
    """Yield what happened in an order, as _table() says, with which part and row says so."""
    tables = [_table(part) for part in parts]
    order = order[np.concatenate([what for what, *_ in tables])[order] != NOTHING]
    columns = [np.concatenate(column)[order] for column in zip(*tables, strict=True)]
    starts = np.cumsum([0, *map(len, parts)])
    places = np.searchsorted(starts, order, side="right") - 1
    told = [*columns, places, order - starts[places]]
    return zip(*(column.tolist() for column in told), strict=True)


def _table(part: Part) -> list[NDArray[Any]]:
    """Return what happened, and of which connection, bytes, when, and by whom, in columns."""
    rows = part.rows
    what, second, third = WHAT[part.family](part)
    pids = rows["pid"] if part.family in MESSAGES else np.zeros(len(rows), np.uint32)
    moments = rows["ts_ns"]
    columns = [what, connection_keys(rows), rows["seq"], rows["bytes"], moments, second, pids]
    return [column.astype(np.int64, copy=False) for column in (*columns, third)]


Columns = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def _messages(part: Part) -> Columns:
    """Tell writes and reads, with when they began or how long bytes lay unread, and payload.

    Of a read during which another thread had the socket, the place in the stream is not known.
    """
    rows = part.rows
    sends = rows["kind"] == EventKind.SEND
    durations = np.where(rows["duration_ns"] == DURATION_UNKNOWN, 0, rows["duration_ns"])
    what = np.where(sends, WRITTEN, READ)
    unplaced = (rows["flags"] & MessageFlag.SEQ_UNKNOWN) != 0
    what[unplaced] = UNPLACED
    peeks = (rows["flags"] & MessageFlag.PEEK) != 0
    what[(unplaced & (sends | (rows["bytes"] == 0))) | peeks | (rows["error"] != 0)] = NOTHING
    lengths = part.payload_lengths()
    lengths[rows["payload_unavailable"] == PayloadReason.ENCRYPTED] = _UNSEEN
    return what, np.where(sends, rows["ts_ns"] - durations, rows["unread_us"]), lengths


def _tls(part: Part) -> Columns:
    """Tell plaintext, with how many bytes of TCP carry it, if it is known which."""
    rows = part.rows
    what = np.where(rows["kind"] == EventKind.TLS_SEND, ENCRYPTED, DECRYPTED)
    what[rows["socket_source"] == SocketSource.NONE] = NOTHING
    placed = (rows["flags"] & MessageFlag.SEQ_UNKNOWN) == 0
    return what, np.where(placed, rows["encrypted_bytes"], 0), part.payload_lengths()


def _deliveries(part: Part) -> Columns:
    rows = part.rows
    return np.full(len(rows), ACKED), rows["unsent_us"], rows["unacked_us"]


# What brings nothing new.
_IN_VAIN = (
    SegmentArrival.DUPLICATE,
    SegmentArrival.OUTSIDE_WINDOW,
    SegmentArrival.CHECKSUM_ERROR,
    SegmentArrival.NO_SOCKET,
)


def _segments(part: Part) -> Columns:
    """Tell which segments that arrived brought something new, and when."""
    rows = part.rows
    what = np.where(np.isin(rows["arrival"], _IN_VAIN), NOTHING, ARRIVED)
    return what, rows["ts_ns"], np.zeros(len(rows), np.int64)


def _losses(part: Part) -> Columns:
    rows = part.rows
    repeated = (rows["kind"] == EventKind.RETRANSMIT) & (rows["error"] == 0)
    nothing = np.zeros(len(rows), np.int64)
    return np.where(repeated, REPEATED, NOTHING), nothing, nothing


def _ends(part: Part) -> Columns:
    nothing = np.zeros(len(part), np.int64)
    return np.where(part.rows["kind"] == EventKind.CLOSE, CLOSED, NOTHING), nothing, nothing


WHAT: dict[str, Callable[[Part], Columns]] = {
    "message": _messages,
    "tls": _tls,
    "delivery": _deliveries,
    "segment": _segments,
    "loss": _losses,
    "connection": _ends,
}


def relevant(part: Part) -> Part:
    """Return what of a part is looked at: of segments, those that arrived with data."""
    if part.family != "segment":
        return part
    rows = part.rows
    came = (rows["kind"] == EventKind.RECEIVE) & (rows["bytes"] > 0)
    return Part(rows).take(came)


Payloads = Callable[[int, int], "bytes | None"]


def payloads(part: Part) -> Payloads:
    """Return what gives the payload of a row; None where its plaintext is seen instead.

    Of a narrow table, one copy of all costs less than NumPy's view of each row.
    """
    bytes_of = part.payload
    if bytes_of is None or bytes_of.shape[1] > _NARROW:
        return lambda row, length: None if length < 0 else payload(part, row, length)
    width, copied = bytes_of.shape[1], bytes_of.tobytes()
    return lambda row, length: None if length < 0 else copied[row * width : row * width + length]


def payload(part: Part, row: int, length: int) -> bytes:
    """Return the first bytes of a row's payload."""
    return part.payload[row, :length].tobytes() if length and part.payload is not None else b""
