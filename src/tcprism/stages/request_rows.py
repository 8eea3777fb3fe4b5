"""Records of requests: the moments of an exchange, and the parts of its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tcprism.events import Part, requests
from tcprism.events._wire import EVENT, MICROSECONDS_UNKNOWN
from tcprism.events.column import texts
from tcprism.events.escape import escape_text
from tcprism.events.kinds import NUMBERS, RECORDS
from tcprism.events.requests import SPLIT, STATES, UNKNOWN_BYTES, UNKNOWN_NS, VIEWS
from tcprism.protocols import Exchange
from tcprism.stages.timeline import Timeline

if TYPE_CHECKING:
    from tcprism.stages.requests import Connection, View

_SEQ = 1 << 32
_BY_SERVER, _BY_CLIENT = 1, 2  # server_source
_PARTS = tuple(f"{name}_ns" for name in SPLIT)


class Moments(NamedTuple):
    """When what happened to a request, CLOCK_MONOTONIC, nanoseconds; None: unknown."""

    begun: int | None = None  # its first byte was written
    written: int | None = None  # its last
    left: int | None = None
    arrived: int | None = None  # at the server
    taken: int | None = None  # read there to the end
    responded: int | None = None  # the response's first byte was written
    back: int | None = None  # it arrived at the client
    read: int | None = None
    done: int | None = None  # its last byte was read, or written if the client is not seen


def moments(
    exchange: Exchange, request: Timeline, response: Timeline, client: bool, server: bool
) -> Moments:
    """Return when what happened to a request, as far as its ends were seen."""
    begin, last = exchange.begin, (exchange.end or exchange.begin + 1) - 1
    begun = written = left = arrived = taken = responded = back = read = done = None
    if client and (mark := request.written.of(begin)):
        begun = mark[1]
        if mark := request.written.of(last):
            written = mark[0]
            if (gone := request.left.of(last)) and gone[0] != MICROSECONDS_UNKNOWN:
                left = written + gone[0] * 1000
    if server:
        if not client and (mark := request.read.of(begin)):
            begun = _arrival(mark) or mark[0]
        if mark := request.read.of(last):
            taken, arrived = mark[0], _arrival(mark)
    if exchange.response_begin is not None:
        first, end = exchange.response_begin, exchange.response_end
        if server and (mark := response.written.of(first)):
            responded = mark[1]
        if client and (mark := response.read.of(first)):
            read, back = mark[0], _arrival(mark)
        if end is not None and (
            mark := (response.read if client else response.written).of(max(first, end - 1))
        ):
            done = mark[0]
    return Moments(begun, written, left, arrived, taken, responded, back, read, done)


def _arrival(mark: tuple[int, int]) -> int | None:
    """Return when bytes arrived that were read, if how long they waited is known."""
    read, unread_us = mark
    return None if unread_us == MICROSECONDS_UNKNOWN else read - unread_us * 1000


def split(at: Moments, server: bool) -> tuple[dict[str, int], int]:
    """Return the parts of a request's time, nanoseconds, and how the server's is known.

    They add up to its duration. Moments of several processors are brought into order, since clocks
    and calls overlap a little.
    """
    if at.begun is None or at.done is None:
        return {}, 0
    parts = dict.fromkeys(_PARTS, UNKNOWN_NS)
    reached = at.begun
    transfer = 0

    def until(moment: int | None, part: str) -> None:
        nonlocal reached, transfer
        if moment is None:
            return
        moment = min(max(moment, reached), at.done)  # type: ignore[type-var]
        if part == "transfer":
            transfer += moment - reached
        else:
            parts[f"{part}_ns"] = moment - reached
        reached = moment

    until(at.written, "transfer")
    until(at.left, "send_queue")
    source = 0
    if server:
        if at.arrived is not None:
            until(at.arrived, "network_there" if at.written is not None else "transfer")
        if at.written is not None or at.arrived is None:
            until(at.taken, "server_queue" if at.arrived is not None else "network_there")
        else:
            until(at.taken, "server_queue")
        until(at.responded, "server")
        source = _BY_SERVER if at.taken is not None and at.responded is not None else 0
        until(at.back, "network_back")
        until(at.read, "unread" if at.back is not None else "network_back")
    else:
        until(at.back if at.back is not None else at.read, "server")
        source = _BY_CLIENT
        if at.back is not None:
            until(at.read, "unread")
    until(at.done, "transfer")
    parts["transfer_ns"] = transfer
    return parts, source


class Answered(NamedTuple):
    """An exchange that has ended, with all that was seen of it."""

    head: bytes
    is_client: bool  # whether the head is of the client's end
    exchange: Exchange
    fields: dict[str, Any]
    causes: str

    @classmethod
    def of(cls, connection: Connection, exchange: Exchange) -> Answered:
        """Gather what is known of an exchange."""
        side = connection.conversation.client
        client, server = connection.views[side], connection.views[1 - side]
        request, response = connection.timelines[side], connection.timelines[1 - side]
        at = moments(exchange, request, response, client is not None, server is not None)
        parts, source = split(at, server is not None)
        wait, count, causes = _waits(exchange, request, response, at)
        done = at.done if at.done is not None else _last(at)
        fields: dict[str, Any] = {
            "ts_ns": done,
            "seq": exchange.begin % _SEQ,
            "start_ts_ns": at.begun if at.begun is not None else done,
            "request_ns": at.done - at.begun if parts else UNKNOWN_NS,  # type: ignore[operator]
            **parts,
            "server_source": source if parts else 0,
            "retransmission_wait_ns": wait if parts else UNKNOWN_NS,
            "retransmissions": count,
            "request_bytes": _length(exchange.begin, exchange.end),
            "response_bytes": _length(exchange.response_begin, exchange.response_end),
            "response_seq": (exchange.response_begin or 0) % _SEQ,
            "server_pid": server.pid if server else 0,
            "server_comm": _comm(server),
            "protocol": exchange.protocol.encode(),
            "request_state": STATES.index(_state(exchange, at)),
            "view": VIEWS.index("both" if client and server else "client" if client else "server"),
            "failed": exchange.failed,
        }
        request.forget(exchange.begin)
        response.forget(exchange.response_begin or 0)
        seen = client or server
        return cls(seen.head if seen else b"", client is not None, exchange, fields, causes)


def _state(exchange: Exchange, at: Moments) -> str:
    if not exchange.answered:
        return "no response"
    if exchange.gap:
        return "gap"
    if exchange.response_begin is None:
        return "pending"
    return "complete" if at.done is not None else "partial"


def _last(at: Moments) -> int:
    return max((moment for moment in at if moment is not None), default=0)


def _length(begin: int | None, end: int | None) -> int:
    return UNKNOWN_BYTES if begin is None or end is None else end - begin


def _comm(view: View | None) -> bytes:
    return _COMM(np.frombuffer(view.head, EVENT)) if view else b""


def _COMM(record: np.ndarray[Any, Any]) -> bytes:
    comm: bytes = record["comm"][0].split(b"\0")[0]
    return comm


def _waits(
    exchange: Exchange, request: Timeline, response: Timeline, at: Moments
) -> tuple[int, int, str]:
    """Return how long an exchange waited to be sent again, how many segments, and why."""
    if not request.repeats and not response.repeats:
        return 0, 0, ""
    never = 1 << 63
    done = at.done if at.done is not None else never
    there, first = request.waits(
        exchange.begin,
        exchange.end or exchange.begin + 1,
        at.begun or 0,
        at.taken or at.back or at.read or done,
    )
    back, then = 0, first[:0]
    if exchange.response_begin is not None:
        end = exchange.response_end or exchange.response_begin + 1
        back, then = response.waits(exchange.response_begin, end, at.responded or 0, done)
    repeats = [*first, *then]
    causes = ", ".join(dict.fromkeys(repeat.cause for repeat in repeats))
    return there + back, len(repeats), causes


def request_part(answered: Sequence[Answered], parts: Iterable[Part]) -> Part:
    """Return records of requests; names are looked up in the context of the messages' parts."""
    rows = np.zeros(len(answered), RECORDS["request"])
    heads = np.frombuffer(b"".join(one.head for one in answered), EVENT)
    ours = np.array([one.is_client for one in answered])
    for name in EVENT.names or ():
        rows[name] = heads[name]
    for here, there in (("local_ip", "remote_ip"), ("local_port", "remote_port")):
        rows[here] = np.where(_wide(ours, heads[here]), heads[here], heads[there])
        rows[there] = np.where(_wide(ours, heads[here]), heads[there], heads[here])
    for name in ("pid", "tid", "uid", "cgroup_id", "owner_source"):
        rows[name][~ours] = 0
    rows["comm"][~ours] = b""
    rows["kind"] = NUMBERS["request"]
    rows["error"], rows["flags"] = 0, 0
    for name in answered[0].fields.keys() | set(_PARTS):
        rows[name] = [one.fields.get(name, UNKNOWN_NS) for one in answered]
    sizes = rows["request_bytes"], rows["response_bytes"]
    known = [np.where(size == UNKNOWN_BYTES, 0, size) for size in sizes]
    rows["bytes"] = np.minimum(known[0] + known[1], 2**32 - 1)
    context = next((part.context for part in parts), None)
    derived = {
        "method": [one.exchange.method for one in answered],
        "resource": [one.exchange.resource for one in answered],
        "status": [one.exchange.status for one in answered],
        "retransmission_causes": [one.causes for one in answered],
    }
    made = Part(rows, derived={name: _texts(values) for name, values in derived.items()})
    return made if context is None else Part(rows, None, made.derived, context)


def _wide(mask: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return mask.reshape(-1, *(1 for _ in like.shape[1:]))


def _texts(values: list[str]) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.MaskedArray(texts(list(map(escape_text, values))), [not text for text in values])


__all__ = ["Answered", "Moments", "moments", "request_part", "requests", "split"]
