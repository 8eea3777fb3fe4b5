"""Records of requests: the moments of an exchange, and the parts of its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import EVENT, MICROSECONDS_UNKNOWN
from tcprism.events.column import texts
from tcprism.events.escape import escape_text
from tcprism.events.kinds import NUMBERS, RECORDS
from tcprism.events.part import Rows
from tcprism.events.requests import (
    SERVER_SOURCES,
    SPLIT,
    STATES,
    UNKNOWN_BYTES,
    UNKNOWN_NS,
    VIEWS,
    WAITING_FOR,
)
from tcprism.protocols import Exchange
from tcprism.stages.ends import Connection, View
from tcprism.stages.timeline import Repeat, Timeline

_NEVER = -1
_MASK = (1 << 32) - 1
_BYTES_MAX = 2**32 - 1
# Who the process at the head is: not the client's where only the server's is seen.
_OWNER = ("pid", "tid", "uid", "cgroup_id", "owner_source", "comm")

Span = tuple[int, int]
_NOWHERE: Span = (0, 0)

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]
Table = dict[str, Times]  # of each moment, in an array


class Moments(NamedTuple):
    """When what happened to a request, CLOCK_MONOTONIC, nanoseconds; -1: unknown."""

    begun: int  # its first byte was written, or arrived at the server if the client is not seen
    written: int  # its last byte
    left: int
    arrived: int  # at the server
    taken: int  # read there to the end
    responded: int  # the response's first byte was written
    back: int  # it arrived at the client
    read: int
    done: int  # its last byte was read, or written if the client is not seen


class Answered(NamedTuple):
    """An exchange that is over, with all that was seen of it."""

    exchange: Exchange
    at: Moments
    client: View | None
    server: View | None
    ended: bool  # whether its connection has, without a response
    whole: bool  # whether all of the request was sent
    wait_ns: int
    repeats: int
    causes: str


def answered(connection: Connection, exchange: Exchange, ended: bool = False) -> Answered:
    """Gather what is known of an exchange; `ended`: its connection has ended."""
    side = connection.conversation.client
    views, timelines = connection.views, connection.timelines
    client, server = views[side], views[1 - side]
    request, response = timelines[side], timelines[1 - side]
    placed = connection.in_tcp(exchange)
    at = _moments(placed, request, response, client is not None, server is not None)
    waits = (0, 0, "")
    if request.repeats or response.repeats:
        waits = _waits(placed, request, response, at)
    shown, whole = connection.shown(exchange, placed), _is_whole(connection, exchange)
    return Answered(shown, at, client, server, ended, whole, *waits)


def _is_whole(connection: Connection, exchange: Exchange) -> bool:
    """Whether a request has been sent to its end."""
    conversation = connection.conversation
    reached = conversation.directions[conversation.client].at
    return exchange.end is not None and not 0 <= reached < exchange.end


def answered_together(connection: Connection, exchanges: Sequence[Exchange]) -> list[Answered]:
    """Gather what is known of exchanges; those written and read together share their moments."""
    if len(exchanges) == 1:
        return [answered(connection, exchanges[0])]
    side = connection.conversation.client
    request, response = connection.timelines[side], connection.timelines[1 - side]
    share = not (request.repeats or response.repeats)
    found: list[Answered] = []
    there = back = _NOWHERE
    for exchange in exchanges:
        placed = connection.in_tcp(exchange)
        if _lies(placed, there, back):
            shown, whole = connection.shown(exchange, placed), _is_whole(connection, exchange)
            found.append(found[-1]._replace(exchange=shown, whole=whole))
            continue
        found.append(answered(connection, exchange))
        first, answer = placed.begin, placed.response_begin
        if share and first is not None and answer is not None:
            there, back = request.around(first), response.around(answer)
        if not _lies(placed, there, back):  # its ends differ
            there = back = _NOWHERE
    return found


def _lies(exchange: Exchange, there: Span, back: Span) -> bool:
    """Say whether a request and its response lie between offsets."""
    first, end = exchange.begin, exchange.end
    answer, answer_end = exchange.response_begin, exchange.response_end
    if first is None or end is None or answer is None or answer_end is None:
        return False
    return there[0] <= first < end <= there[1] and back[0] <= answer < answer_end <= back[1]


def _moments(
    exchange: Exchange, request: Timeline, response: Timeline, client: bool, server: bool
) -> Moments:
    """Return when what happened to a request, as far as its ends were seen."""
    begun = written = left = arrived = taken = responded = back = read = done = _NEVER
    first, answer, end = exchange.begin, exchange.response_begin, exchange.response_end
    if first is None:
        return _unasked(answer or 0, end, response, client)
    last = (exchange.end or first + 1) - 1
    final = -1 if answer is None or end is None else max(answer, end - 1)
    if server:
        mark, last_mark = request.read.span(first, last)
        arrival = _arrival(mark)
        begun = mark[0] if arrival == _NEVER else arrival
        taken, arrived = last_mark[0], _arrival(last_mark)
        if answer is not None:
            mark, last_mark = response.written.span(answer, max(answer, final))
            responded = mark[1]
            done = _NEVER if final < 0 else last_mark[0]
    if client:
        mark, last_mark = request.written.span(first, last)
        begun, written = mark[1], last_mark[0]
        unsent = request.left.of(last)[0]
        if written != _NEVER and unsent not in (_NEVER, MICROSECONDS_UNKNOWN):
            left = written + unsent * 1000
        if answer is not None:
            mark, last_mark = response.read.span(answer, max(answer, final))
            read, back = mark[0], _arrival(mark)
            done = _NEVER if final < 0 else last_mark[0]
    return Moments(begun, written, left, arrived, taken, responded, back, read, done)


def _unasked(first: int, end: int | None, response: Timeline, client: bool) -> Moments:
    """Return when a server sent what nobody had asked for, or when it arrived if that is all."""
    read, written = response.read.of(first), response.written.of(first)
    back = _arrival(read)
    arrival = read[0] if back == _NEVER else back
    begun = arrival if written[1] == _NEVER else written[1]
    marks = response.read if client else response.written
    done = _NEVER if end is None else marks.of(max(first, end - 1))[0]
    unknown = (_NEVER,) * 4
    return Moments(begun, _NEVER, *unknown, back, read[0], done)


def _arrival(mark: tuple[int, int]) -> int:
    """Return when bytes arrived that were read, if how long they waited is known."""
    read, unread_us = mark
    if read == _NEVER or unread_us == MICROSECONDS_UNKNOWN:
        return _NEVER
    return read - unread_us * 1000


def _waits(
    exchange: Exchange, request: Timeline, response: Timeline, at: Moments
) -> tuple[int, int, str]:
    """Return how long an exchange waited to be sent again, how many segments, and why."""
    end = next((moment for moment in (at.done, 1 << 62) if moment != _NEVER), 0)
    known = [moment for moment in (at.taken, at.back, at.read, end) if moment != _NEVER]
    wait = 0
    repeats: list[Repeat] = []
    if exchange.begin is not None:
        last = exchange.end or exchange.begin + 1
        wait, repeats = request.waits(exchange.begin, last, max(at.begun, 0), known[0])
    if exchange.response_begin is not None:
        last = exchange.response_end or exchange.response_begin + 1
        back, more = response.waits(exchange.response_begin, last, max(at.responded, 0), end)
        wait, repeats = wait + back, [*repeats, *more]
    return wait, len(repeats), ", ".join(dict.fromkeys(repeat.cause for repeat in repeats))


class _Split:
    """The parts of requests' time, moment after moment; of each a row."""

    def __init__(self, begun: Times, done: Times) -> None:
        self.parts = {name: np.full(len(begun), _NEVER) for name in SPLIT}
        self.parts["transfer"][:] = 0
        self._reached, self._done = begun, done

    def until(self, moments: Times, part: str, where: Mask | None = None) -> None:
        """Say which part the time until some moments is, where they are known, in some rows.

        Clocks of several processors, and calls, overlap a little: that is put in order.
        """
        known = moments != _NEVER if where is None else where & (moments != _NEVER)
        reached = np.clip(moments, self._reached, np.maximum(self._done, self._reached))
        spans = reached - self._reached
        before = np.maximum(self.parts[part], 0)
        self.parts[part] = np.where(known, before + spans, self.parts[part])
        self._reached = np.where(known, reached, self._reached)


