"""HTTP/2 and gRPC: what nginx, nghttpx and grpcio were asked and answered, and RFC 9113's cases."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.protocols import Exchange, Match
from tcprism.protocols.http2 import GRPC, HTTP2, STREAMS_MAX
from tcprism.protocols.http2_frames import PREFACE

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded, told

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 7, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32

POST, GET, SCHEME = b"\x83", b"\x82", b"\x86"
OK, NOT_FOUND, FAILED = b"\x88", b"\x8d", b"\x8e"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field that is inserted into the table."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


def path(value: bytes) -> bytes:
    return b"\x44" + bytes((len(value),)) + value


def entry(newest: int) -> bytes:
    """The field that was inserted so many fields ago, the newest is 0."""
    return bytes((0x80 | 62 + newest,))


def request(stream: int, block: bytes, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, flags | END_HEADERS, stream, block)


def response(stream: int, block: bytes = OK, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, flags | END_HEADERS, stream, block)


HELLO: list[Said] = [
    (CLIENT, PREFACE + frame(SETTINGS, 0, 0)),
    (SERVER, frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64")),
    (CLIENT, frame(SETTINGS, 1, 0)),
]
GREETED = 1000 + sum(len(data) for side, data in HELLO if side == CLIENT)
SERVER_GREETED = 5000 + 15


def found_in(name: str, piece: int | None = None) -> list[Exchange]:
    return [one for said in recorded(name) for one in exchanges(said, piece=piece)]


def counted(found: Iterable[Exchange]) -> Counter[tuple[str, str, bool]]:
    assert not any(one.gap for one in found)
    return Counter((one.resource, one.status, one.failed) for one in found)


@pytest.mark.parametrize("piece", [None, 1, 7, 1000])
def test_what_nginx_logged(piece: int | None) -> None:
    found = found_in("http2_nginx.txt", piece)
    assert {(one.protocol, one.method) for one in found} == {("http2", "GET")}
    assert counted(found) == {
        ("/index.html", "200", False): 8,
        ("/old", "302", False): 8,
        ("/fail", "503", True): 8,
        ("/mid", "200", False): 8,
        ("/none", "404", False): 8,
    }


def test_what_nghttpx_logged_of_connections_that_http_1_began() -> None:
    found = found_in("http2_upgrade.txt")
    assert {one.protocol for one in found} == {"http2"}
    assert told(found) == [
        ("GET", "/index.html", "200"),
        ("GET", "/index.html?", "200"),
        ("GET", "/none", "404"),
        ("GET", "/mid", "200"),
        ("GET", "/index.html", "200"),
        ("PUT", "/up", "404"),
    ]


@pytest.mark.parametrize("piece", [None, 1, 100])
def test_what_a_client_of_grpc_got(piece: int | None) -> None:
    found = found_in("grpc.txt", piece)
    assert {one.protocol for one in found} == {"grpc"}
    assert counted(found) == {
        ("/shop.Cart/Get", "OK", False): 10,
        ("/shop.Cart/Fail", "NOT_FOUND", True): 1,
        ("/shop.Cart/Nope", "UNIMPLEMENTED", True): 1,
        ("/shop.Cart/Big", "OK", False): 1,
        ("/shop.Cart/List", "OK", False): 1,
        ("/shop.Cart/Collect", "OK", False): 1,
        ("/shop.Cart/Talk", "OK", False): 1,
        ("/shop.Cart/Slow", "DEADLINE_EXCEEDED", True): 1,
    }
    assert {one.method for one in found if one.resource == "/shop.Cart/Get"} == {"Get"}


@given(st.sampled_from(["http2_nginx.txt", "grpc.txt"]), st.data())
def test_joined_late_what_is_said_is_right(name: str, data: st.DataObject) -> None:
    said = data.draw(st.sampled_from(recorded(name)))
    begin = data.draw(st.integers(1, len(said) - 1))
    before = [sum(len(piece) for side, piece in said[:begin] if side == which) for which in (0, 1)]
    truth = {(one.begin or 0) - before[CLIENT]: one for one in exchanges(said)}
    for one in exchanges(said[begin:]):
        true = truth[one.begin or 0]
        assert one.response_begin == (true.response_begin or 0) - before[SERVER]
        assert one.method in (true.method, "POST", "")
        assert one.resource in (true.resource, "")
        assert one.status in (true.status, "")
        assert one.gap or (one.resource, one.status) == (true.resource, true.status)


def test_a_call_whose_trailers_are_lost_has_no_status() -> None:
    talk = Talk()
    for side, data in HELLO:
        talk.say(side, data)
    grpc = literal(b"content-type", b"application/grpc+proto")
    talk.say(CLIENT, request(1, POST + path(b"/a.B/Get") + grpc))
    talk.say(SERVER, response(1, OK + grpc, 0))
    talk.skip(SERVER, 30)
    found = [(one.protocol, one.method, one.status, one.gap) for one in talk.conversation.pending()]
    assert found == [("grpc", "Get", "", True)]


def test_trailers_that_are_older_than_the_trace_leave_a_status_unknown() -> None:
    talk = Talk()
    for stream in (1, 3):
        talk.say(CLIENT, request(stream, POST + path(b"/a.B/Get") + entry(9)))
        talk.say(SERVER, response(stream, OK + entry(1), 0), response(stream, entry(0)))
    assert {(one.resource, one.status, one.gap) for one in talk.end()} == {("/a.B/Get", "", True)}


def test_a_message_tells_a_call_of_which_all_else_is_older_than_the_trace() -> None:
    talk = Talk()
    for stream in (1, 3):
        talk.say(CLIENT, request(stream, POST + entry(9) + entry(8)))
        trailers = entry(0) + b"\0\x0cgrpc-message\0"
        talk.say(SERVER, response(stream, OK + entry(1), 0), response(stream, trailers))
    found = [(one.protocol, one.method, one.resource, one.status, one.gap) for one in talk.end()]
    assert found == [("grpc", "", "", "", True)] * 2


def test_a_call_that_http_refuses_has_failed() -> None:
    grpc = literal(b"content-type", b"application/grpc")
    said = [
        *HELLO,
        (CLIENT, request(1, POST + path(b"/a.B/C") + grpc)),
        (SERVER, response(1, NOT_FOUND)),
    ]
    (found,) = exchanges(said)
    assert (found.protocol, found.status, found.failed) == ("grpc", "404", True)


def test_calls_can_be_chosen_alone() -> None:
    (calls,) = recorded("grpc.txt")
    assert len(exchanges(calls, [GRPC])) == 17
    for said in recorded("http2_nginx.txt"):
        assert not exchanges(said, [GRPC])


def test_streams_are_counted_without_what_lies_between() -> None:
    said = [
        *HELLO,
        (CLIENT, request(1, POST + SCHEME + path(b"/a"), 0) + request(3, GET + path(b"/b"))),
        (CLIENT, frame(DATA, END_STREAM, 1, b"body")),
        (SERVER, response(3, OK, 0) + response(1, OK, 0) + frame(DATA, END_STREAM, 1, b"x" * 100)),
        (SERVER, frame(DATA, END_STREAM, 3, b"y" * 50)),
    ]
    first, second = exchanges(said)
    assert (first.resource, first.begin, first.end) == ("/a", GREETED, GREETED + 15 + 14 + 13)
    assert (first.request_bytes, first.response_bytes) == (15 + 13, 10 + 109)
    assert (second.resource, second.response_begin) == ("/b", SERVER_GREETED)
    assert second.response_end == SERVER_GREETED + 20 + 109 + 59
    assert second.response_bytes == 10 + 59


def test_a_block_in_several_frames_with_padding_and_priority() -> None:
    block = GET + SCHEME + path(b"/long?token=secret") + literal(b"cookie", b"c" * 100)
    first = b"\x05" + b"\0\0\0\0\x10" + block[:3] + bytes(5)
    asked = frame(HEADERS, END_STREAM | PADDED | PRIORITY, 1, first)
    asked += frame(CONTINUATION, 0, 1, block[3:9]) + frame(CONTINUATION, END_HEADERS, 1, block[9:])
    for piece in (None, 1, 10):
        (found,) = exchanges([*HELLO, (CLIENT, asked), (SERVER, response(1))], piece=piece)
        assert (found.resource, found.begin) == ("/long?", GREETED)
        assert found.end == GREETED + len(asked)


def test_values_are_shown_on_demand() -> None:
    said = [*HELLO, (CLIENT, request(1, GET + path(b"/a?b=c"))), (SERVER, response(1))]
    assert exchanges(said, show_values=True)[0].resource == "/a?b=c"


def test_interim_responses_and_trailers_are_of_the_response() -> None:
    interim = response(1, b"\x48\x03103", 0)
    trailers = response(1, literal(b"x-sum", b"1"))
    body = frame(DATA, 0, 1, b"x")
    said = [*HELLO, (CLIENT, request(1, GET + path(b"/"))), (SERVER, interim + response(1, OK, 0))]
    (found,) = exchanges([*said, (SERVER, body + trailers)])
    assert (found.status, found.response_begin) == ("200", SERVER_GREETED + len(interim))
    assert found.response_end == SERVER_GREETED + len(interim) + 10 + len(body + trailers)


@pytest.mark.parametrize(
    ("side", "code", "status", "failed", "answered"),
    [
        (SERVER, 7, "REFUSED_STREAM", True, True),
        (SERVER, 99, "99", True, True),
        (CLIENT, 8, "CANCEL", False, False),
    ],
)
def test_a_reset_ends_a_request(
    side: int, code: int, status: str, failed: bool, answered: bool
) -> None:
    reset = frame(RST_STREAM, 0, 1, code.to_bytes(4))
    (found,) = exchanges([*HELLO, (CLIENT, request(1, GET + path(b"/"))), (side, reset)])
    assert (found.status, found.failed, found.answered) == (status, failed, answered)
    assert found.response_end == (SERVER_GREETED + 13 if side == SERVER else None)


def test_a_server_that_goes_away_answers_no_newer_requests() -> None:
    asked = [request(stream, GET + path(b"/%d" % stream)) for stream in (1, 3, 5)]
    away = frame(GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4))
    found = exchanges([*HELLO, (CLIENT, b"".join(asked)), (SERVER, away + response(1))])
    assert sorted((one.resource, one.status, one.failed) for one in found) == [
        ("/1", "200", False),
        ("/3", "GOAWAY", True),
        ("/5", "GOAWAY", True),
    ]


def test_a_promise_inserts_fields_and_answers_nothing() -> None:
    promise = frame(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4) + GET + path(b"/pushed"))
    said = [
        *HELLO,
        (CLIENT, request(1, GET + path(b"/"))),
        (SERVER, promise + response(1, literal(b":status", b"418") + entry(1)) + response(2)),
    ]
    assert told(exchanges(said)) == [("GET", "/", "418")]


def test_a_response_may_be_read_before_its_request_was_seen_written() -> None:
    said = [*HELLO, (SERVER, response(1, NOT_FOUND)), (CLIENT, request(1, GET + path(b"/first")))]
    assert told(exchanges(said)) == [("GET", "/first", "404")]


def test_fields_inserted_since_the_start_are_known_and_older_ones_are_not() -> None:
    talk = Talk()
    talk.say(CLIENT, request(7, GET + SCHEME + entry(3)))
    talk.say(SERVER, response(7, OK + entry(0)))
    talk.say(CLIENT, request(9, GET + SCHEME + path(b"/new") + literal(b"a", b"b")))
    talk.say(SERVER, response(9))
    talk.say(CLIENT, request(11, GET + SCHEME + entry(1)), request(13, GET + SCHEME + entry(2)))
    talk.say(SERVER, response(11, FAILED) + response(13))
    found = [(one.resource, one.status, one.failed, one.gap) for one in talk.end()]
    assert found == [
        ("", "200", False, True),
        ("/new", "200", False, False),
        ("/new", "500", True, False),
        ("", "200", False, True),
    ]


def test_a_block_that_was_met_before_inserts_its_fields_again() -> None:
    asked = request(1, GET + path(b"/again")) + request(3, GET + entry(0))
    for _ in range(3):
        found = exchanges([*HELLO, (CLIENT, asked), (SERVER, response(1) + response(3))])
        assert [one.resource for one in found] == ["/again", "/again"]


def test_a_gap_costs_what_was_in_it() -> None:
    talk = Talk()
    for side, data in HELLO:
        talk.say(side, data)
    for stream in (1, 3, 5, 7):
        talk.say(CLIENT, request(stream, GET + path(b"/%d" % stream)))
    talk.say(SERVER, response(1, OK, 0) + frame(DATA, 0, 1, b"x"))
    talk.skip(SERVER, 100)
    talk.say(SERVER, response(5, NOT_FOUND) + frame(DATA, END_STREAM, 3, b"x"))
    talk.say(CLIENT, request(9, GET + entry(0)))
    talk.say(SERVER, response(9, entry(0)) + frame(DATA, END_STREAM, 1, b"x"))
    found = {one.resource: (one.status, one.gap) for one in talk.end()}
    assert found["/5"] == ("404", False)
    assert found["/3"] == ("", True)
    assert found["/1"] == ("200", True)
    assert found["/7"] == ("", True)  # read from the end: nobody knows whether it was answered
    assert [one.gap for one in talk.conversation.pending()] == [True]


def test_what_is_captured_of_bodies_is_enough() -> None:
    talk = Talk(captured=100)
    for side, data in HELLO:
        talk.say(side, data)
    for stream in range(1, 41, 2):
        talk.say(CLIENT, request(stream, GET + path(b"/")))
        talk.say(SERVER, response(stream, OK, 0) + frame(DATA, 0, stream, bytes(16_000)))
        talk.say(SERVER, frame(DATA, END_STREAM, stream))
    assert counted(talk.end()) == {("/", "200", False): 20}
    assert not talk.conversation.gaps


@pytest.mark.parametrize(
    "nonsense",
    [
        frame(DATA, END_STREAM, 0, b"x"),
        frame(HEADERS, 0x40, 3, OK),
        frame(RST_STREAM, 0, 1, b"123"),
        frame(0x66, 0, 1),
        frame(HEADERS, END_HEADERS, 3, b"\x80"),
        frame(HEADERS, END_HEADERS, 3, b"\x44\x7f\xff\xff\xff\xff\xff"),
        frame(HEADERS, END_HEADERS | PADDED, 3, b"\x09\x82"),
        frame(CONTINUATION, END_HEADERS, 1, OK),
        frame(HEADERS, 0, 3, OK) + frame(DATA, 0, 1),
    ],
)
def test_nonsense_is_no_http_2(nonsense: bytes) -> None:
    talk = Talk([HTTP2])
    for side, data in HELLO:
        talk.say(side, data)
    talk.say(CLIENT, request(1, GET + path(b"/")))
    talk.say(SERVER, nonsense)
    assert talk.conversation.parser is None
    assert [one.resource for one in talk.end()] == ["/"]


def test_streams_without_end_are_bounded() -> None:
    talk = Talk([HTTP2])
    for side, data in HELLO:
        talk.say(side, data)
    for stream in range(1, 2 * STREAMS_MAX + 5, 2):
        talk.say(CLIENT, request(stream, GET + entry(0)))
    assert not talk.conversation.pending()
    assert len(talk.conversation.done) == STREAMS_MAX


@pytest.mark.parametrize("size", range(1, len(PREFACE)))
def test_a_part_of_the_preface_may_become_one(size: int) -> None:
    assert HTTP2.request(PREFACE[:size]) is Match.MORE


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(9),
        bytes(64),
        b"\0\0\0\x17\0\x12\0\0\0\0\0\1\0\4test",  # Kafka's ApiVersions
        b"\x16\x03\x01\x00\x05\x01\0\0\1\0",
        frame(SETTINGS, 0, 1),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(HEADERS, END_HEADERS, 1, b"\xff"),
    ],
)
def test_what_is_no_request_and_no_response(data: bytes) -> None:
    assert HTTP2.request(data) is not Match.YES
    assert HTTP2.response(data) is not Match.YES
