"""Records of requests: the moments of an exchange, and the parts of its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tcprism.events import Part
from tcprism.events._wire import EVENT, MICROSECONDS_UNKNOWN
from tcprism.events.column import texts
from tcprism.events.escape import escape_text
from tcprism.events.kinds import NUMBERS, RECORDS
from tcprism.events.requests import SPLIT, STATES, UNKNOWN_BYTES, UNKNOWN_NS, VIEWS
from tcprism.protocols import Exchange
from tcprism.stages.ends import Connection, View
from tcprism.stages.timeline import Repeat, Timeline

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
    seen: dict[str, int | None] = {}
    if exchange.begin is None:
        seen = _unasked(exchange.response_begin or 0, response)
    else:
        if server:
            seen |= _at_server(exchange, exchange.begin, request, response)
        if client:
            seen |= _at_client(exchange, exchange.begin, request, response)
    end = exchange.response_end
    if exchange.response_begin is not None and end is not None:
        marks = response.read if client else response.written
        if mark := marks.of(max(exchange.response_begin, end - 1)):
            seen["done"] = mark[0]
    return Moments(**seen)


def _at_client(
    exchange: Exchange, begin: int, request: Timeline, response: Timeline
) -> dict[str, int | None]:
    seen: dict[str, int | None] = {}
    last = _last_byte(begin, exchange.end)
    if first := request.written.of(begin):
        seen["begun"] = first[1]
    if written := request.written.of(last):
        seen["written"] = written[0]
        left = request.left.of(last)
        if left and left[0] != MICROSECONDS_UNKNOWN:
            seen["left"] = written[0] + left[0] * 1000
    if exchange.response_begin is not None and (mark := response.read.of(exchange.response_begin)):
        seen |= {"read": mark[0], "back": _arrival(mark)}
    return seen


def _at_server(
    exchange: Exchange, begin: int, request: Timeline, response: Timeline
) -> dict[str, int | None]:
    seen: dict[str, int | None] = {}
    if first := request.read.of(begin):
        arrival = _arrival(first)
        seen["begun"] = first[0] if arrival is None else arrival
    if taken := request.read.of(_last_byte(begin, exchange.end)):
        seen |= {"taken": taken[0], "arrived": _arrival(taken)}
    if exchange.response_begin is not None and (
        mark := response.written.of(exchange.response_begin)
    ):
        seen["responded"] = mark[1]
    return seen


def _unasked(begin: int, response: Timeline) -> dict[str, int | None]:
    """Return when a server sent what nobody had asked for, or when it arrived if that is all."""
    seen: dict[str, int | None] = {}
    if read := response.read.of(begin):
        seen = {"read": read[0], "back": _arrival(read)}
        seen["begun"] = read[0] if seen["back"] is None else seen["back"]
    if written := response.written.of(begin):
        seen["begun"] = written[1]
    return seen


def _last_byte(begin: int, end: int | None) -> int:
    return (end or begin + 1) - 1


def _arrival(mark: tuple[int, int]) -> int | None:
    """Return when bytes arrived that were read, if how long they waited is known."""
    read, unread_us = mark
    return None if unread_us == MICROSECONDS_UNKNOWN else read - unread_us * 1000


class _Split:
    """Parts of a request's time, as a moment after the other is reached."""

    def __init__(self, begun: int, done: int) -> None:
        self.parts = dict.fromkeys(_PARTS, UNKNOWN_NS)
        self.parts["transfer_ns"] = 0
        self._reached, self._done = begun, done

    def until(self, moment: int | None, part: str) -> None:
        """Say which part of the time the span to a moment is; None: it is not known."""
        if moment is None:
            return
        # Clocks of several processors, and calls, overlap a little.
        moment = min(max(moment, self._reached), self._done)
        before = self.parts[f"{part}_ns"] if part == "transfer" else 0
        self.parts[f"{part}_ns"] = before + moment - self._reached
        self._reached = moment