def _in_order(at: Table) -> Table:
    """Return moments of which none is later than what can only follow from it.

    With tracepoints a write counts from its return, before which the other end may have read.
    """
    there, back = (at["arrived"], at["taken"]), (at["back"], at["read"])
    follows = {"begun": there, "written": there, "left": there, "responded": back}
    ordered = dict(at)
    for name, proofs in follows.items():
        for proof in proofs:
            known = np.where(proof == _NEVER, ordered[name], proof)
            ordered[name] = np.minimum(ordered[name], known)
    return ordered


def split(at: Table, client: Mask, server: Mask) -> dict[str, Times]:
    """Return the parts of requests' time, nanoseconds, -1: unknown; they add up to the whole.

    `client` and `server` tell whether that end was seen.
    """
    spans = _Split(at["begun"], at["done"])
    arrives, returns = at["arrived"] != _NEVER, at["back"] != _NEVER
    spans.until(at["written"], "transfer")
    spans.until(at["left"], "send_queue")
    spans.until(at["arrived"], "network_there", client)
    spans.until(at["arrived"], "transfer", ~client)
    spans.until(at["taken"], "server_queue", arrives)
    spans.until(at["taken"], "network_there", ~arrives & client)
    spans.until(at["taken"], "transfer", ~arrives & ~client)
    spans.until(at["responded"], "server", server)
    spans.until(at["back"], "network_back", server)
    spans.until(at["back"], "server", ~server)
    spans.until(at["read"], "unread", returns)
    spans.until(at["read"], "network_back", ~returns & server)
    spans.until(at["read"], "server", ~returns & ~server)
    spans.until(at["done"], "transfer")
    whole = (at["begun"] != _NEVER) & (at["done"] != _NEVER)
    return {name: np.where(whole, part, _NEVER) for name, part in spans.parts.items()}


