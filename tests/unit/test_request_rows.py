"""Records of requests: moments of both ends, the split of the time, what others overtake."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.events import Part
from tcprism.events._wire import EVENT, MICROSECONDS_UNKNOWN
from tcprism.events.columns import BY_NAME
from tcprism.events.requests import SPLIT, asked
from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation
from tcprism.stages.answered import answered, answered_together
from tcprism.stages.ends import Connection, View
from tcprism.stages.request_rows import request_part
from tcprism.stages.timeline import Arrivals

PUSH = Exchange("websocket", "text", "", None, None, 5000, 5100, answered=False)
GET = Exchange("http", "GET", "/", 0, 100, 5000, 5100, "200")
MS = 1_000_000


def connection(client: bool, server: bool) -> Connection:
    made = Connection((b"", b""), Conversation(()))
    made.conversation.client = 0
    for side, seen in enumerate((client, server)):
        if seen:
            view = made.views[side] = View(made, side, side)
            head = np.zeros(1, EVENT)
            head["pid"] = view.pid = side + 1
            view.head = head.tobytes()
    return made


def a_repeat(ts_ns: int = 0) -> np.void:
    record = np.zeros(1, [(name, "<u8") for name in ("ts_ns", "cause", "rto_us", "srtt_us")])[0]
    record["ts_ns"], record["cause"], record["rto_us"] = ts_ns, 3, 200_000
    made: np.void = record
    return made


def row_of(where: Connection, exchange: Exchange) -> Part:
    return request_part([answered(where, exchange)], ())


def times(part: Part) -> dict[str, int | None]:
    """Return the known parts of the time in milliseconds, and the whole."""
    names = ("request", *SPLIT)
    values = {name: BY_NAME[f"{name}_ns"].to_list(part)[0] for name in names}
    return {name: value // MS for name, value in values.items() if value}


def played(client: bool, server: bool) -> Connection:
    """A request of which each moment has a time of its own."""
    made = connection(client, server)
    request, response = made.timelines
    if client:
        request.written.add(100, 2 * MS, 1 * MS)
        request.leave(0, 100, 2000, 30_000)  # left at 4
        response.read.add(5050, 41 * MS, 3000)  # arrived at 38
        response.read.add(5100, 50 * MS, MICROSECONDS_UNKNOWN)
    if server:
        request.read.add(100, 15 * MS, 4000)  # arrived at 11
        response.written.add(5050, 33 * MS, 32 * MS)
        response.written.add(5100, 37 * MS, 36 * MS)
    return made


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        (
            True,
            True,
            {
                "request": 49,
                "send_queue": 2,
                "network_there": 7,
                "server_queue": 4,
                "server": 17,
                "network_back": 6,
                "unread": 3,
                "transfer": 1 + 9,
            },
        ),
        (True, False, {"request": 49, "send_queue": 2, "server": 34, "unread": 3, "transfer": 10}),
        (False, True, {"request": 26, "server_queue": 4, "server": 17, "transfer": 5}),
    ],
)
def test_the_parts_of_the_time(client: bool, server: bool, expected: dict[str, int]) -> None:
    part = row_of(played(client, server), GET)
    found = times(part)
    assert found == expected
    assert found.pop("request") == sum(value or 0 for value in found.values())
    source = "server" if server else "client"
    assert BY_NAME["server_source"].to_list(part) == [source]
    assert BY_NAME["server_pid"].to_list(part) == [2 if server else None]
    assert BY_NAME["pid"].to_list(part) == [1 if client else None]


@pytest.mark.parametrize("known", [True, False])
def test_a_write_that_returns_late_has_ended_when_the_other_end_reads(known: bool) -> None:
    """Of the server's too: its time would be what its kernel let it wait after the answer."""
    made = connection(client=True, server=True)
    request, response = made.timelines
    request.written.add(100, 30 * MS, 30 * MS)
    request.read.add(100, 12 * MS, 2000 if known else MICROSECONDS_UNKNOWN)
    response.written.add(5100, 60 * MS, 60 * MS)
    response.read.add(5100, 40 * MS, 5000 if known else MICROSECONDS_UNKNOWN)
    expected = {"request": 30, "server_queue": 2, "server": 23, "unread": 5}
    assert times(row_of(made, GET)) == (expected if known else {"request": 28, "server": 28})


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        (True, True, {"request": 18, "network_back": 6, "unread": 3, "transfer": 9}),
        (False, True, {"request": 5, "transfer": 5}),
        (True, False, {"request": 12, "unread": 3, "transfer": 9}),
    ],
)
def test_a_push_takes_from_its_writing_to_its_reading(
    client: bool, server: bool, expected: dict[str, int]
) -> None:
    assert times(row_of(played(client, server), PUSH)) == expected


def test_a_long_request_keeps_its_moments_while_others_come_and_go() -> None:
    made = connection(client=True, server=False)
    request, response = made.timelines
    for number in range(1000):
        request.written.add(100 * (number + 1), number + 10, number)
        response.read.add(100 * (number + 1), number + 20, 0)
    long = Exchange("http2", "GET", "/long", 0, 100, 99_900, 100_000)
    made.finished.append(long)
    made.forget()
    for number in range(1, 999):
        begin, end = 100 * number, 100 * (number + 1)
        made.conversation.directions[0].at = made.conversation.directions[1].at = end
        made.conversation.done.append(Exchange("http2", "GET", "/", begin, end, begin, end))
        made.pass_on()
        found = row_of(made, made.finished.pop())
        made.forget()
        assert found.rows["start_ts_ns"].tolist() == [number]
    assert row_of(made, long).rows["start_ts_ns"].tolist() == [0]


