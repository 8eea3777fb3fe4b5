"""Memcached's binary protocol: responses in order; quiet commands are answered only at times.

Numbers and names are those of memcached's protocol_binary.h.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import NamedTuple

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol
from tcprism.protocols.numbered import MORE, NONSENSE, follow
from tcprism.protocols.ordered import Ordered

MAGIC = (0x80, 0x81)  # of requests, of responses
RESOURCE_MAX = 200  # characters
_HEADER = Struct(">BBHBBHI4s8x")
_SIZE = _HEADER.size
_KEY_MAX = 250
_BODY_MAX = 1 << 31
_FLAGS = 4  # bytes before a value that was found

_NONE, _ONE, _ANY = range(1), range(1, _KEY_MAX + 1), range(_KEY_MAX + 1)


class _Command(NamedTuple):
    """How long the parts of a command may be; `quiet`: it is answered only at times."""

    name: str
    extras: tuple[int, ...]
    key: range
    value: bool
    quiet: bool


def _commands(
    numbers: range, names: str, extras: tuple[int, ...], key: range, value: bool = False
) -> dict[int, _Command]:
    return {
        number: _Command(name, extras, key, value, name.endswith("q"))
        for number, name in zip(numbers, names.split(), strict=True)
    }


_COMMANDS = {
    **_commands(range(0x01), "get", (0,), _ONE),
    **_commands(range(0x01, 0x04), "set add replace", (8,), _ONE, value=True),
    **_commands(range(0x04, 0x05), "delete", (0,), _ONE),
    **_commands(range(0x05, 0x07), "increment decrement", (20,), _ONE),
    **_commands(range(0x07, 0x08), "quit", (0,), _NONE),
    **_commands(range(0x08, 0x09), "flush", (0, 4), _NONE),
    **_commands(range(0x09, 0x0A), "getq", (0,), _ONE),
    **_commands(range(0x0A, 0x0C), "noop version", (0,), _NONE),
    **_commands(range(0x0C, 0x0E), "getk getkq", (0,), _ONE),
    **_commands(range(0x0E, 0x10), "append prepend", (0,), _ONE, value=True),
    **_commands(range(0x10, 0x11), "stat", (0,), _ANY),
    **_commands(range(0x11, 0x14), "setq addq replaceq", (8,), _ONE, value=True),
    **_commands(range(0x14, 0x15), "deleteq", (0,), _ONE),
    **_commands(range(0x15, 0x17), "incrementq decrementq", (20,), _ONE),
    **_commands(range(0x17, 0x18), "quitq", (0,), _NONE),
    **_commands(range(0x18, 0x19), "flushq", (0, 4), _NONE),
    **_commands(range(0x19, 0x1B), "appendq prependq", (0,), _ONE, value=True),
    **_commands(range(0x1B, 0x1C), "verbosity", (4,), _NONE),
    **_commands(range(0x1C, 0x1F), "touch gat gatq", (4,), _ONE),
    **_commands(range(0x20, 0x21), "sasl_list_mechs", (0,), _NONE),
    **_commands(range(0x21, 0x23), "sasl_auth sasl_step", (0,), _ONE, value=True),
    **_commands(range(0x23, 0x25), "gatk gatkq", (4,), _ONE),
}
_STATUSES = {
    0x00: "SUCCESS",
    0x01: "KEY_ENOENT",
    0x02: "KEY_EEXISTS",
    0x03: "E2BIG",
    0x04: "EINVAL",
    0x05: "NOT_STORED",
    0x06: "DELTA_BADVAL",
    0x20: "AUTH_ERROR",
    0x21: "AUTH_CONTINUE",
    0x81: "UNKNOWN_COMMAND",
    0x82: "ENOMEM",
    0x83: "NOT_SUPPORTED",
    0x84: "EINTERNAL",
    0x85: "EBUSY",
    0x86: "ETMPFAIL",
}
_NOT_FOUND = 0x01
_FINE = frozenset(("SUCCESS", "KEY_ENOENT", "KEY_EEXISTS", "NOT_STORED", "AUTH_CONTINUE"))


class _Frame(NamedTuple):
    """What a header says; `tag` is what a response has in common with its request."""

    command: _Command
    tag: bytes
    status: int
    extras: int
    key: int
    end: int


def _frame(side: int, data: bytes, place: int) -> _Frame | None:
    """Read the header at a place; None: more bytes are needed. Raises NotThisProtocol."""
    if data[place] != MAGIC[side]:
        raise NotThisProtocol
    if len(data) < place + _SIZE:
        return None
    _, opcode, key, extras, kind, status, body, opaque = _HEADER.unpack_from(data, place)
    command = _COMMANDS.get(opcode)
    if command is None or kind or key > _KEY_MAX or not key + extras <= body <= _BODY_MAX:
        raise NotThisProtocol
    value = body - key - extras
    if side == REQUEST:
        fits = key in command.key and extras in command.extras and (command.value or not value)
    elif status in (0, _NOT_FOUND):
        fits = extras in (0, _FLAGS)
    else:
        fits = status in _STATUSES and not key and not extras
    if not fits:
        raise NotThisProtocol
    tag = opaque + data[place + 1 : place + 2]
    return _Frame(command, tag, status, extras, key, place + _SIZE + body)


@dataclass(slots=True)
class _Asked(Exchange):
    """A request; `tags` are what tells its response from those of others."""

    tag: bytes = b""
    key: bytes = b""
    quiet: bool = False


class MemcachedBinary(Ordered):
    """Reads the frames of both directions."""

    protocol = "memcached"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._begin: int | None = None  # of a response in several frames
        self._alike: Counter[tuple[bytes, bytes]] = Counter()  # quiet requests that wait

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read headers and keys, pass over values."""
        place = 0
        while place < len(data):
            frame = _frame(side, data, place)
            if frame is None:
                break
            key_at = place + _SIZE + frame.extras
            key = data[key_at : key_at + frame.key]
            if len(key) < frame.key:
                break
            if side == REQUEST:
                self._request(frame, key, at + place, at + frame.end)
            else:
                self._response(frame, key, at + place, at + frame.end)
            place = frame.end
        return place

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote: a value may have the same bytes."""
        return 0 if match(side, data) is Match.YES else -1

    def begun(self) -> tuple[int | None, Exchange | None]:
        """Return the beginning of the response that is being read."""
        return self._begin, None

    def lost(self, side: int, begin: int, end: int) -> None:
        """Forget the response that was being read, and which quiet requests wait."""
        super().lost(side, begin, end)
        if side != REQUEST:
            self._begin = None
            self._alike.clear()

    def _request(self, frame: _Frame, key: bytes, begin: int, end: int) -> None:
        command = frame.command
        resource = key.decode("utf-8", "backslashreplace")[:RESOURCE_MAX]
        asked = _Asked("memcached", command.name, resource, begin, end)
        if not self.ask(asked):
            return
        asked.tag, asked.key, asked.quiet = frame.tag, key, command.quiet
        asked.answered = not command.quiet  # as long as no response says otherwise
        if command.quiet:
            self._alike[asked.tag, b""] += 1
            self._alike[asked.tag, key] += 1
        self.waiting.append(asked)

    def _response(self, frame: _Frame, key: bytes, begin: int, end: int) -> None:
        if self._begin is None:
            self._begin = begin
        if frame.command.name == "stat" and not frame.status and frame.key:
            return  # the last one has no key
        begin, self._begin = self._begin, None
        if self.waiting and not self._skip_quiet(frame, key):
            self.lost(RESPONSE, 0, 0)
        asked = self.answer(end)
        if not isinstance(asked, _Asked):
            return
        if asked.quiet:
            self._no_longer(asked)
        asked.answered = True
        asked.response_begin, asked.response_end = begin, end
        asked.status = _STATUSES[frame.status]
        asked.failed = asked.status not in _FINE
        self.done.append(asked)

    def _skip_quiet(self, frame: _Frame, key: bytes) -> bool:
        """Let go the quiet requests before the one that a response belongs to.

        Return whether it is certain which one that is. Raises NotThisProtocol.
        """
        if frame.command.quiet and (self._unsure or self._alike[frame.tag, key] != 1):
            return False  # it may also be of a request that was not seen
        while self.waiting:
            head = self.waiting[0]
            assert isinstance(head, _Asked)
            if head.tag == frame.tag and (not key or head.key == key):
                return True
            if not head.quiet:
                if self._unsure:  # it may be of a request that was not seen
                    return False
                raise NotThisProtocol
            self._no_longer(head)
            self.done.append(self.waiting.popleft())
        return False

    def _no_longer(self, asked: _Asked) -> None:
        for one in ((asked.tag, b""), (asked.tag, asked.key)):
            self._alike[one] -= 1
            if not self._alike[one]:
                del self._alike[one]


def _check(side: int, data: bytes, place: int) -> int:
    try:
        frame = _frame(side, data, place)
    except NotThisProtocol:
        return NONSENSE
    return frame.end if frame else MORE


def match(side: int, data: bytes) -> Match:
    """Say whether an end may send such bytes."""
    return follow(data, partial(_check, side))


def agree(requests: bytes, responses: bytes) -> bool:
    """Whether one of the requests may have the first response: so many others begin with 80, 81."""
    wanted = responses[1:2] + responses[12:16]
    place = 0
    while place + _SIZE <= len(requests) and _check(REQUEST, requests, place) > 0:
        if requests[place + 1 : place + 2] + requests[place + 12 : place + 16] == wanted:
            return True
        place = _check(REQUEST, requests, place)
    return False