def request_part(found: Sequence[Answered], parts: Iterable[Part], now_ns: int = 0) -> Part:
    """Return records of requests; names are looked up in the context of the messages' parts.

    The age of what is pending is that at `now_ns`.
    """
    rows = np.zeros(len(found), RECORDS["request"])
    client = np.array([one.client is not None for one in found])
    server = np.array([one.server is not None for one in found])
    _fill_ends(rows, found, client)
    table = np.array([one.at for one in found], np.int64).T
    at = _in_order(dict(zip(Moments._fields, table, strict=True)))
    _fill_times(rows, at, client, server)
    exchanges = [one.exchange for one in found]
    _fill_exchanges(rows, exchanges)
    unasked = np.array([one.begin is None for one in exchanges])
    rows["server_ns"][unasked], rows["server_source"][unasked] = UNKNOWN_NS, 0
    rows["retransmission_wait_ns"] = [one.wait_ns for one in found]
    rows["retransmission_wait_ns"][rows["request_ns"] == UNKNOWN_NS] = UNKNOWN_NS
    rows["retransmissions"] = [one.repeats for one in found]
    rows["request_state"] = _states(found, at)
    waits = rows["request_state"] == STATES.index("pending")
    _fill_ages(rows, at["begun"], waits & (at["begun"] != _NEVER), now_ns)
    repeated = rows["retransmissions"] > 0
    whole = np.array([one.whole for one in found])
    rows["waiting_for"] = np.where(waits, _waiting_for(at, server, repeated, whole), 0)
    rows["view"] = np.where(
        client & server, VIEWS.index("both"), np.where(client, VIEWS.index("client"), 3)
    )
    context = next((part.context for part in parts), None)
    derived = {
        "method": [one.exchange.method for one in found],
        "resource": [one.exchange.resource for one in found],
        "status": [one.exchange.status for one in found],
        "retransmission_causes": [one.causes for one in found],
    }
    made = Part(rows, derived={name: _texts(values) for name, values in derived.items()})
    return made if context is None else Part(rows, None, made.derived, context)


def _fill_ends(rows: Rows, found: Sequence[Answered], client: Mask) -> None:
    """Fill in both ends, the client's as local."""
    heads = [(one.client or one.server).head for one in found]  # type: ignore[union-attr]
    head = np.frombuffer(b"".join(heads), EVENT)
    for name in EVENT.names or ():
        rows[name] = head[name]
    other = np.flatnonzero(~client)
    for here, there in (("local_ip", "remote_ip"), ("local_port", "remote_port")):
        rows[here][other], rows[there][other] = head[there][other], head[here][other]
    for name in _OWNER:
        rows[name][other] = 0 if name != "comm" else b""
    rows["kind"] = NUMBERS["request"]
    rows["error"], rows["flags"] = 0, 0
    servers = [one.server for one in found]
    rows["server_pid"] = [server.pid if server else 0 for server in servers]
    blank = bytes(EVENT.itemsize)
    ends = np.frombuffer(b"".join(server.head if server else blank for server in servers), EVENT)
    rows["server_comm"] = ends["comm"]


