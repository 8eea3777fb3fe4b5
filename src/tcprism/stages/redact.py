"""Overwrite secrets in payload, before anything else sees it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events.connection import connection_keys

STREAMS_MAX = 65_536  # of which the end of the latest message is remembered
MASK = ord("*")

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


class Redact:
    """A stage that overwrites secrets in payload with `*`: credentials, cookies, card numbers.

    `more` are regular expressions of bytes for others: the first group is overwritten, or all that
    matches. A secret may begin in one message and end in the next. What is no text, such as the
    compressed headers of HTTP/2, is not looked into. Raises UsageError for what is no expression.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        own = [_compiled(text) for text in more]
        self._secrets = [re.compile(b"|".join(_SECRETS), re.IGNORECASE), *own]
        self._card = re.compile(_CARD)
        self._tails: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without secrets."""
        parts = [part if part.payload is None else self._without(part) for part in batch.parts]
        return Batch(parts, batch.clock_offset_ns)

    def _without(self, part: Part) -> Part:
        streams = zip(connection_keys(part.rows).tolist(), part.rows["kind"].tolist(), strict=True)
        whole = part.payload_lengths() == part.rows["bytes"]
        found: list[tuple[int, int, int]] = []
        for row, (stream, data, all_of_it) in enumerate(
            zip(streams, part.payloads(), whole.tolist(), strict=True)
        ):
            tail = self._tails.pop(stream, b"")
            spans = list(self._spans(tail, data)) if data else []
            found += [(row, begin, end) for begin, end, _ in spans if end > begin]
            if data and all_of_it:
                self._tails[stream] = _tail(tail, data, spans)
        while len(self._tails) > STREAMS_MAX:
            self._tails.popitem(last=False)
        return replace(part, payload=_overwritten(part.payload, found)) if found else part

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


def _compiled(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise UsageError(f"--redact-also: {text!r} is no regular expression: {error}") from error


def _tail(before: bytes, data: bytes, spans: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return what the next message is to be read behind: a secret may go on there."""
    open_ones = [start for _, end, start in spans if end == len(data) and start]
    return open_ones[-1] if open_ones else (before + data)[-_TAIL:]


def _overwritten(
    payload: NDArray[np.uint8] | None, found: Iterable[tuple[int, int, int]]
) -> NDArray[np.uint8]:
    assert payload is not None
    copy = payload.copy()
    for row, begin, end in found:
        copy[row, begin:end] = MASK
    return copy


def _has_check_digit(text: bytes) -> bool:
    """Tell whether digits are a card's number: ISO/IEC 7812-1, annex B."""
    digits = [byte - 48 for byte in reversed(text) if 48 <= byte <= 57]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0
