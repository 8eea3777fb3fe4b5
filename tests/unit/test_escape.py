"""Escaping: nothing harmful comes out, and nothing gets lost."""

import base64
import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tcprism.events import Part
from tcprism.events.escape import (
    escape,
    escape_payloads,
    escape_payloads_for_json,
    escape_payloads_in_lines,
)
from tcprism.sinks.base64_payload import base64_payloads

from .records import messages

# Text with a few kinds of control character takes another way than arbitrary bytes.
text = st.text("ab \\\"'\r\n\t~", max_size=64).map(str.encode)
payloads = st.lists(st.binary(max_size=64) | text, min_size=1, max_size=20)
text_payloads = st.lists(text, min_size=1, max_size=20)


def part_of(captured: list[bytes]) -> Part:
    return messages(*({"payload": payload} for payload in captured))


def unescape(shown: str) -> bytes:
    """Undo the escaping as its description says."""

    def byte(match: re.Match[bytes]) -> bytes:
        return b"\\" if match[0] == rb"\\" else bytes.fromhex(match[1].decode())

    return re.sub(rb"\\\\|\\x([0-9a-f]{2})", byte, shown.encode("ascii"))


@given(st.binary())
def test_escape_is_printable_and_reversible(data: bytes) -> None:
    shown = escape(data)
    assert shown.isascii()
    assert shown.isprintable()
    assert unescape(shown) == data


def test_examples() -> None:
    assert escape(b"GET / HTTP/1.1\r\n") == "GET / HTTP/1.1\\x0d\\x0a"
    assert escape(b"C:\\x0a") == "C:\\\\x0a"
    assert escape(b"\x1b[2J\x7f\x80") == "\\x1b[2J\\x7f\\x80"
    assert escape("é".encode()) == "\\xc3\\xa9"


@given(payloads | text_payloads)
@example([b"\x00"] * 3)
@example([b"", b"\x7f", b"\xfe\xff", b"\n"])
def test_many_payloads_are_escaped_like_one(captured: list[bytes]) -> None:
    assert escape_payloads(part_of(captured)) == list(map(escape, captured))


@given(payloads | text_payloads)
def test_lines_break_behind_an_escaped_newline_only(captured: list[bytes]) -> None:
    for payload, shown in zip(
        captured, escape_payloads_in_lines(part_of(captured), "  "), strict=True
    ):
        lines = shown.split("\n  ")
        assert "".join(lines) == escape(payload)
        breaks = payload.count(b"\n") - payload.endswith(b"\n")
        assert len(lines) == breaks + 1
        assert all(line.endswith("\\x0a") for line in lines[:-1])


@given(payloads | text_payloads)
def test_json_strings_hold_the_escaped_text(captured: list[bytes]) -> None:
    import json

    for payload, shown in zip(captured, escape_payloads_for_json(part_of(captured)), strict=True):
        assert json.loads(f'"{shown}"') == escape(payload)


@given(payloads | text_payloads)
def test_base64_of_many_payloads(captured: list[bytes]) -> None:
    expected = [f"<{base64.b64encode(payload).decode()}>" for payload in captured]
    assert base64_payloads(part_of(captured), "<", ">") == expected


def test_more_payload_than_is_escaped_at_once() -> None:
    captured = [bytes([byte]) * 2000 for byte in range(256)] * 2
    part = messages(*({"payload": payload} for payload in captured), payload_class=2048)
    assert escape_payloads(part) == list(map(escape, captured))
    assert base64_payloads(part) == [base64.b64encode(data).decode() for data in captured]


def test_nothing_captured_in_a_whole_part() -> None:
    part = part_of([b"", b""])
    assert escape_payloads(part) == ["", ""]
    assert base64_payloads(part, '"', '"') == ['""', '""']
    without = Part(part.rows)
    assert escape_payloads(without) == ["", ""]
    assert base64_payloads(without) == ["", ""]


def test_empty_part() -> None:
    empty = Part(messages({}).rows[:0], np.empty((0, 64), np.uint8))
    assert escape_payloads(empty) == []
    assert base64_payloads(empty) == []
