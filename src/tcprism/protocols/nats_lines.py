"""The lines of NATS: which end says them, and what tells them from other bytes."""

from __future__ import annotations

import re
from functools import partial

from tcprism.protocols import REQUEST, Match, NotThisProtocol
from tcprism.protocols.numbered import MORE, NONSENSE, follow

LINE_MAX = 32_768  # bytes

_CLIENT = re.compile(
    rb"(?:CONNECT[ \t]+\{[^\r\n]*\}[ \t]*|PUB(?:[ \t]+\S+){1,2}[ \t]+\d{1,9}[ \t]*"
    rb"|HPUB(?:[ \t]+\S+){1,2}(?:[ \t]+\d{1,9}){2}[ \t]*|SUB(?:[ \t]+\S+){2,3}[ \t]*"
    rb"|UNSUB[ \t]+\S+(?:[ \t]+\d+)?[ \t]*|PING|PONG)",
    re.IGNORECASE,
)
_SERVER = re.compile(
    rb'INFO[ \t]+\{"[^\r\n]*\}[ \t]*|MSG(?: \S+){2,3} \d{1,9}|HMSG(?: \S+){2,3}(?: \d{1,9}){2}'
    rb"|PING|PONG|\+OK|-ERR '[^\r\n]*'"
)
_LINES = (_CLIENT, _SERVER)
OPERATIONS = (
    (b"CONNECT", b"PUB", b"HPUB", b"SUB", b"UNSUB", b"PING", b"PONG"),
    (b"INFO", b"MSG", b"HMSG", b"+OK", b"-ERR", b"PING", b"PONG"),
)


def payload(words: list[bytes]) -> int:
    """Return the bytes behind a line: the payload and the end of its line."""
    size = words[-1]
    if not size.isdigit() or len(size) > 9 or len(words) < 3:
        raise NotThisProtocol
    return int(size) + 2


def check(side: int, data: bytes, place: int) -> int:
    """Return the end of a line and its payload, if they are as they must be."""
    line_end = data.find(b"\r\n", place, place + LINE_MAX)
    if line_end < 0:
        head = data[place:][:8].upper()
        begun = any(head.startswith(name[: len(head)]) for name in OPERATIONS[side])
        return MORE if begun and len(data) - place < LINE_MAX else NONSENSE
    line = data[place:line_end]
    if not _LINES[side].fullmatch(line):
        return NONSENSE
    end = line_end + 2
    if line[:1] in b"PpHhMm" and line[:2].upper() not in (b"PI", b"PO"):
        end += int(line.split()[-1]) + 2
        if end <= len(data) and data[end - 2 : end] != b"\r\n":
            return NONSENSE
    return end


def request_match(data: bytes) -> Match:
    """Say whether a client sends it: both ends send PING and PONG."""
    found = follow(data, partial(check, REQUEST))
    while found is Match.YES and data[:6].upper() in (b"PING\r\n", b"PONG\r\n"):
        data = data[6:]
    if found is Match.YES and not _CLIENT.match(data):
        return Match.MORE
    return found
