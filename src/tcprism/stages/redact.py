"""Overwrite secrets in payload, before anything else sees it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcprism import interrupts
from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events.connection import connection_keys
from tcprism.events.names import TcpFlag
from tcprism.protocols.hpack_literals import HUFFMAN_ASTERISK, Literal
from tcprism.protocols.http2_literals import Http2Literals, begins
from tcprism.stages.secrets import TAIL, secrets

STREAMS_MAX = 65_536  # of which the end of the latest message is remembered
MASK = ord("*")

_SEQUENCES, _HALF = (1 << 32) - 1, 1 << 31
_STATUS = 3  # digits

_Fill = tuple[int, int, int]
_Span = tuple[int, int, int, int]


@dataclass(slots=True)
class _Stream:
    """What is remembered of one direction of a connection: the end of the latest message.

    Of segments, also the sequence number up to which all bytes were seen, None: some are missing.
    """

    tail: bytes = b""
    http2: Http2Literals | None = None
    seen_to: int | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """A message or segment: its stream, the bytes captured, and how many were not.

    Of a segment also where its first byte stands, and whether the stream begins with it.
    """

    key: tuple[int, ...]
    data: bytes
    missing: int
    seq: int | None = None
    begins: bool = False


class Redact:
    """A stage that overwrites secrets in payload with `*`: credentials, cookies, card numbers.

    `more` are regular expressions of bytes for others: the first group is overwritten, or all that
    matches. A secret may begin in one message and end in the next. In the headers of HTTP/2, a
    whole value is overwritten that has one, and each whose name is not in the block. What is
    compressed otherwise is not looked into. Raises UsageError for what is no expression.

    Messages begin where a program begins to write, segments anywhere: of these, with `segments`,
    all is overwritten that comes behind bytes that are missing. It must be shown each of them.
    """

    def __init__(self, more: Iterable[str] = (), segments: bool = False) -> None:
        self._own = [compiled(text) for text in more]
        self._streams: OrderedDict[tuple[int, ...], _Stream] = OrderedDict()
        self._families = ("message", "tls", *(("segment",) if segments else ()))

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without secrets."""
        wanted = [part for part in batch.parts if part.family in self._families and len(part)]
        told = [part for part in wanted if part.payload is not None or part.family == "segment"]
        found = self._find(told) if told else {}
        parts = [
            _overwritten(part, found[id(part)]) if id(part) in found else part
            for part in batch.parts
        ]
        return Batch(parts, batch.clock_offset_ns)

    def _find(self, parts: list[Part]) -> dict[int, list[_Span]]:
        """Return what to overwrite in which parts: row, begin, end and with what."""
        columns = [[*map(_Told, *_columns(part))] for part in parts]
        found: dict[int, list[_Span]] = {}
        for place, row in zip(*(each.tolist() for each in Batch(parts).order()), strict=True):
            interrupts.progress()  # on a busy machine a message may take a millisecond
            told = columns[place][row]
            stream = self._streams.pop(told.key, None) or _Stream()
            self._streams[told.key] = stream
            spans = self._in_message if told.seq is None else self._in_segment
            for begin, end, fill in spans(stream, told):
                if end > begin:
                    found.setdefault(id(parts[place]), []).append((row, begin, end, fill))
        while len(self._streams) > STREAMS_MAX:
            self._streams.popitem(last=False)
        return found

    def _in_segment(self, stream: _Stream, told: _Told) -> Iterator[_Fill]:
        assert told.seq is not None
        if told.begins:
            stream.tail, stream.http2, stream.seen_to = b"", None, told.seq
        size = len(told.data) + told.missing
        if not size:
            return
        end = told.seq + size & _SEQUENCES
        if stream.seen_to == told.seq:
            yield from self._in_message(stream, told)
            stream.seen_to = None if told.missing else end
            return
        yield 0, len(told.data), MASK
        if stream.seen_to is not None and stream.seen_to - end & _SEQUENCES >= _HALF:
            stream.seen_to = None  # it brings more than what was seen

    def _in_message(self, stream: _Stream, told: _Told) -> Iterator[_Fill]:
        data, missing = told.data, told.missing
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
        yield from secrets(tail, data)
        text = tail + data
        for pattern in self._own:
            for match in pattern.finditer(text):
                begin, end = match.span(match.lastindex or 0)
                before = text[match.start() : begin]
                yield max(begin - len(tail), 0), end - len(tail), before[-TAIL:]


def _keys(part: Part) -> list[tuple[int, ...]]:
    """Return what tells the streams of messages apart; those of TLS may have no addresses."""
    columns = [connection_keys(part.rows), part.rows["kind"]]
    if part.family == "tls":
        columns += [part.rows["pid"], part.rows["session"]]
    return [*zip(*(column.tolist() for column in columns), strict=True)]


def _columns(part: Part) -> Iterator[list[Any]]:
    """Yield the fields of `_Told`, as far as those of a part have them."""
    rows = part.rows
    yield _keys(part)
    yield part.payloads()
    yield (rows["bytes"].astype(np.int64) - part.payload_lengths()).tolist()
    if part.family == "segment":
        syn = rows["flags"] & TcpFlag.SYN != 0
        yield (rows["seq"] + syn).astype(np.uint32).tolist()
        yield syn.tolist()


def compiled(text: str) -> re.Pattern[bytes]:
    """Return the regular expression of a user. Raises UsageError."""
    try:
        return re.compile(text.encode())
    except (re.error, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise UsageError(f"--redact-also: {text!r} is no regular expression: {error}") from error


def _tail(before: bytes, data: bytes, spans: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return what the next message is to be read behind: a secret may go on there."""
    open_ones = [start for _, end, start in spans if end == len(data) and start]
    return open_ones[-1] if open_ones else (before + data)[-TAIL:]


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


def _overwritten(part: Part, found: Iterable[_Span]) -> Part:
    """Return a copy of a part, also of the records: as views they would hold the old payload."""
    copy = part.take(np.arange(len(part)))
    assert copy.payload is not None
    for row, begin, end, fill in found:
        copy.payload[row, begin:end] = fill
    return copy
