"""The stage of requests: two ends made one, threads, losses, ends of connections, its account."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag, SegmentArrival
from tcprism.events.columns import BY_NAME
from tcprism.recording.where import Where
from tcprism.stages.request_filter import RequestFilter
from tcprism.stages.requests import Requests

from .records import connections, messages, segments

GET = b"GET /a HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CLIENT = {"local_ip": "10.0.0.1", "local_port": 40_000, "remote_ip": "10.0.0.2", "remote_port": 80}
SERVER = {"local_ip": "10.0.0.2", "local_port": 80, "remote_ip": "10.0.0.1", "remote_port": 40_000}
AT_CLIENT = {**CLIENT, "pid": 7, "comm": b"curl", "netns": 1}
AT_SERVER = {**SERVER, "pid": 9, "comm": b"nginx", "netns": 2}
FIRST, ANSWERS = 100, 9000  # sequence numbers


class Talk:
    """Messages of one connection, in the order of time."""

    def __init__(self, client: dict[str, Any] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = AT_CLIENT if client is None else client
        self._ts = 1_000_000

    def add(self, who: dict[str, Any], kind: EventKind, seq: int, data: bytes, **more: Any) -> None:
        self._ts += 1000
        fields = {"kind": kind, "seq": seq % 2**32, "bytes": len(data), "payload": data}
        self.events.append(who | fields | {"ts_ns": self._ts} | more)

    def exchange(self, number: int, ends: str = "both") -> None:
        asked, answered = FIRST + number * len(GET), ANSWERS + number * len(OK)
        if ends in ("both", "client"):
            self.add(self._client, EventKind.SEND, asked, GET)
        if ends in ("both", "server"):
            self.add(AT_SERVER, EventKind.RECV, asked, GET)
            self.add(AT_SERVER, EventKind.SEND, answered, OK)
        if ends in ("both", "client"):
            self.add(self._client, EventKind.RECV, answered, OK)

    @property
    def batch(self) -> Batch:
        return Batch([messages(*self.events, payload_class=64)])


def column(part: Part, name: str) -> list[Any]:
    return BY_NAME[name].to_list(part)


def made(stage: Requests, *batches: Batch) -> list[Part]:
    """Return the requests that come of batches and of the end."""
    found = [part for batch in batches for part in stage(batch).parts]
    return [*found, *stage.close().parts]


@pytest.mark.parametrize("ends", ["both", "client", "server"])
def test_two_ends_make_one_request(ends: str) -> None:
    talk = Talk()
    for number in range(3):
        talk.exchange(number, ends)
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "view") == [ends] * 3
    assert column(part, "local_port") == [40_000] * 3
    assert column(part, "remote_ip") == ["10.0.0.2"] * 3
    assert column(part, "pid") == [None if ends == "server" else 7] * 3
    assert column(part, "comm") == [None if ends == "server" else "curl"] * 3
    assert column(part, "server_pid") == [None if ends == "client" else 9] * 3
    assert column(part, "request_bytes") == [len(GET)] * 3
    assert column(part, "request_seq") == [FIRST + number * len(GET) for number in range(3)]


def test_connections_with_the_same_ends_in_other_namespaces_are_others() -> None:
    """Both clients have the same address and port; sequence numbers are far apart."""
    one, other = Talk(), Talk(AT_CLIENT | {"netns": 5, "pid": 8})
    one.exchange(0)
    other.exchange(0, "client")
    for event in other.events:
        event["seq"] += 2**31
    parts = made(Requests(alone=True), one.batch, other.batch)
    assert sorted(pid for part in parts for pid in column(part, "pid")) == [7, 8]


UNPLACED = {"flags": MessageFlag.SEQ_UNKNOWN, "seq": 0}


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("ends", ["both", "client"])
def test_a_read_without_a_place_lies_between_its_neighbours(ends: str, after: bool) -> None:
    """The kernel does not tell it where another thread had the socket just then."""
    talk = Talk()
    for number in range(2 + after):
        talk.exchange(number, ends)
    read = [one for one in talk.events if one["kind"] == EventKind.RECV and one["pid"] == 7][1]
    read |= UNPLACED
    parts = made(Requests(alone=True), talk.batch)
    states = [state for part in parts for state in column(part, "request_state")]
    ends_ns = [int(ts_ns) for part in parts for ts_ns in part.rows["ts_ns"]]
    known = after or ends == "both"  # the server's writes tell where the last response ends
    assert (states == ["complete"] * (2 + after)) == known
    assert (read["ts_ns"] in ends_ns) == known


@pytest.mark.parametrize("wrong", [{"tid": 99}, {"bytes": len(OK) + 1}])
def test_a_read_is_placed_only_where_that_is_proven(wrong: dict[str, Any]) -> None:
    """Two in a row of two threads may be in either order, and sizes must fit."""
    talk = Talk()
    for number in range(4):
        talk.exchange(number)
    reads = [one for one in talk.events if one["kind"] == EventKind.RECV and one["pid"] == 7]
    reads[1] |= UNPLACED
    reads[2] |= UNPLACED | wrong
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "request_state") == ["complete", "gap", "gap", "complete"]
    assert column(part, "request_ns")[1:3] == [None, None]


def test_other_events_pass_unless_it_is_alone() -> None:
    talk = Talk()
    talk.exchange(0)
    assert [part.family for part in Requests()(talk.batch).parts] == ["message", "request"]
    assert [part.family for part in Requests(alone=True)(talk.batch).parts] == ["request"]


def test_sequence_numbers_wrap() -> None:
    talk = Talk()
    start = 2**32 - len(GET) - 5
    for number in range(3):
        talk.add(AT_CLIENT, EventKind.SEND, start + number * len(GET), GET)
        talk.add(AT_CLIENT, EventKind.RECV, 2**32 - 7 + number * len(OK), OK)
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "status") == ["200"] * 3


def test_what_threads_write_is_put_in_order() -> None:
    """The second half of a request is written by a thread whose call returns first."""
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    begin = FIRST + len(GET)
    talk.add(AT_CLIENT, EventKind.SEND, begin + 10, GET[10:])
    talk.add(AT_CLIENT, EventKind.SEND, begin, GET[:10])
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS + len(OK), OK)
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "request_state") == ["complete"] * 2


def test_peeks_and_failed_calls_are_no_part_of_the_stream() -> None:
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK[:9], flags=MessageFlag.PEEK)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, b"", error=-104)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "response_bytes") == [len(OK)]


def test_a_request_ends_when_the_client_has_read_it() -> None:
    """The server wrote the response before; the client reads it in two."""
    talk = Talk()
    talk.exchange(0)
    talk.events.pop()
    stage = Requests(alone=True)
    assert not len(stage(talk.batch))
    late = Talk()
    late._ts = 9_000_000
    late.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK[:10])
    assert not len(stage(late.batch))
    late.events.clear()
    late.add(AT_CLIENT, EventKind.RECV, ANSWERS + 10, OK[10:])
    (part,) = stage(late.batch).parts
    assert part.rows["ts_ns"].tolist() == [late.events[0]["ts_ns"]]


def test_a_client_that_is_not_seen_to_read_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where its receives are not traced."""
    monkeypatch.setattr("tcprism.stages.requests.FINISHED_MAX", 5)
    talk = Talk()
    for number in range(20):
        talk.exchange(number)
    talk.events = [e for e in talk.events if (e["pid"], e["kind"]) != (7, EventKind.RECV)]
    stage = Requests(alone=True)
    (part,) = stage(talk.batch).parts
    assert len(part) == 15
    assert len([*stage.under_way()]) == 5