def test_bytes_of_others_between_the_ends_are_not_counted() -> None:
    exchange = Exchange("http2", "GET", "/", 0, 100, 0, 5000, request_bytes=60, response_bytes=70)
    part = row_of(connection(client=True, server=False), exchange)
    names = ("request_bytes", "response_bytes")
    assert [BY_NAME[name].to_list(part) for name in names] == [[60], [70]]


@pytest.mark.parametrize(
    ("left", "taken", "server", "expected"),
    [
        (False, False, True, None),
        (True, False, True, "the server to read it"),
        (True, False, False, "response"),
        (True, True, True, "response"),
    ],
)
def test_what_a_pending_request_waits_for(
    left: bool, taken: bool, server: bool, expected: str | None
) -> None:
    made = connection(client=True, server=server)
    request = made.timelines[0]
    request.written.add(100, 2 * MS, 1 * MS)
    if left:
        request.leave(0, 100, 0, 10)
    if taken:
        request.read.add(100, 9 * MS, 0)
    part = row_of(made, Exchange("http", "GET", "/", 0, 100))
    assert BY_NAME["request_state"].to_list(part) == ["pending"]
    assert BY_NAME["waiting_for"].to_list(part) == [expected]


@pytest.mark.parametrize("end", [100, None])
def test_a_request_that_is_not_whole_waits_for_its_client(end: int | None) -> None:
    made = connection(client=True, server=True)
    for marks, moment in ((made.timelines[0].written, 1), (made.timelines[0].read, 2)):
        marks.add(60, moment * MS, 0)
    made.conversation.directions[0].at = 60
    part = row_of(made, Exchange("http", "POST", "/", 0, end))
    assert BY_NAME["waiting_for"].to_list(part) == ["the client to send the rest"]


def test_a_wait_for_a_retransmission_ends_when_the_server_has_read() -> None:
    """The timer ran out for bytes that had arrived: nobody waited for what it sent."""
    made = played(client=True, server=True)
    record = a_repeat()
    for moment, wait in ((10, 9), (20, 0)):
        record["ts_ns"] = moment * MS
        request = made.timelines[0]
        request.repeats = ()
        request.repeat(0, 100, record)
        part = row_of(made, GET)
        assert part.rows["retransmission_wait_ns"][0] // MS == wait
        assert BY_NAME["retransmissions"].to_list(part) == [1]
        assert BY_NAME["retransmission_causes"].to_list(part) == ["tlp"]


@pytest.mark.parametrize(
    ("protocol", "method", "resource", "line"),
    [
        ("postgresql", "SELECT", "select a from b", "postgresql select a from b"),
        ("mysql", "BEGIN", "BEGIN", "mysql BEGIN"),
        ("mysql", "PREPARE", "select a", "mysql PREPARE select a"),
        ("postgresql", "SELECT", "selection", "postgresql SELECT selection"),
        ("redis", "GET", "get it", "redis GET get it"),
        ("redis", "PING", None, "redis PING"),
    ],
)
def test_a_statement_says_its_method_itself(
    protocol: str, method: str, resource: str | None, line: str
) -> None:
    assert asked(protocol, method, resource) == line


def test_a_pending_request_that_is_sent_again_waits_for_its_acknowledgement() -> None:
    made = connection(client=True, server=True)
    made.timelines[0].written.add(100, 2 * MS, 1 * MS)
    made.timelines[0].repeat(0, 100, a_repeat(10 * MS))
    part = row_of(made, Exchange("http", "GET", "/", 0, 100))
    assert BY_NAME["waiting_for"].to_list(part) == ["acknowledgement"]


CUTS = st.sets(st.integers(1, 40), max_size=20).map(sorted)


SEEN = st.sampled_from([(True, False), (False, True), (True, True)])


@given(CUTS, st.tuples(*[CUTS] * 5), SEEN, st.booleans())
def test_many_at_once_have_the_moments_of_each(
    cuts: list[int], marked: tuple[list[int], ...], seen: tuple[bool, bool], repeated: bool
) -> None:
    """Whether a write, a read or an acknowledgement ends amid a request, or behind several."""
    made = connection(*seen)
    request, response = made.timelines
    every = (request.written, request.read, request.left, response.written, response.read)
    for marks, ends in zip(every, marked, strict=True):
        for end in ends:
            marks.add(end, end * MS, end)
    if repeated:
        request.repeat(50, 60, a_repeat())
    spans = [*pairwise([0, *cuts])]
    asked_for = [Exchange("redis", "GET", "k", *span, *span, "OK") for span in spans]
    for some in (asked_for, asked_for[::-1]):
        assert answered_together(made, some) == [answered(made, one) for one in some]


def test_bytes_arrived_when_the_first_segment_with_them_did() -> None:
    """Segments come in any order, overlap, and come again; what did not come is not known."""
    arrivals = Arrivals()
    for ts_ns, begin, end in ((1, 0, 10), (2, 20, 30), (3, 10, 20), (4, 5, 25), (5, 20, 30)):
        arrivals.add(end, ts_ns, begin)
    assert [arrivals.at(offset) for offset in (0, 9, 10, 19, 20, 24, 29, 30)] == [
        *(1, 1, 3, 3, 2, 2, 2, -1),
    ]
    arrivals.add(60, 6, 50)
    assert arrivals.at(40) == -1
    assert arrivals.around(55) == (50, 60)
    arrivals.forget(30)
    assert (arrivals.at(5), arrivals.at(55)) == (-1, 6)
