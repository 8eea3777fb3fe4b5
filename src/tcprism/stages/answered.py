"""Exchanges that are over, with the moments of their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.protocols import Exchange
from tcprism.stages.ends import Connection, View
from tcprism.stages.timeline import Repeat, Timeline

NEVER = -1  # an unknown moment

# When what happened to a request, CLOCK_MONOTONIC, nanoseconds: as MOMENTS are called. A plain
# tuple, for making one that is named takes a tenth of all the time that an exchange takes.
Moments = tuple[int, int, int, int, int, int, int, int, int, int]
MOMENTS = (
    "begun",  # its first byte was written, or arrived at the server if the client is not seen
    "written",  # its last byte
    "left",
    "arrived",  # at the server
    "taken",  # read there to the end
    "responded",  # the response's first byte was written
    "back",  # it arrived at the client
    "read",
    "done",  # its last byte was read, or written if the client is not seen
    "came",  # `back`, if its first segment was seen to arrive
)

Span = tuple[int, int]
_NOWHERE: Span = (0, 0)
_NO_WAIT = (0, 0, "")


class Answered(NamedTuple):
    """An exchange that is over, with all that was seen of it.

    `waits`: how long it waited for what was sent again, how many segments that was, and why.
    """

    exchange: Exchange
    at: Moments
    client: View | None
    server: View | None
    ended: bool  # whether its connection has, without a response
    whole: bool  # whether all of the request was sent
    waits: tuple[int, int, str]


def answered(connection: Connection, exchange: Exchange, ended: bool = False) -> Answered:
    """Gather what is known of an exchange; `ended`: its connection has ended."""
    conversation, views = connection.conversation, connection.views
    side = conversation.client
    client, server = views[side], views[1 - side]
    placed, request, response = connection.placed(exchange)
    at = _moments(placed, request, response, client is not None, server is not None)
    waits = _NO_WAIT
    if request.repeats or response.repeats:
        waits = _waits(placed, request, response, at)
    shown = exchange if connection.plain else connection.shown(exchange)
    whole = _is_whole(exchange, conversation.directions[side].at)
    return Answered._make((shown, at, client, server, ended, whole, waits))


def answered_together(connection: Connection, exchanges: Sequence[Exchange]) -> list[Answered]:
    """Gather what is known of exchanges; those written and read together share their moments."""
    if len(exchanges) == 1:
        return [answered(connection, exchanges[0])]
    side = connection.conversation.client
    reached = connection.conversation.directions[side].at
    found: list[Answered] = []
    there = back = _NOWHERE
    shared: tuple[Timeline, Timeline] | None = None  # those that `there` and `back` are of
    for exchange in exchanges:
        placed, request, response = connection.placed(exchange)
        if shared == (request, response) and _lies(placed, there, back):
            shown = connection.shown(exchange)
            _, *same, _, waits = found[-1]
            found.append(Answered._make((shown, *same, _is_whole(exchange, reached), waits)))
            continue
        found.append(answered(connection, exchange))
        first, answer = placed.begin, placed.response_begin
        repeated = request.repeats or response.repeats
        if not repeated and first is not None and answer is not None:
            there, back = request.around(first), response.around(answer)
        else:
            there = back = _NOWHERE
        alike = _lies(placed, there, back)  # or its ends differ
        shared = (request, response) if alike else None
    return found


def _is_whole(exchange: Exchange, reached: int) -> bool:
    """Whether a request has been sent to its end, by how far its direction has come."""
    return exchange.end is not None and not 0 <= reached < exchange.end


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
    begun = written = left = arrived = taken = responded = back = read = done = came = NEVER
    first, answer, end = exchange.begin, exchange.response_begin, exchange.response_end
    if first is None:
        return _unasked(answer or 0, end, response, client)
    last = (exchange.end or first + 1) - 1
    final = NEVER if answer is None or end is None else max(answer, end - 1)
    if server:
        mark, last_mark = request.read.span(first, last)
        arrival = _first(request, first, mark)
        begun = mark[0] if arrival == NEVER else arrival
        taken, arrived = last_mark[0], _first(request, last, last_mark)
        if answer is not None:
            mark, last_mark = response.written.span(answer, max(answer, final))
            responded = mark[1]
            done = NEVER if final < 0 else last_mark[0]
    if client:
        mark, last_mark = request.written.span(first, last)
        begun, written = mark[1], last_mark[0]
        unsent = request.left.of(last)[0]
        if written != NEVER and unsent not in (NEVER, MICROSECONDS_UNKNOWN):
            left = written + unsent * 1000
        if answer is not None:
            mark, last_mark = response.read.span(answer, max(answer, final))
            came = response.arrived.at(answer)
            read, back = mark[0], _first(response, answer, mark)
            done = NEVER if final < 0 else last_mark[0]
    return begun, written, left, arrived, taken, responded, back, read, done, came


def _unasked(first: int, end: int | None, response: Timeline, client: bool) -> Moments:
    """Return when a server sent what nobody had asked for, or when it arrived if that is all."""
    read, written = response.read.of(first), response.written.of(first)
    back = _first(response, first, read)
    arrival = read[0] if back == NEVER else back
    begun = arrival if written[1] == NEVER else written[1]
    marks = response.read if client else response.written
    done = NEVER if end is None else marks.of(max(first, end - 1))[0]
    unknown = (NEVER, NEVER, NEVER, NEVER)
    return begun, NEVER, *unknown, back, read[0], done, response.arrived.at(first)


def _first(timeline: Timeline, offset: int, mark: tuple[int, int]) -> int:
    """Return when a byte arrived: its segment tells, else the mark of the call that read it."""
    came = timeline.arrived.at(offset) if timeline.arrived.ends else NEVER
    return _arrival(mark) if came == NEVER else came


def _arrival(mark: tuple[int, int]) -> int:
    """Return when bytes arrived that were read, if how long they waited is known."""
    read, unread_us = mark
    if read == NEVER or unread_us == MICROSECONDS_UNKNOWN:
        return NEVER
    return read - unread_us * 1000


def _waits(
    exchange: Exchange, request: Timeline, response: Timeline, at: Moments
) -> tuple[int, int, str]:
    """Return how long an exchange waited to be sent again, how many segments, and why."""
    begun, _, _, _, taken, responded, back, read, done, _ = at
    end = next((moment for moment in (done, 1 << 62) if moment != NEVER), 0)
    known = [moment for moment in (taken, back, read, end) if moment != NEVER]
    wait = 0
    repeats: list[Repeat] = []
    if exchange.begin is not None:
        last = exchange.end or exchange.begin + 1
        wait, repeats = request.waits(exchange.begin, last, max(begun, 0), known[0])
    if exchange.response_begin is not None:
        last = exchange.response_end or exchange.response_begin + 1
        later, more = response.waits(exchange.response_begin, last, max(responded, 0), end)
        wait, repeats = wait + later, [*repeats, *more]
    return wait, len(repeats), ", ".join(dict.fromkeys(repeat.cause for repeat in repeats))
