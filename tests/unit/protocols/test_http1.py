"""HTTP/1: what RFC 9112 says of the length of messages, pipelining, upgrades, late starts, gaps."""

import pytest

from tcprism.protocols.http1 import HTTP1

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

GET = b"GET /cart/7?token=secret HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED += b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"


# What nginx 1.22 logged while record.py wrote recorded/http1.txt: curl with HEAD, chunked bodies
# both ways, an interim response and kept connections; six pipelined requests, one of HTTP/1.0.
LOGGED = [
    ("GET", "/hello", "200"),
    ("GET", "/broken", "503"),
    ("HEAD", "/hello", "200"),
    ("POST", "/shop/cart", "200"),
    ("POST", "/shop/chunked", "200"),
    ("POST", "/shop/expect", "200"),
    ("POST", "/empty", "204"),
    ("POST", "/none", "404"),
    ("GET", "/hello", "200"),
    ("GET", "/none", "404"),
    ("GET", "/empty", "204"),
    ("GET", "/text.txt", "200"),
    ("GET", "/hello", "200"),
    ("GET", "/shop/many", "200"),
    ("GET", "/hello", "200"),
]


def test_what_nginx_logged() -> None:
    found = [one for said in recorded("http1.txt") for one in exchanges(said)]
    assert [(method, path.rstrip("?"), status) for method, path, status in told(found)] == LOGGED
    assert not any(one.gap for one in found)
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_exchanges_have_their_exact_bytes(piece: int) -> None:
    found = exchanges([(CLIENT, GET), (SERVER, OK), (CLIENT, GET), (SERVER, CHUNKED)], piece=piece)
    assert told(found) == [("GET", "/cart/7?", "200")] * 2
    first, second = found
    assert (first.begin, first.end) == (1000, 1000 + len(GET))
    assert (first.response_begin, first.response_end) == (5000, 5000 + len(OK))
    assert (second.response_begin, second.response_end) == (
        5000 + len(OK),
        5000 + len(OK) + len(CHUNKED),
    )


def test_values_are_shown_on_demand() -> None:
    (found,) = exchanges([(CLIENT, GET), (SERVER, OK)], show_values=True)
    assert found.resource == "/cart/7?token=secret"


def test_pipelined_requests_are_answered_in_their_order() -> None:
    paths = [f"/{number}" for number in range(50)]
    asked = b"".join(b"GET %s HTTP/1.1\r\n\r\n" % path.encode() for path in paths)
    found = exchanges([(CLIENT, asked), (SERVER, OK * 50)])
    assert [one.resource for one in found] == paths


@pytest.mark.parametrize(
    ("request_head", "response", "length"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 None\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200\r\ncontent-LENGTH:  3\r\n\r\n", 3),
    ],
)
def test_lengths_of_bodies(request_head: bytes, response: bytes, length: int) -> None:
    said = [(CLIENT, request_head), (SERVER, response + b"x" * length)] * 2
    found = exchanges(said)
    assert [(one.response_begin, one.response_end) for one in found] == [
        (5000, 5000 + len(response) + length),
        (5000 + len(response) + length, 5000 + 2 * (len(response) + length)),
    ]


def test_an_interim_response_is_not_the_response() -> None:
    post = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    said = [
        (CLIENT, post),
        (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CLIENT, b"body"),
        (SERVER, OK),
    ]
    (found,) = exchanges(said)
    assert found.status == "200"
    assert found.end == 1000 + len(post) + 4


def test_a_body_without_length_ends_with_the_connection() -> None:
    talk = Talk()
    talk.say(CLIENT, b"GET / HTTP/1.0\r\n\r\n")
    talk.say(SERVER, b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 10_000, b"HTTP/1.1 200 OK\r\n\r\n")
    assert not talk.conversation.done
    (found,) = talk.end()
    assert found.response_end == 5000 + 19 + 10_000 + 19


def test_bodies_need_not_be_captured() -> None:
    talk = Talk(captured=100)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    for _ in range(3):
        talk.say(CLIENT, GET)
        talk.say(SERVER, head + bytes(1_000_000))
    found = talk.end()
    assert told(found) == [("GET", "/cart/7?", "200")] * 3
    assert not any(one.gap for one in found)
    assert not talk.conversation.gaps


def test_a_gap_is_told_and_the_next_request_is_right() -> None:
    talk = Talk()
    talk.say(CLIENT, GET)
    talk.skip(SERVER, 300)
    talk.say(CLIENT, b"GET /next HTTP/1.1\r\n\r\n")
    talk.say(SERVER, OK)
    found = talk.end()
    assert told(found)[-1] == ("GET", "/next", "200")
    assert [one.gap for one in found] == [True, False]


def test_a_connection_joined_late() -> None:
    talk = Talk()
    talk.say(SERVER, b"the rest of a body", b"and more")
    talk.say(CLIENT, GET)
    talk.say(SERVER, OK)
    talk.say(CLIENT, GET)
    talk.say(SERVER, OK)
    assert told(talk.end())[-1] == ("GET", "/cart/7?", "200")


def test_after_connect_nothing_is_guessed() -> None:
    said = [
        (CLIENT, b"CONNECT a:443 HTTP/1.1\r\n\r\n"),
        (SERVER, b"HTTP/1.1 200 OK\r\n\r\n"),
        (CLIENT, bytes(range(256)) * 10),
        (SERVER, bytes(range(256)) * 10),
    ]
    assert told(exchanges(said)) == [("CONNECT", "a:443", "200")]


def test_an_unanswered_request_is_pending() -> None:
    talk = Talk([HTTP1])
    talk.say(CLIENT, GET)
    talk.say(SERVER, OK)
    talk.say(CLIENT, GET)
    assert [one.method for one in talk.conversation.pending()] == ["GET"]


def test_a_request_whose_response_fell_into_a_long_gap_takes_no_other() -> None:
    talk = Talk()
    for path in (b"/first", b"/second", b"/third"):
        talk.say(CLIENT, b"GET %s HTTP/1.1\r\n\r\n" % path)
        if path == b"/third":
            talk.say(SERVER, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        else:
            talk.skip(SERVER, 300)
    found = [(one.resource, one.status, one.gap) for one in talk.end()]
    assert found == [("/first", "", True), ("/second", "", True), ("/third", "404", False)]


def test_an_upload_may_come_first() -> None:
    head = b"PUT /file HTTP/1.1\r\nContent-Length: 400000\r\n\r\n"
    talk = Talk(captured=4096)
    talk.say(CLIENT, head + bytes(100_000), *(bytes(100_000) for _ in range(3)))
    talk.say(SERVER, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    (found,) = talk.end()
    assert (found.method, found.status, found.gap) == ("PUT", "201", False)
    assert found.end == 1000 + len(head) + 400_000


def test_a_connection_joined_amid_a_captured_body() -> None:
    talk = Talk(captured=100)
    talk.say(SERVER, *(b"x" * 1000 for _ in range(100)))
    talk.say(CLIENT, GET)
    talk.say(SERVER, OK)
    (found,) = talk.end()
    assert (found.status, found.response_begin) == ("200", 5000 + 100_000)
