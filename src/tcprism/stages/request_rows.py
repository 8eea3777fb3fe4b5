"""Records of requests, and the parts of their time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import EVENT
from tcprism.events.column import texts
from tcprism.events.escape import escape_text
from tcprism.events.kinds import NUMBERS, RECORDS
from tcprism.events.part import Rows
from tcprism.events.requests import (
    ARRIVAL_SOURCES,
    SERVER_SOURCES,
    SPLIT,
    STATES,
    UNKNOWN_BYTES,
    UNKNOWN_NS,
    VIEWS,
    WAITING_FOR,
)
from tcprism.stages.answered import MOMENTS, NEVER, Answered
from tcprism.stages.ends import View

_MASK = (1 << 32) - 1
_BYTES_MAX = 2**32 - 1
# Who the process at the head is: not the client's where only the server's is seen.
_OWNER = ("pid", "tid", "uid", "cgroup_id", "owner_source", "comm")

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]
Table = dict[str, Times]  # of each moment, in an array
Said = dict[str, tuple[Any, ...]]  # of each field of exchanges
_SAID = (
    "protocol", "method", "resource", "begin", "end", "response_begin", "response_end", "status",
    "failed", "gap", "answered", "request_bytes", "response_bytes",
)  # fmt: skip
_ALL_SAID = attrgetter(*_SAID)


class _Split:
    """The parts of requests' time, moment after moment; of each a row."""

    def __init__(self, begun: Times, done: Times) -> None:
        self.parts = {name: np.full(len(begun), NEVER) for name in SPLIT}
        self.parts["transfer"][:] = 0
        self._reached, self._done = begun, done

    def until(self, moments: Times, part: str, where: Mask | None = None) -> None:
        """Say which part the time until some moments is, where they are known, in some rows.

        Clocks of several processors, and calls, overlap a little: that is put in order.
        """
        known = moments != NEVER if where is None else where & (moments != NEVER)
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
            known = np.where(proof == NEVER, ordered[name], proof)
            ordered[name] = np.minimum(ordered[name], known)
    return ordered


def split(at: Table, client: Mask, server: Mask) -> dict[str, Times]:
    """Return the parts of requests' time, nanoseconds, -1: unknown; they add up to the whole.

    `client` tells whether that end was seen, and `server` whether that end was seen to answer.
    """
    spans = _Split(at["begun"], at["done"])
    arrives, returns = at["arrived"] != NEVER, at["back"] != NEVER
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
    whole = (at["begun"] != NEVER) & (at["done"] != NEVER)
    return {name: np.where(whole, part, NEVER) for name, part in spans.parts.items()}


def request_part(found: Sequence[Answered], parts: Iterable[Part], now_ns: int = 0) -> Part:
    """Return records of requests; names are looked up in the context of the messages' parts.

    The age of what is pending is that at `now_ns`.
    """
    rows = np.zeros(len(found), RECORDS["request"])
    exchanges, moments, clients, servers, ended, whole, waits = zip(*found, strict=True)
    client, server = _seen(clients), _seen(servers)
    _fill_ends(rows, clients, servers, client)
    flat = np.fromiter(chain.from_iterable(moments), np.int64, len(MOMENTS) * len(found))
    at = _in_order(dict(zip(MOMENTS, flat.reshape(-1, len(MOMENTS)).T, strict=True)))
    said = dict(zip(_SAID, zip(*map(_ALL_SAID, exchanges), strict=True), strict=True))
    unasked = np.array([begin is None for begin in said["begin"]])
    _fill_times(rows, at, client, server & (unasked | (at["responded"] != NEVER)))
    _fill_exchanges(rows, said)
    wait_ns, repeats, causes = zip(*waits, strict=True)
    rows["retransmission_wait_ns"] = wait_ns
    rows["retransmission_wait_ns"][rows["request_ns"] == UNKNOWN_NS] = UNKNOWN_NS
    rows["retransmissions"] = repeats
    rows["request_state"] = _states(said, np.array(ended), at["done"])
    pending = rows["request_state"] == STATES.index("pending")
    _fill_ages(rows, at["begun"], pending & (at["begun"] != NEVER), now_ns)
    repeated = rows["retransmissions"] > 0
    waiting_for = _waiting_for(at, server, repeated, np.array(whole))
    rows["waiting_for"] = np.where(pending, waiting_for, 0)
    rows["view"] = np.where(
        client & server, VIEWS.index("both"), np.where(client, VIEWS.index("client"), 3)
    )
    context = next((part.context for part in parts), None)
    texts_of = {name: said[name] for name in ("method", "resource", "status")}
    derived = {**texts_of, "retransmission_causes": causes}
    made = Part(rows, derived={name: _texts(values) for name, values in derived.items()})
    return made if context is None else Part(rows, None, made.derived, context)


def _seen(views: Sequence[View | None]) -> Mask:
    return np.array([view is not None for view in views])