def split(at: Moments, server: bool) -> tuple[dict[str, int], int]:
    """Return the parts of a request's time, nanoseconds, and how the server's is known.

    They add up to its duration. `server`: whether the server's end was seen.
    """
    if at.begun is None or at.done is None:
        return {}, 0
    spans = _Split(at.begun, at.done)
    spans.until(at.written, "transfer")
    spans.until(at.left, "send_queue")
    source = 0
    if server:
        spans.until(at.arrived, "transfer" if at.written is None else "network_there")
        spans.until(at.taken, "network_there" if at.arrived is None else "server_queue")
        spans.until(at.responded, "server")
        source = 0 if at.taken is None or at.responded is None else _BY_SERVER
        spans.until(at.back, "network_back")
        spans.until(at.read, "network_back" if at.back is None else "unread")
    elif at.read is not None:
        spans.until(at.read if at.back is None else at.back, "server")
        source = _BY_CLIENT
        spans.until(at.read, "unread")
    spans.until(at.done, "transfer")
    return spans.parts, source


class Answered(NamedTuple):
    """An exchange that has ended, with all that was seen of it."""

    head: bytes
    is_client: bool  # whether the head is of the client's end
    exchange: Exchange
    fields: dict[str, Any]
    causes: str


def answered(connection: Connection, exchange: Exchange) -> Answered:
    """Gather what is known of an exchange."""
    side = connection.conversation.client
    client, server = connection.views[side], connection.views[1 - side]
    request, response = connection.timelines[side], connection.timelines[1 - side]
    at = moments(exchange, request, response, client is not None, server is not None)
    parts, source = split(at, server is not None)
    begin = exchange.begin
    if begin is None and parts:
        parts["server_ns"], source = UNKNOWN_NS, 0
    wait, count, causes = _waits(exchange, request, response, at)
    done = _last(at) if at.done is None else at.done
    fields: dict[str, Any] = {
        "ts_ns": done,
        "seq": (begin or exchange.response_begin or 0) % _SEQ,
        "start_ts_ns": done if at.begun is None else at.begun,
        "request_ns": sum(part for part in parts.values() if part != UNKNOWN_NS)
        if parts
        else UNKNOWN_NS,
        **parts,
        "server_source": source,
        "retransmission_wait_ns": wait if parts else UNKNOWN_NS,
        "retransmissions": count,
        "request_bytes": _length(exchange.request_bytes, begin, exchange.end),
        "response_bytes": _length(
            exchange.response_bytes, exchange.response_begin, exchange.response_end
        ),
        "response_seq": (exchange.response_begin or 0) % _SEQ,
        "server_pid": server.pid if server else 0,
        "server_comm": _comm(server),
        "protocol": exchange.protocol.encode(),
        "request_state": STATES.index(_state(exchange, at)),
        "view": VIEWS.index(_view(client, server)),
        "failed": exchange.failed,
    }
    if request.crowded or response.crowded:
        _forget(connection, exchange, request, response)
    seen = client or server
    return Answered(seen.head if seen else b"", client is not None, exchange, fields, causes)


def _view(client: View | None, server: View | None) -> str:
    if client and server:
        return "both"
    return "client" if client else "server"


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


def _length(told: int | None, begin: int | None, end: int | None) -> int:
    if told is not None:
        return told if told >= 0 else UNKNOWN_BYTES
    return UNKNOWN_BYTES if begin is None or end is None else end - begin


def _forget(
    connection: Connection, exchange: Exchange, request: Timeline, response: Timeline
) -> None:
    """Forget what no exchange needs any more: others may have begun before this one ends."""
    talk = connection.conversation
    left = (exchange, *connection.finished, *talk.done, *talk.pending())
    begins = [one.begin for one in left if one.begin is not None]
    responses = [one.response_begin for one in left if one.response_begin is not None]
    if begins:
        request.forget(min(begins))
    if responses:
        response.forget(min(responses))


def _comm(view: View | None) -> bytes:
    if not view:
        return b""
    comm: bytes = np.frombuffer(view.head, EVENT)["comm"][0]
    return comm


def _waits(
    exchange: Exchange, request: Timeline, response: Timeline, at: Moments
) -> tuple[int, int, str]:
    """Return how long an exchange waited to be sent again, how many segments, and why."""
    if not request.repeats and not response.repeats:
        return 0, 0, ""
    never = 1 << 63
    done = at.done if at.done is not None else never
    there = 0
    first: list[Repeat] = []
    if exchange.begin is not None:
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
