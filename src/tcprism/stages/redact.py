"""Overwrite secrets in payload, before anything else sees it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events.connection import connection_keys
from tcprism.protocols.hpack_literals import HUFFMAN_ASTERISK, Literal
from tcprism.protocols.http2_literals import Http2Literals, begins

STREAMS_MAX = 65_536  # of which the end of the latest message is remembered
MASK = ord("*")

_STATUS = 3  # digits
_TAIL = 48  # bytes: the longest name of a secret, and what stands between it and the secret
_NAMES = rb"(?:access_|refresh_|id_)?token|pass(?:word|wd)?|pwd|(?:client_)?secret|api_?key"

# What comes before a secret, and the secret. A group is the secret where there is one.
_SECRETS = (
    rb"(?:^|[\r\n])(?:proxy-)?authorization:[ \t]*([^\r\n]*)",
    rb"(?:^|[\r\n])(?:set-)?cookie:[ \t]*([^\r\n]*)",
    rb"(?:^|[\r\n])x-(?:api-key|auth-token):[ \t]*([^\r\n]*)",
    rb"(?:\b|_)(?:" + _NAMES + rb")=([^&\s;\"']*)",
    rb"\"(?:" + _NAMES + rb")\"\s{0,4}:\s{0,4}\"((?:[^\"\\]|\\.)*)",
    rb"\b(?:password|identified by)\s{1,4}'([^']*)",
    # Redis, RESP: AUTH [username] password
    rb"\r\nauth\r\n\$\d{1,9}\r\n([^\r\n]*(?:\r\n\$\d{1,9}\r\n[^\r\n]*)?)",
)
_CARD = rb"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-])"


_Fill = tuple[int, int, int]
_Span = tuple[int, int, int, int]


@dataclass(slots=True)
class _Stream:
    """What is remembered of one direction of a connection: the end of the latest message."""

    tail: bytes = b""
    http2: Http2Literals | None = None


class Redact:
    """A stage that overwrites secrets in payload with `*`: credentials, cookies, card numbers.

    `more` are regular expressions of bytes for others: the first group is overwritten, or all that
    matches. A secret may begin in one message and end in the next. In the headers of HTTP/2, a
    whole value is overwritten that has one, and each whose name is not in the block. What is
    compressed otherwise is not looked into. Raises UsageError for what is no expression.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        own = [_compiled(text) for text in more]
        self._secrets = [re.compile(b"|".join(_SECRETS), re.IGNORECASE), *own]
        self._card = re.compile(_CARD)
        self._streams: OrderedDict[tuple[int, ...], _Stream] = OrderedDict()

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without secrets."""
        told = [part for part in batch.parts if part.payload is not None]
        found = self._find(told) if told else {}
        parts = [
            replace(part, payload=_overwritten(part.payload, found[id(part)]))
            if id(part) in found
            else part
            for part in batch.parts
        ]
        return Batch(parts, batch.clock_offset_ns)

    def _find(self, parts: list[Part]) -> dict[int, list[_Span]]:
        """Return what to overwrite in which parts: row, begin, end and with what."""
        columns = [zip(_keys(part), part.payloads(), _missing(part), strict=True) for part in parts]
        messages = [[*column] for column in columns]
        found: dict[int, list[_Span]] = {}
        for place, row in zip(*(each.tolist() for each in Batch(parts).order()), strict=True):
            key, data, missing = messages[place][row]
            for begin, end, fill in self._in_message(key, data, missing):
                if end > begin:
                    found.setdefault(id(parts[place]), []).append((row, begin, end, fill))
        while len(self._streams) > STREAMS_MAX:
            self._streams.popitem(last=False)
        return found

    def _in_message(self, key: tuple[int, ...], data: bytes, missing: int) -> Iterator[_Fill]:
        stream = self._streams.pop(key, None) or _Stream()
        self._streams[key] = stream
        if not stream.http2 and begins(data):
            stream.http2 = Http2Literals()
        if stream.http2:
            found = stream.http2.read(data, missing)
            yield from ((*span, MASK) for span in found.unknown)
            yield from (
                (one.begin, one.end, HUFFMAN_ASTERISK if one.coded else MASK)
                for one in found.literals
                if self._has_secret(one)
            )
            text = b"".join(data[begin:end] for begin, end in found.bodies)
            for begin, end in self._in_text(stream, text, missing):
                yield from ((*span, MASK) for span in _in_pieces(found.bodies, begin, end))
        else:
            yield from ((*span, MASK) for span in self._in_text(stream, data, missing))

    def _in_text(self, stream: _Stream, data: bytes, missing: int) -> Iterator[tuple[int, int]]:
        if not data:
            return
        spans = list(self._spans(stream.tail, data))
        yield from ((begin, end) for begin, end, _ in spans)
        stream.tail = b"" if missing else _tail(stream.tail, data, spans)

    def _has_secret(self, header: Literal) -> bool:
        """Tell whether a header's value has one, or may have."""
        if header.name is None:  # but for a status
            return not (header.value.isdigit() and len(header.value) <= _STATUS)
        line = b"\r\n%b: %b" % (header.name, header.value)
        return any(end > begin for begin, end, _ in self._spans(b"", line))

    def _spans(self, tail: bytes, data: bytes) -> Iterable[tuple[int, int, bytes]]:
        """Yield where secrets are in `data`, which follows `tail`, and what comes before each."""
        text = tail + data
        for pattern in self._secrets:
            for match in pattern.finditer(text):
                begin, end = match.span(match.lastindex or 0)
                before = text[match.start() : begin]
                yield max(begin - len(tail), 0), end - len(tail), before[-_TAIL:]
        for match in self._card.finditer(data):
            if _has_check_digit(match[0]):
                yield *match.span(), b""


def _keys(part: Part) -> list[tuple[int, ...]]:
    """Return what tells the streams of messages apart; those of TLS may have no addresses."""
    columns = [connection_keys(part.rows), part.rows["kind"]]
    if part.family == "tls":
        columns += [part.rows["pid"], part.rows["session"]]
    return [*zip(*(column.tolist() for column in columns), strict=True)]


def _missing(part: Part) -> list[int]:
    """Return how many bytes of each message were not captured."""
    missing: list[int] = (part.rows["bytes"].astype(np.int64) - part.payload_lengths()).tolist()
    return missing


def _compiled(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise UsageError(f"--redact-also: {text!r} is no regular expression: {error}") from error


def _tail(before: bytes, data: bytes, spans: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return what the next message is to be read behind: a secret may go on there."""
    open_ones = [start for _, end, start in spans if end == len(data) and start]
    return open_ones[-1] if open_ones else (before + data)[-_TAIL:]


def _in_pieces(
    pieces: Iterable[tuple[int, int]], begin: int, end: int
) -> Iterator[tuple[int, int]]:
    """Yield where something is in a message, found in pieces of it laid end to end."""
    at = 0
    for start, stop in pieces:
        size = stop - start
        if begin < at + size and end > at:
            yield start + max(begin - at, 0), start + min(end - at, size)
        at += size


def _overwritten(payload: NDArray[np.uint8] | None, found: Iterable[_Span]) -> NDArray[np.uint8]:
    assert payload is not None
    copy = payload.copy()
    for row, begin, end, fill in found:
        copy[row, begin:end] = fill
    return copy


def _has_check_digit(text: bytes) -> bool:
    """Tell whether digits are a card's number: ISO/IEC 7812-1, annex B."""
    digits = [byte - 48 for byte in reversed(text) if 48 <= byte <= 57]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0
