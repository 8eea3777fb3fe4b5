"""Secrets in HTTP/2: values in header blocks, however these are framed, coded and cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.events import Batch
from tcprism.events._wire import EventKind
from tcprism.protocols.http2_frames import PREFACE
from tcprism.stages.redact import Redact

from .protocols.test_hpack import RESPONSES
from .protocols.test_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PADDED,
    PRIORITY,
    SETTINGS,
    frame,
    literal,
)
from .records import messages

# RFC 7541, C.6.3: its last field is set-cookie, a string of 45 bytes in Huffman code.
COOKIE = bytes.fromhex(RESPONSES[2])
NO_COOKIE = COOKIE[:-45] + b"\xf9" * 45
HELLO = frame(SETTINGS, 0, 0)
AUTHORIZATION = b"\x0f\x08"  # a literal that is not inserted: name 23 of the static table
SECRET = AUTHORIZATION + b"\x07hunter2"
NO_SECRET = AUTHORIZATION + b"\x07*******"


def shown(*payloads: bytes, cut: int = 0, also: tuple[str, ...] = ()) -> list[bytes]:
    """Return what is left of messages of one stream; `cut`: bytes of each that are not captured."""
    stage = Redact(also)
    return [
        stage(
            Batch([messages({"payload": payload, "bytes": len(payload) + cut}, payload_class=1024)])
        )
        .parts[0]
        .payloads()[0]
        for payload in payloads
    ]


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes behind HELLO, which tells what they are."""
    cuts = [0, *sorted(len(HELLO) + place % (len(data) - len(HELLO)) for place in places)]
    return [data[begin:end] for begin, end in pairwise([*cuts, len(data)]) if end > begin]


FRAMED = {
    "in one frame": lambda block: frame(HEADERS, END_HEADERS, 1, block),
    "padded, with a priority": lambda block: frame(
        HEADERS, END_HEADERS | PADDED | PRIORITY, 1, b"\x03" + b"\0\0\0\0\x10" + block + b"\0\0\0"
    ),
    "continued": lambda block: (
        frame(HEADERS, 0, 1, block[:20])
        + frame(CONTINUATION, 0, 1, block[20:-30])
        + frame(CONTINUATION, END_HEADERS, 1, block[-30:])
    ),
}


@pytest.mark.parametrize("how", FRAMED)
@given(places=st.lists(st.integers(1, 1000), max_size=6))
def test_a_cookie_however_it_is_cut(how: str, places: list[int]) -> None:
    data = HELLO + FRAMED[how](COOKIE) + FRAMED[how](SECRET + COOKIE)
    redacted = HELLO + FRAMED[how](NO_COOKIE) + FRAMED[how](NO_SECRET + NO_COOKIE)
    assert b"".join(shown(*split(data, places))) == redacted


@pytest.mark.parametrize(
    ("field", "left"),
    [
        (literal(b"x-api-key", b"0123"), literal(b"x-api-key", b"****")),
        (literal(b"cookie", b"a=b"), literal(b"cookie", b"***")),
        (b"\x44\x0b/?token=abc", b"\x44\x0b***********"),  # :path
        (b"\x7e\x07hunter2", b"\x7e\x07*******"),  # a name of the dynamic table
        (b"\x7e\x0212", b"\x7e\x0212"),  # such as a status of gRPC
        (literal(b"accept", b"text/html"), literal(b"accept", b"text/html")),
        (literal(b"badge", b"nr 42"), literal(b"badge", b"*****")),
    ],
)
def test_fields(field: bytes, left: bytes) -> None:
    data = PREFACE + HELLO + frame(HEADERS, END_HEADERS, 1, b"\x82" + field + b"\x86")
    redacted = PREFACE + HELLO + frame(HEADERS, END_HEADERS, 1, b"\x82" + left + b"\x86")
    assert shown(data, also=("badge: nr ([0-9]+)",)) == [redacted]


def test_a_connection_that_is_older() -> None:
    data = frame(HEADERS, END_HEADERS, 77, b"\xc0\xbf" + SECRET)
    assert shown(data) == [frame(HEADERS, END_HEADERS, 77, b"\xc0\xbf" + NO_SECRET)]


def test_bodies_in_frames() -> None:
    data = HELLO + frame(DATA, 0, 1, b"a=1&passwo") + frame(DATA, 0, 1, b"rd=hunter2&b=2")
    redacted = HELLO + frame(DATA, 0, 1, b"a=1&passwo") + frame(DATA, 0, 1, b"rd=*******&b=2")
    assert shown(data) == [redacted]


def test_what_nobody_can_tell_is_overwritten_until_a_message_begins_with_a_frame() -> None:
    again = frame(HEADERS, END_HEADERS, 3, SECRET)
    rest = b"hunter2 and so on"
    found = shown(HELLO + frame(HEADERS, END_HEADERS, 1, COOKIE), rest, again, cut=5)
    assert found[0] == HELLO + frame(HEADERS, END_HEADERS, 1, NO_COOKIE)
    assert found[1] == b"*" * len(rest)
    assert found[2] == frame(HEADERS, END_HEADERS, 3, NO_SECRET)


def test_a_body_that_is_captured_in_part_is_passed_over() -> None:
    first = HELLO + frame(DATA, 0, 1, b"x" * 105)[:-5]
    again = frame(DATA, 0, 3, b"y" * 5) + frame(HEADERS, END_HEADERS, 3, SECRET)
    redacted = frame(DATA, 0, 3, b"y" * 5) + frame(HEADERS, END_HEADERS, 3, NO_SECRET)
    assert shown(first, again[:-5], cut=5)[1] == redacted[:-5]


def test_messages_are_read_in_their_order() -> None:
    """They come in parts by their size."""
    block = frame(HEADERS, END_HEADERS, 1, SECRET)
    pieces = [HELLO + block[:5], block[5:]]
    rows = [
        {"payload": piece, "bytes": len(piece), "ts_ns": place, "kind": EventKind.SEND}
        for place, piece in enumerate(pieces)
    ]
    batch = Batch([messages(rows[1], payload_class=64), messages(rows[0], payload_class=256)])
    found = Redact()(batch).parts
    assert found[1].payloads()[0] + found[0].payloads()[0] == (
        HELLO + frame(HEADERS, END_HEADERS, 1, NO_SECRET)
    )


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(pieces: list[bytes]) -> None:
    found = shown(HELLO, *pieces)
    assert [len(one) for one in found] == [len(HELLO), *map(len, pieces)]