def test_what_is_never_answered_is_pending_and_chosen_on_demand() -> None:
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET)
    stage = Requests(alone=True)
    parts = list(stage(talk.batch).parts)
    stage.tick(talk.events[-1]["ts_ns"] + 5_000_000)
    parts += stage.close().parts
    assert column(parts[-1], "request_ns") == [5_000_000]  # its age
    assert [state for part in parts for state in column(part, "request_state")] == [
        "complete",
        "pending",
    ]
    for pending, count in ((False, 1), (True, 2)):
        assert len(RequestFilter(pending=pending)(Batch(parts))) == count


def test_a_request_is_not_pending_when_its_connection_has_ended() -> None:
    talk = Talk()
    talk.exchange(0, "client")
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET)
    stage = Requests(alone=True)
    stage(talk.batch)
    end = {**AT_CLIENT, "kind": EventKind.CLOSE, "ts_ns": 2_000_000}
    (part,) = stage(Batch([connections(end)])).parts
    assert column(part, "request_state") == ["partial"]


def test_a_closed_connection_is_forgotten_and_its_port_may_come_again() -> None:
    stage = Requests(alone=True)
    count = 0
    for _ in range(3):
        talk = Talk()
        talk.exchange(0)
        count += len(stage(talk.batch))
        ends = [
            {**who, "kind": EventKind.CLOSE, "ts_ns": 2_000_000} for who in (AT_CLIENT, AT_SERVER)
        ]
        count += len(stage(Batch([connections(*ends)])))
        assert not stage._connections
        assert not stage._connections.views
        assert not stage._connections._by_ends
    assert count == 3


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (RequestFilter(), 2),
        (RequestFilter(slower_ns=1500), 1),
        (RequestFilter(statuses=["404"]), 1),
        (RequestFilter(statuses=["2xx"]), 1),
        (RequestFilter(statuses=["4XX", "2xx"]), 2),
        (RequestFilter(statuses=["error"]), 0),
    ],
)
def test_filter(chosen: RequestFilter, count: int) -> None:
    talk = Talk()
    talk.exchange(0, "client")
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET)
    talk._ts += 1000
    missing = OK.replace(b"200", b"404")
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS + len(OK), missing)
    assert len(chosen(Requests(alone=True)(talk.batch))) == count


