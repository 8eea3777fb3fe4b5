"""HPACK: the examples of RFC 7541, appendix C."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.protocols import NotThisProtocol
from tcprism.protocols.hpack import AUTHORITY, METHOD, PATH, STATUS, UNKNOWN, Decoder
from tcprism.protocols.huffman import _SYMBOLS, decode

REQUESTS = (  # C.4
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)
RESPONSES = (  # C.6
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
    "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335"
    "dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
)


def test_requests_of_the_rfc() -> None:
    decoder = Decoder()
    fields = [decoder.decode(bytes.fromhex(block)) for block in REQUESTS]
    assert [(each[METHOD], each[PATH]) for each in fields] == [
        (b"GET", b"/"),
        (b"GET", b"/"),
        (b"GET", b"/index.html"),
    ]
    assert {each[AUTHORITY] for each in fields} == {b"www.example.com"}


def test_responses_of_the_rfc() -> None:
    decoder = Decoder()
    fields = [decoder.decode(bytes.fromhex(block)) for block in RESPONSES]
    assert fields == [{STATUS: b"302"}, {STATUS: b"307"}, {STATUS: b"200"}]


def test_what_was_inserted_before_is_unknown() -> None:
    decoder = Decoder()
    assert decoder.decode(bytes.fromhex(REQUESTS[1])).keys() == {METHOD, PATH, UNKNOWN}
    decoder.decode(bytes.fromhex(REQUESTS[0]))
    decoder.forget()
    assert AUTHORITY not in decoder.decode(bytes.fromhex(REQUESTS[1]))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("6402", b"302"),
        ("aec3771a4b", b"private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
    ],
)
def test_strings_of_the_rfc(code: str, text: bytes) -> None:
    assert decode(bytes.fromhex(code)) == text


def test_the_code_has_each_symbol_once_and_is_complete() -> None:
    symbols = [bytes.fromhex(symbols) for symbols in _SYMBOLS.values()]
    assert sorted(b"".join(symbols)) == list(range(256))
    lengths = [length for length, symbols in _SYMBOLS.items() for _ in bytes.fromhex(symbols)]
    end_of_string = 30
    assert sum(Fraction(1, 2**length) for length in [*lengths, end_of_string]) == 1


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_fields_or_nonsense(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        with contextlib.suppress(NotThisProtocol):
            decoder.decode(block)
