"""Secrets in payload are overwritten, also where a message ends amid one."""

from __future__ import annotations

import numpy as np
import pytest

from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events._wire import EventKind
from tcprism.stages.redact import Redact

from .records import Fields, messages, segments


def shown(*payloads: bytes, also: tuple[str, ...] = (), cut: int = 0) -> list[bytes]:
    """Return what is left of messages of one stream; `cut`: bytes of each that are not captured."""
    stage = Redact(also)
    return [
        part.payloads()[0]
        for payload in payloads
        for part in stage(
            Batch([messages({"payload": payload, "bytes": len(payload) + cut}, payload_class=256)])
        ).parts
    ]


@pytest.mark.parametrize(
    ("payload", "secret"),
    [
        (b"GET / HTTP/1.1\r\nAuthorization: Basic dTpw\r\nHost: a\r\n", b"Basic dTpw"),
        (b"GET / HTTP/1.1\r\ncookie: a=b; c=d\r\n\r\n", b"a=b; c=d"),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie:sid=38; Path=/\r\n\r\n", b"sid=38; Path=/"),
        (b"X-Api-Key: 0123\r\n", b"0123"),
        (b"user=me&password=hunter2&x=1", b"hunter2"),
        (b"GET /?access_token=ab.cd HTTP/1.1", b"ab.cd"),
        (b'{"user": "me", "password" : "hun\\"ter2", "x": 1}', b'hun\\"ter2'),
        (b"ALTER ROLE me PASSWORD 'hunter2' LOGIN", b"hunter2"),
        (b"*2\r\n$4\r\nAUTH\r\n$7\r\nhunter2\r\n*1\r\n", b"hunter2"),
        (b"card=4111 1111 1111 1111;", b"4111 1111 1111 1111"),
        (b"card: 4111111111111111.", b"4111111111111111"),
    ],
)
def test_secrets(payload: bytes, secret: bytes) -> None:
    if payload.endswith(b"."):
        payload = payload[:-1]
    assert shown(payload) == [payload.replace(secret, b"*" * len(secret))]


def test_what_was_overwritten_is_not_held_any_more() -> None:
    """Records and payload are views of one block: with one of them the other would stay."""
    batch = Batch([messages({"payload": b"password=hunter2"}, payload_class=256)])
    (before,), (after,) = batch.parts, Redact()(batch).parts
    assert b"hunter2" not in after.payloads()[0]
    assert not np.shares_memory(before.rows, after.rows)
    assert after.rows.tobytes() == before.rows.tobytes()


@pytest.mark.parametrize(
    "payload",
    [
        b"GET /authorization: HTTP/1.1",
        b"the password is secret, she said",
        b"4111111111111112",  # the check digit is wrong
        b"0000000000000000",
        b"1764423032.858179 123456789",
    ],
)
def test_all_else_stays(payload: bytes) -> None:
    assert shown(payload) == [payload]


def test_a_secret_in_two_messages() -> None:
    first, second = b"GET / HTTP/1.1\r\nCookie: sid=", b"12345; a=b\r\nHost: a\r\n"
    assert shown(first, second) == [
        b"GET / HTTP/1.1\r\nCookie: ****",
        b"**********\r\nHost: a\r\n",
    ]


def test_a_name_in_two_messages() -> None:
    assert shown(b"x=1&passw", b"ord=hunter2&y=2") == [b"x=1&passw", b"ord=*******&y=2"]


def test_what_comes_behind_bytes_that_were_not_captured_is_read_by_itself() -> None:
    assert shown(b"password=hun", b"ter2&x=1", cut=10) == [b"password=***", b"ter2&x=1"]


def test_what_a_user_adds() -> None:
    also = ("badge ([0-9]+)", "(?i)top secret")
    assert shown(b"badge 42, Top Secret", also=also) == [b"badge **, **********"]


def test_an_expression_that_is_none() -> None:
    for text in ("(", "a{99999999999999999999}", "\udcff", "(" * 10_000 + ")" * 10_000):
        with pytest.raises(UsageError, match=r"--redact-also: '.*' is no regular expression"):
            Redact([text])


SYN, ISN, LAST = 2, 2**32 - 5, 2**32  # the numbers wrap around in the first segment
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b"
REST = b"cd; e=f\r\nAccept: */*\r\n\r\n"


def of_segments(*events: Fields) -> list[bytes]:
    """Return what is left of segments that a SYN went before; `at` is the place of their bytes."""
    stage = Redact(segments=True)
    stage(Batch([segments({"seq": ISN, "flags": SYN})]))
    found = []
    for event in events:
        seq = (ISN + 1 + event["at"]) % LAST
        rest = {name: value for name, value in event.items() if name != "at"}
        made = messages({"kind": EventKind.TRANSMIT, "seq": seq} | rest, family="segment")
        (part,) = stage(Batch([made])).parts
        found += part.payloads()
    return found


def test_a_secret_that_two_segments_share() -> None:
    found = of_segments({"at": 0, "payload": HEAD}, {"at": len(HEAD), "payload": REST})
    assert found == [HEAD.replace(b"a=b", b"***"), REST.replace(b"cd; e=f", b"*" * 7)]


@pytest.mark.parametrize(
    "before",
    [
        [],  # it was not seen
        [{"at": 0, "payload": HEAD[:20], "bytes": len(HEAD)}],
        [{"at": 5, "payload": HEAD[5:]}],
        [{"at": len(HEAD) + len(REST), "payload": b"x"}, {"at": 0, "payload": HEAD}],  # disorder
    ],
)
def test_what_follows_missing_bytes_may_be_a_secret(before: list[Fields]) -> None:
    *_, last = of_segments(*before, {"at": len(HEAD), "payload": REST})
    assert last == b"*" * len(REST)


def test_a_repeated_segment_hides_nothing_that_follows() -> None:
    first = {"at": 0, "payload": HEAD}
    _, again, rest = of_segments(first, first, {"at": len(HEAD), "payload": REST})
    assert again == b"*" * len(HEAD)
    assert rest.endswith(b"Accept: */*\r\n\r\n")
    assert b"e=f" not in rest


def test_a_connection_that_began_before() -> None:
    stage = Redact(segments=True)
    (part,) = stage(Batch([messages({"seq": 7, "payload": REST}, family="segment")])).parts
    assert part.payloads() == [b"*" * len(REST)]