def test_bytes_that_were_not_captured_are_accounted_for() -> None:
    talk = Talk()
    talk.exchange(0, "client")
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET * 3)
    stage = Requests(alone=True)
    part = messages(*talk.events, payload_class=64)
    assert part.payload is not None
    cut = Part(part.rows, part.payload[:, :30].copy())
    stage(Batch([cut]))
    account = stage.account()
    assert account.counts["request_gaps"] > 0
    assert "--payload" in account.remarks[0]
    assert account.entries[0].received == 2  # the second is known to have a gap


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
PIECE = b"5\r\nhello\r\n"


def piecemeal(talk: Talk, response: list[bytes]) -> None:
    """Ask, and answer in messages of their own, a millisecond apart."""
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_SERVER, EventKind.RECV, FIRST, GET)
    seq = ANSWERS
    for data in response:
        talk._ts += 1_000_000
        talk.add(AT_SERVER, EventKind.SEND, seq, data)
        talk.add(AT_CLIENT, EventKind.RECV, seq, data)
        seq += len(data)


@pytest.mark.parametrize("head", [CHUNKED, UNTIL_CLOSE])
def test_a_response_in_many_pieces_has_its_times(head: bytes) -> None:
    """Whose end only its last bytes tell, or the connection's end."""
    talk = Talk()
    end = b"0\r\n\r\n" if head == CHUNKED else b""
    piecemeal(talk, [head, *[PIECE] * 300, end])
    begun, first, last = (talk.events[place]["ts_ns"] for place in (0, 3, -1))
    if head == UNTIL_CLOSE:  # the end of the connection is no byte of the response
        last = talk.events[-3]["ts_ns"]
    (part,) = made(Requests(alone=True), talk.batch)
    assert column(part, "request_state") == ["complete"]
    assert column(part, "request_ns") == [last - begun]
    assert column(part, "transfer_ns") == [last - first]
    assert column(part, "response_bytes") == [len(head) + 300 * len(PIECE) + len(end)]