def _fill_times(rows: Rows, at: Table, client: Mask, server: Mask) -> None:
    begun, done = at["begun"], at["done"]
    latest = np.max(list(at.values()), axis=0)
    rows["ts_ns"] = np.where(done == _NEVER, np.maximum(latest, 0), done)
    rows["start_ts_ns"] = np.where(begun == _NEVER, rows["ts_ns"], begun)
    parts = split(at, client, server)
    for name, part in parts.items():
        rows[f"{name}_ns"] = np.where(part == _NEVER, UNKNOWN_NS, part.astype(np.uint64))
    whole = (begun != _NEVER) & (done != _NEVER)
    took = np.maximum(done - begun, 0).astype(np.uint64)
    rows["request_ns"] = np.where(whole, took, UNKNOWN_NS)
    known = rows["server_ns"] != UNKNOWN_NS
    rows["server_source"] = known * np.where(
        server, SERVER_SOURCES.index("server"), SERVER_SOURCES.index("client")
    )


def _fill_exchanges(rows: Rows, exchanges: Sequence[Exchange]) -> None:
    rows["protocol"] = [one.protocol.encode() for one in exchanges]
    rows["failed"] = [one.failed for one in exchanges]
    firsts = [one.response_begin if one.begin is None else one.begin for one in exchanges]
    rows["seq"] = [(first or 0) & _MASK for first in firsts]
    rows["response_seq"] = [(one.response_begin or 0) & _MASK for one in exchanges]
    sizes = {
        "request_bytes": [_size(one.request_bytes, one.begin, one.end) for one in exchanges],
        "response_bytes": [
            _size(one.response_bytes, one.response_begin, one.response_end) for one in exchanges
        ],
    }
    total = np.zeros(len(rows), np.int64)
    for name, values in sizes.items():
        size = np.array(values, np.int64)
        rows[name] = np.where(size == _NEVER, UNKNOWN_BYTES, size.astype(np.uint64))
        total += np.maximum(size, 0)
    rows["bytes"] = np.minimum(total, _BYTES_MAX)


def _size(told: int | None, begin: int | None, end: int | None) -> int:
    if told is not None:
        return max(told, _NEVER)
    return _NEVER if begin is None or end is None else end - begin


def _fill_ages(rows: Rows, begun: Times, which: Mask, now_ns: int) -> None:
    rows["ts_ns"][which] = np.maximum(rows["ts_ns"][which], now_ns)
    rows["request_ns"][which] = rows["ts_ns"][which] - begun[which].astype(np.uint64)


def _states(found: Sequence[Answered], at: Table) -> list[int]:
    names = (
        "no response"
        if not one.exchange.answered
        else "gap"
        if one.exchange.gap
        else "pending"
        if one.exchange.response_begin is None and not one.ended
        else "partial"
        if done == _NEVER
        else "complete"
        for one, done in zip(found, at["done"].tolist(), strict=True)
    )
    return [STATES.index(name) for name in names]


def _waiting_for(at: Table, server: Mask, repeated: Mask, whole: Mask) -> NDArray[np.intp]:
    """Return what pending requests wait for, as far as that is proven.

    That an acknowledgement was not noted proves nothing: some hooks note the last one when the next
    segment comes.
    """
    response, rest = map(WAITING_FOR.index, ("response", "the client to send the rest"))
    there = np.where(server, WAITING_FOR.index("the server to read it"), response)
    lost = np.where(repeated, WAITING_FOR.index("acknowledgement"), 0)
    unread = np.where(at["left"] == _NEVER, lost, there)
    return np.where(whole, np.where(at["taken"] == _NEVER, unread, response), rest)


def _texts(values: list[str]) -> np.ma.MaskedArray[Any, Any]:
    shown = {text: escape_text(text) for text in set(values)}  # most come many times
    return np.ma.MaskedArray(texts([shown[text] for text in values]), [not text for text in values])