def _fill_ends(
    rows: Rows, clients: Sequence[View | None], servers: Sequence[View | None], client: Mask
) -> None:
    """Fill in both ends, the client's as local."""
    seen = [one or other for one, other in zip(clients, servers, strict=True)]
    head = np.frombuffer(b"".join([view.head for view in seen if view]), EVENT)
    for name in EVENT.names or ():
        rows[name] = head[name]
    other = np.flatnonzero(~client)
    for here, there in (("local_ip", "remote_ip"), ("local_port", "remote_port")):
        rows[here][other], rows[there][other] = head[there][other], head[here][other]
    for name in _OWNER:
        rows[name][other] = 0 if name != "comm" else b""
    rows["kind"] = NUMBERS["request"]
    rows["error"], rows["flags"] = 0, 0
    blank = bytes(EVENT.itemsize)
    ends = np.frombuffer(b"".join([server.head if server else blank for server in servers]), EVENT)
    rows["server_pid"], rows["server_comm"] = ends["pid"], ends["comm"]


def _fill_times(rows: Rows, at: Table, client: Mask, server: Mask) -> None:
    """Fill in the parts of the time, with those of the server where it was seen to answer."""
    begun, done = at["begun"], at["done"]
    latest = np.max(list(at.values()), axis=0)
    rows["ts_ns"] = np.where(done == NEVER, np.maximum(latest, 0), done)
    rows["start_ts_ns"] = np.where(begun == NEVER, rows["ts_ns"], begun)
    parts = split(at, client, server)
    for name, part in parts.items():
        rows[f"{name}_ns"] = np.where(part == NEVER, UNKNOWN_NS, part.astype(np.uint64))
    whole = (begun != NEVER) & (done != NEVER)
    took = np.maximum(done - begun, 0).astype(np.uint64)
    rows["request_ns"] = np.where(whole, took, UNKNOWN_NS)
    seen = np.where(at["came"] != NEVER, "segment", np.where(at["back"] != NEVER, "call", ""))
    rows["arrival_source"] = np.searchsorted(ARRIVAL_SOURCES, seen)
    known = rows["server_ns"] != UNKNOWN_NS
    rows["server_source"] = known * np.where(
        server, SERVER_SOURCES.index("server"), SERVER_SOURCES.index("client")
    )


def _fill_exchanges(rows: Rows, said: Said) -> None:
    names = {name: name.encode() for name in set(said["protocol"])}
    rows["protocol"] = [names[name] for name in said["protocol"]]
    rows["failed"] = said["failed"]
    begin, end = _offsets(said["begin"]), _offsets(said["end"])
    answer, answer_end = _offsets(said["response_begin"]), _offsets(said["response_end"])
    first = np.where(begin == NEVER, answer, begin)
    rows["seq"] = np.maximum(first, 0) & _MASK
    rows["response_seq"] = np.maximum(answer, 0) & _MASK
    unasked = begin == NEVER
    rows["server_ns"][unasked], rows["server_source"][unasked] = UNKNOWN_NS, 0
    there = _sizes(said["request_bytes"], begin, end)
    back = _sizes(said["response_bytes"], answer, answer_end)
    for name, size in (("request_bytes", there), ("response_bytes", back)):
        rows[name] = np.where(size == NEVER, UNKNOWN_BYTES, size.astype(np.uint64))
    rows["bytes"] = np.minimum(np.maximum(there, 0) + np.maximum(back, 0), _BYTES_MAX)


def _offsets(told: Sequence[int | None]) -> Times:
    """Return offsets, which are never below 0."""
    return np.array([NEVER if one is None else one for one in told], np.int64)


def _sizes(told: Sequence[int | None], begin: Times, end: Times) -> Times:
    """Return sizes: those that were told, else what lies between two offsets, if both are known."""
    between = np.where((begin == NEVER) | (end == NEVER), NEVER, end - begin)
    if told.count(None) == len(told):
        return between
    sizes = [max(one or 0, NEVER) for one in told]
    return np.where([one is None for one in told], between, sizes)


def _fill_ages(rows: Rows, begun: Times, which: Mask, now_ns: int) -> None:
    rows["ts_ns"][which] = np.maximum(rows["ts_ns"][which], now_ns)
    rows["request_ns"][which] = rows["ts_ns"][which] - begun[which].astype(np.uint64)


def _states(said: Said, ended: Mask, done: Times) -> NDArray[np.intp]:
    unanswered = np.array([begin is None for begin in said["response_begin"]])
    found: NDArray[np.intp] = np.select(
        [~np.array(said["answered"]), np.array(said["gap"]), unanswered & ~ended, done == NEVER],
        [STATES.index(name) for name in ("no response", "gap", "pending", "partial")],
        STATES.index("complete"),
    )
    return found


def _waiting_for(at: Table, server: Mask, repeated: Mask, whole: Mask) -> NDArray[np.intp]:
    """Return what pending requests wait for, as far as that is proven.

    That an acknowledgement was not noted proves nothing: some hooks note the last one when the next
    segment comes.
    """
    response, rest = map(WAITING_FOR.index, ("response", "the client to send the rest"))
    there = np.where(server, WAITING_FOR.index("the server to read it"), response)
    lost = np.where(repeated, WAITING_FOR.index("acknowledgement"), 0)
    unread = np.where(at["left"] == NEVER, lost, there)
    return np.where(whole, np.where(at["taken"] == NEVER, unread, response), rest)


def _texts(values: Sequence[str]) -> np.ma.MaskedArray[Any, Any]:
    shown = {text: escape_text(text) for text in set(values)}  # most come many times
    return np.ma.MaskedArray(texts([shown[text] for text in values]), [not text for text in values])