REST = {
    "the head of the request": (GET[:-2], []),
    "a response in chunks": (GET, [CHUNKED, PIECE]),
    "a response until the connection ends": (GET, [UNTIL_CLOSE, PIECE]),
    "a response of a known length": (GET, [OK[:-1]]),
}


@pytest.mark.parametrize("why", ["sample", "memory", "end", "close"])
@pytest.mark.parametrize("rest", REST)
def test_what_was_under_way_is_told_when_no_more_of_it_is_seen(rest: str, why: str) -> None:
    talk = Talk()
    request, response = REST[rest]
    talk.exchange(0)
    asked, answers = FIRST + len(GET), ANSWERS + len(OK)
    talk.add(AT_CLIENT, EventKind.SEND, asked, request)
    talk.add(AT_SERVER, EventKind.RECV, asked, request)
    for data in response:
        talk.add(AT_SERVER, EventKind.SEND, answers, data)
        talk.add(AT_CLIENT, EventKind.RECV, answers, data)
        answers += len(data)
    stage = Requests(alone=True)
    parts = list(stage(talk.batch).parts)
    if why == "sample":
        stage.sample(31)
    elif why == "memory":
        stage.let_go()
    elif why == "close":
        over = {"kind": EventKind.CLOSE, "ts_ns": talk._ts + 1000}
        parts += stage(Batch([connections(AT_CLIENT | over, AT_SERVER | over)])).parts
    parts += stage.close().parts
    found = [state for part in parts for state in column(part, "request_state")]
    state = {"sample": "gap", "memory": "gap"}.get(why, "partial" if response else "pending")
    if why == "close":
        state = "complete" if UNTIL_CLOSE in response else "partial"
    assert found == ["complete", state]
    assert [one for part in parts for one in column(part, "resource")] == ["/a", "/a"]


def test_less_than_a_requests_line_is_counted_when_its_connection_leaves_the_sample() -> None:
    talk = Talk()
    talk.exchange(0)
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET[:9])
    stage = Requests(alone=True)
    assert len(stage(talk.batch)) == 1
    stage.sample(31)
    assert len(stage.close()) == 0
    assert stage.account().counts["request_gaps"] == 9


@pytest.mark.parametrize("said", [b"\x00\x01 nothing known here", GET])
def test_what_nobody_asks_for_is_not_remembered(said: bytes) -> None:
    """Neither of a connection that speaks something unknown, nor of requests that are over."""
    stage = Requests(alone=True)
    talk = Talk()
    for number in range(3000):
        if said == GET:
            talk.exchange(number, "client")
        else:
            talk.add(AT_CLIENT, EventKind.SEND, FIRST + number * len(said), said)
            talk.add(AT_CLIENT, EventKind.RECV, ANSWERS + number * len(said), said)
    assert len(stage(talk.batch)) == (3000 if said == GET else 0)
    (connection,) = stage._connections
    kept = [len(m.ends) for line in connection.timelines for m in (line.written, line.read)]
    assert max(kept) <= 130


def test_all_connections_together_have_a_bound() -> None:
    """The oldest go first, are counted, and are read again from their next message on."""
    stage = Requests(alone=True)
    stage.room = room = 500_000
    ports = range(10_000, 10_200)
    ends = [{**AT_CLIENT, "local_port": port} for port in ports]
    half = GET[:-2] + b"x: " + b"y" * 20
    for client in ends:
        talk = Talk(client)
        talk.add(client, EventKind.SEND, FIRST, half)
        stage(talk.batch)
        assert sum(one.size for one in stage._connections) <= room
    kept = {connection.ends[0][-2:] for connection in stage._connections}
    assert len(kept) >= room // next(iter(stage._connections)).size // 2 - 1
    assert kept == {np.uint16(port).tobytes() for port in ports[-len(kept) :]}
    account = stage.account()
    assert account.counts["connections_evicted"] == 200 - len(kept)
    assert "forgotten" in account.remarks[-1]
    talk = Talk(ends[0])
    talk.exchange(10, "client")
    (part,) = stage(talk.batch).parts
    assert column(part, "request_state") == ["complete"]


@pytest.mark.parametrize("count", [0, 1, 30])
def test_what_connections_are_said_to_take_is_what_they_take(count: int) -> None:
    """Each with so many exchanges, and half a request."""
    stage = Requests(alone=True)
    batches = []
    for port in range(10_000, 10_300):
        client = {**AT_CLIENT, "local_port": port}
        talk = Talk(client)
        for number in range(count):
            talk.exchange(number, "client")
        talk.add(client, EventKind.SEND, FIRST + count * len(GET), GET[:-2])
        batches.append(talk.batch)
    for batch in batches[:100]:
        stage(batch)
    tracemalloc.start()
    try:
        for batch in batches[100:]:
            stage(batch)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    said = sum(one.size for one in list(stage._connections)[100:])
    assert 0.6 * said < taken < 1.1 * said


@pytest.mark.parametrize("lost", [False, True])
def test_a_response_waits_for_the_write_that_returns_after_its_read(lost: bool) -> None:
    """If that is lost, not for ever."""
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_SERVER, EventKind.RECV, FIRST, GET)
    talk.add(AT_SERVER, EventKind.SEND, ANSWERS, OK)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    first = len(talk.events)
    talk.add(AT_CLIENT, EventKind.SEND, FIRST + len(GET), GET)
    talk.add(AT_SERVER, EventKind.RECV, FIRST + len(GET), GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS + len(OK), OK)
    talk.add(AT_SERVER, EventKind.SEND, ANSWERS + len(OK), OK)
    stage = Requests(alone=True)
    early, late = talk.events[: first + 3], talk.events[first + 3 :]
    found = [*stage(Batch([messages(*early, payload_class=64)])).parts]
    assert len(found[0]) == 1
    if lost:
        assert not stage.tick(1).parts
        found += stage.tick(2).parts
    else:
        found += stage(Batch([messages(*late, payload_class=64)])).parts
    assert column(found[1], "request_state") == ["complete"]
    assert column(found[1], "server_source") == ["client" if lost else "server"]
    assert not made(stage)
    assert not stage._held


@pytest.mark.parametrize("lost", [False, True])
def test_the_first_response_waits_for_its_write_too(lost: bool) -> None:
    """Without it, nobody knows which part of the time the server took and which the network."""
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_SERVER, EventKind.RECV, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    talk.add(AT_SERVER, EventKind.SEND, ANSWERS, OK)
    stage = Requests(alone=True)
    assert not stage(Batch([messages(*talk.events[:3], payload_class=64)])).parts
    if lost:
        assert not stage.tick(1).parts
        (found,) = stage.tick(2).parts
    else:
        (found,) = stage(Batch([messages(*talk.events[3:], payload_class=64)])).parts
    assert column(found, "view") == ["both"]
    assert column(found, "server_source") == ["client" if lost else "server"]
    assert (column(found, "network_back_ns") == [None]) == lost
    assert column(found, "server_ns") != [None]


def test_a_client_whose_write_returns_after_the_server_has_closed_is_seen() -> None:
    """The server's socket is closed as soon as the client's kernel acknowledges its FIN."""
    talk, late = Talk(), Talk()
    talk.add(AT_SERVER, EventKind.RECV, FIRST, GET)
    talk.add(AT_SERVER, EventKind.SEND, ANSWERS, OK)
    late.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    late.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    stage = Requests(alone=True)
    assert not stage(talk.batch).parts
    end = {**AT_SERVER, "kind": EventKind.CLOSE, "ts_ns": 2_000_000}
    assert not stage(Batch([connections(end)])).parts
    (part,) = stage(late.batch).parts
    assert column(part, "view") == ["both"]
    stage(Batch([connections({**AT_CLIENT, "kind": EventKind.CLOSE, "ts_ns": 3_000_000})]))
    assert not stage._connections
    assert not made(stage)


@pytest.mark.parametrize("here", [False, True])
def test_a_client_whose_write_returns_after_the_response_is_seen(here: bool) -> None:
    """The first request of a connection waits for its client, which may be on another host."""
    talk = Talk()
    talk.add(AT_SERVER, EventKind.RECV, FIRST, GET)
    talk.add(AT_SERVER, EventKind.SEND, ANSWERS, OK)
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, ANSWERS, OK)
    stage = Requests(alone=True)
    seen = 4 if here else 2
    found = [*stage(Batch([messages(*talk.events[:seen], payload_class=64)])).parts]
    assert bool(found) == here
    found += stage.tick(1).parts
    found += stage.tick(2).parts
    assert column(found[0], "view") == ["both" if here else "server"]
    assert column(found[0], "request_state") == ["complete"]
    if not here:
        talk.events.clear()
        talk.add(AT_SERVER, EventKind.RECV, FIRST + len(GET), GET)
        talk.add(AT_SERVER, EventKind.SEND, ANSWERS + len(OK), OK)
        found += stage(talk.batch).parts
    assert len(found) == 2 - here
    assert not made(stage)


def test_that_all_were_turned_away_is_said() -> None:
    talk, chosen = Talk(), RequestFilter(statuses=["404"])
    talk.exchange(0)
    talk.exchange(1)
    assert not len(chosen(Requests(alone=True)(talk.batch)))
    (remark,) = chosen.account().remarks
    assert remark.startswith("2 requests were read, and none matches")
    assert RequestFilter().account().remarks == ()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("method = GET", r"there is no column GET \(docs/events.md lists them; text needs single"),
        ("method = 'GET", "unterminated string"),
        ("took = ", "syntax error"),
    ],
)
def test_an_expression_that_is_none_is_refused_in_plain_words(expression: str, said: str) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    with pytest.raises(UsageError, match=f"^--where: {said}.*; write for example --where "):
        Where(expression, "request")


@pytest.mark.parametrize("answers", [ANSWERS, 2**32 - 10])
def test_a_segment_tells_when_the_response_arrived(answers: int) -> None:
    """The first that brought its first byte, whatever arrives besides, at this end or the other."""
    talk = Talk()
    talk.add(AT_CLIENT, EventKind.SEND, FIRST, GET)
    talk.add(AT_CLIENT, EventKind.RECV, answers, OK, ts_ns=9_000_000, unread_us=1000)

    def came(ts_ns: int, seq: int, size: int, **more: Any) -> dict[str, Any]:
        place = {"seq": seq % 2**32, "bytes": size, "ts_ns": ts_ns, "kind": EventKind.RECEIVE}
        return AT_CLIENT | place | more

    arrived = segments(
        came(1_500_000, answers, 4, arrival=SegmentArrival.CHECKSUM_ERROR),
        came(2_000_000, answers + 4, len(OK) - 4),
        came(3_000_000, answers, 4),
        came(4_000_000, answers, len(OK), arrival=SegmentArrival.DUPLICATE),
        came(1_600_000, answers, 0),
        came(1_700_000, answers, 4) | AT_SERVER,
        came(1_800_000, answers, 4, kind=EventKind.TRANSMIT),
    )
    (part,) = made(Requests(alone=True), Batch([*talk.batch.parts, arrived]))
    assert column(part, "arrival_source") == ["segment"]
    assert column(part, "unread_ns") == [6_000_000]
    (part,) = made(Requests(alone=True), talk.batch)
    assert (column(part, "arrival_source"), column(part, "unread_ns")) == (["call"], [1_000_000])
