"""Memcached's text protocol, meta commands included: responses in order, quiet ones left out.

A connection that begins with a frame of the binary protocol goes on in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from tcprism.protocols import REQUEST, RESPONSE, Exchange, Match, NotThisProtocol, Protocol
from tcprism.protocols.memcached_binary import MAGIC, MemcachedBinary, agree, match
from tcprism.protocols.ordered import Ordered

RESOURCE_MAX = 200  # characters
_CACHED = 256  # longer lines are read each time
_LENGTH_MAX = 1 << 31

_KEY = rb"[\x21-\x7e\x80-\xff]{1,250}"
_NUMBER = rb"-?\d{1,20}"
_NO_REPLY = rb"(?: noreply)?"
_COMMAND = re.compile(
    rb"(?:gets? %(key)s(?: %(key)s)*"
    rb"|gats? %(number)s(?: %(key)s)+"
    rb"|(?:set|add|replace|append|prepend) %(key)s(?: %(number)s){3}%(quiet)s"
    rb"|cas %(key)s(?: %(number)s){4}%(quiet)s"
    rb"|(?:incr|decr|touch) %(key)s %(number)s%(quiet)s"
    rb"|delete %(key)s(?: 0)?%(quiet)s"
    rb"|m[ademg] %(key)s(?: [A-Za-z]%(rest)s)*|ms %(key)s \d{1,10}(?: [A-Za-z]%(rest)s)*|mn"
    rb"|stats(?: [a-z_]+)?|version|flush_all(?: \d+)?%(quiet)s|verbosity \d+%(quiet)s"
    rb")[ ]?\r?\n"
    % {b"key": _KEY, b"number": _NUMBER, b"quiet": _NO_REPLY, b"rest": rb"[\x21-\x7e]{0,250}"}
)
_COMMAND_BEGUN = re.compile(rb"[a-z][a-z_]{0,31}(?: [\x20-\x7e\x80-\xff]{0,8192})?\r?")
_ANY_COMMAND = re.compile(rb"([A-Za-z][A-Za-z_]{0,31})((?: [^\r\n]{0,8192})?)\r?\n")
# beanstalkd answers these alike
_OF_OTHERS = re.compile(rb"delete \d+\r?\n")
_RESPONSE = re.compile(
    rb"(?:(VALUE) %(key)s \d{1,10} (\d{1,10})(?: \d{1,20})?"
    rb"|(VA) (\d{1,10})((?: [A-Za-z][\x21-\x7e]{0,250})*)"
    rb"|(HD|EN|NF|NS|EX)((?: [A-Za-z][\x21-\x7e]{0,250})*)"
    rb"|(END|STORED|NOT_STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|OK|RESET|MN|\d{1,20}"
    rb"|ERROR|(?:CLIENT|SERVER)_ERROR [^\r\n]{0,2048}|VERSION [\x21-\x7e]{1,64}"
    rb"|ME [^\r\n]{1,2048})"
    rb"|(STAT|ITEM|PREFIX|key=)[^\r\n]{1,2048}"
    rb")[ ]?\r?\n" % {b"key": _KEY}
)
_RESPONSE_BEGUN = re.compile(rb"(?:[A-Z\d][A-Z_\d]{0,20}|key=)(?: [^\r\n]{0,2048})?\r?")

_STORES = frozenset(("set", "add", "replace", "append", "prepend", "cas", "ms"))
_FETCHES = frozenset(("get", "gets", "gat", "gats"))
_META = frozenset(("mg", "ms", "md", "ma", "me", "mn"))
_FAILURES = frozenset(("ERROR", "CLIENT_ERROR", "SERVER_ERROR"))
_SILENT = frozenset(("quit", "shutdown"))
_SUPPRESSED: dict[str, frozenset[str]] = {
    "mg": frozenset(("EN",)),
    "ms": frozenset(("HD",)),
    "md": frozenset(("HD",)),  # and NF, but not in every version: 1.6.18 sends it
    "ma": frozenset(("HD",)),
    "me": frozenset(),
    "mn": frozenset(),
}
_STORED = frozenset(("STORED", "NOT_STORED", "EXISTS", "NOT_FOUND"))
# What a command may be answered with but for failures; of others nothing is known.
_ANSWERS = {
    **dict.fromkeys(_FETCHES, frozenset(("VALUE", "END"))),
    **dict.fromkeys(_STORES - {"ms"}, _STORED),
    "delete": frozenset(("DELETED", "NOT_FOUND")),
    "touch": frozenset(("TOUCHED", "NOT_FOUND")),
    "incr": frozenset(("NUMBER", "NOT_FOUND")),
    "decr": frozenset(("NUMBER", "NOT_FOUND")),
    "version": frozenset(("VERSION",)),
    "mg": frozenset(("HD", "VA", "EN")),
    "ms": frozenset(("HD", "NS", "EX", "NF")),
    "md": frozenset(("HD", "NF", "EX")),
    "ma": frozenset(("HD", "VA", "NF", "NS", "EX")),
    "me": frozenset(("ME", "EN")),
    "mn": frozenset(("MN",)),
}
_NAMES = tuple(name.encode() for name in (*_ANSWERS, "stats", "flush_all", "verbosity"))
_WORDS = (
    b"VALUE VA HD EN NF NS EX END STORED NOT_STORED EXISTS NOT_FOUND DELETED TOUCHED OK RESET MN"
    b" ERROR CLIENT_ERROR SERVER_ERROR VERSION ME STAT ITEM PREFIX".split()
)


@dataclass(slots=True)
class _Asked(Exchange):
    """A request; `quiet` ones have some responses left out, `marks` are flags that come back.

    `single`: whether it asks for the value of one key.
    """

    quiet: bool = False
    marks: tuple[bytes, ...] = ()
    single: bool = False


class _Line:
    """What a line says of a request."""

    __slots__ = ("length", "marks", "method", "quiet", "resource", "silent", "single")

    def __init__(self, line: bytes, show_values: bool) -> None:
        name, *words = line.split()
        self.method = name.decode()
        stores = self.method in _STORES
        if stores and not _COMMAND.fullmatch(line):
            raise NotThisProtocol
        self.length = int(words[1 if self.method == "ms" else 3]) + 2 if stores else 0
        if not 0 <= self.length <= _LENGTH_MAX:
            raise NotThisProtocol
        flags = words[1:] if self.method in _META else []
        self.quiet = b"q" in flags
        self.marks = tuple(flag for flag in flags if flag[:1] == b"O")
        if b"k" in flags:
            self.marks += (b"k" + words[0],)
        self.silent = self.method in _SILENT or words[-1:] == [b"noreply"]
        self.single = self.method in _FETCHES and len(_about(self.method, words)) == 1
        about = words if show_values else _about(self.method, words)
        text = b" ".join(about)[:RESOURCE_MAX]
        self.resource = text.decode("utf-8", "backslashreplace")[:RESOURCE_MAX]


def _about(method: str, words: list[bytes]) -> list[bytes]:
    """Return the keys of a command."""
    if method in ("gat", "gats"):
        return words[1:]
    return words if method in _FETCHES else words[:1]


_short_line = lru_cache(1024)(_Line)


class Memcached(Ordered):
    """Reads commands and responses."""

    protocol = "memcached"

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self._begin: int | None = None  # of the response that is being read
        self._first = ""  # its first word
        self._text = False  # it was read

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read lines, pass over values."""
        if not self._text and data[0] == MAGIC[side]:
            self.successor = MemcachedBinary(self.show_values)
            if self._unsure:
                self.successor.lost(REQUEST, 0, 0)
            return 0
        self._text = True
        return self._commands(data, at) if side == REQUEST else self._responses(data, at)

    def find(self, side: int, data: bytes) -> int:
        """Take only the start of what a process wrote: a value may have the same bytes."""
        return 0 if (_COMMAND, _RESPONSE)[side].match(data) else -1

    def begun(self) -> tuple[int | None, Exchange | None]:
        """Return the beginning of the response that is being read."""
        return self._begin, None

    def lost(self, side: int, begin: int, end: int) -> None:
        """Forget the response that was being read."""
        super().lost(side, begin, end)
        if side != REQUEST:
            self._begin = None

    def _commands(self, data: bytes, at: int) -> int:
        place = 0
        while place < len(data) and not self.ended_here:
            found = _ANY_COMMAND.match(data, place)
            if not found:
                if not _COMMAND_BEGUN.fullmatch(data, place):
                    raise NotThisProtocol
                return place
            read = _short_line if found.end() - place < _CACHED else _Line
            line = read(found[0], self.show_values)
            end = found.end() + line.length
            if line.length and end <= len(data) and data[end - 2 : end] != b"\r\n":
                raise NotThisProtocol
            self._asked(line, at + place, at + end)
            place = end
        return place

    def _asked(self, line: _Line, begin: int, end: int) -> None:
        exchange = _Asked("memcached", line.method, line.resource, begin, end)
        if not self.ask(exchange):
            return
        if line.silent:
            exchange.answered = False
            self.done.append(exchange)
            return
        exchange.quiet, exchange.marks, exchange.single = line.quiet, line.marks, line.single
        self.waiting.append(exchange)

    def _responses(self, data: bytes, at: int) -> int:
        place = 0
        while place < len(data) and not self.ended_here:
            found = _RESPONSE.match(data, place)
            if not found:
                if not _RESPONSE_BEGUN.fullmatch(data, place):
                    raise NotThisProtocol
                return place
            word = (found[1] or found[3] or found[6] or found[8] or found[9]).split()[0].decode()
            if self._begin is None:
                self._begin = at + place
                self._first = "NUMBER" if word.isdigit() else word
            place = found.end()
            if length := found[2] or found[4]:
                place += int(length) + 2
                if place <= len(data) and data[place - 2 : place] != b"\r\n":
                    raise NotThisProtocol
            if place > len(data) and found[1] and self._asked_for_one():
                place += len(b"END\r\n")  # is all that can follow, and may not be captured
            elif found[1] or found[9]:
                continue
            self._responded(word, (found[5] or found[7] or b"").split(), at + place)
        return place

    def _asked_for_one(self) -> bool:
        head = self.waiting[0] if self.waiting else None
        return isinstance(head, _Asked) and head.single and not head.quiet

    def _responded(self, word: str, marks: list[bytes], end: int) -> None:
        begin, self._begin = self._begin, None
        failed = word in _FAILURES
        status = word if failed else self._first
        if self.waiting and not self._skip_quiet(status, marks):
            self.lost(RESPONSE, 0, 0)
        exchange = self.answer(end)
        if exchange is None:
            return
        allowed = _ANSWERS.get(exchange.method)
        if allowed and not failed and status not in allowed:
            raise NotThisProtocol
        exchange.response_begin, exchange.response_end = begin, end
        exchange.status = "" if status == "NUMBER" else status
        exchange.failed = failed
        self.ended_here = exchange.method == "watch"
        self.done.append(exchange)

    def _skip_quiet(self, status: str, marks: list[bytes]) -> bool:
        """Let go the quiet requests whose response was left out before this one.

        Return whether the first that is left is certainly the one that this one belongs to.
        """
        waiting = self.waiting
        while waiting:
            head = waiting[0]
            assert isinstance(head, _Asked)
            if not head.quiet:
                return True
            possible = status in _ANSWERS[head.method] and status not in _SUPPRESSED[head.method]
            if possible and head.marks and set(head.marks) <= set(marks):
                return True
            if status in _FAILURES or (possible and not head.marks):
                return len(waiting) == 1 and not self._unsure
            head.answered = False
            self.done.append(waiting.popleft())
        return True


def _request_match(data: bytes) -> Match:
    if data[0] == MAGIC[REQUEST]:
        return match(REQUEST, data)
    if _OF_OTHERS.match(data):
        return Match.NO
    if _COMMAND.match(data):
        return Match.YES
    begun = _COMMAND_BEGUN.fullmatch(data)
    name, space, _ = data.partition(b" ")
    known = any(one == name if space else one.startswith(name.rstrip()) for one in _NAMES)
    return Match.MORE if begun and known else Match.NO


def _response_match(data: bytes) -> Match:
    if data[0] == MAGIC[RESPONSE]:
        return match(RESPONSE, data)
    if _RESPONSE.match(data):
        return Match.YES
    name, space, _ = data.partition(b" ")
    known = any(one == name if space else one.startswith(name.rstrip()) for one in _WORDS)
    begun = _RESPONSE_BEGUN.fullmatch(data) and (known or name.rstrip().isdigit())
    return Match.MORE if begun else Match.NO


def _agree(requests: bytes, responses: bytes) -> bool:
    binary = requests[0] == MAGIC[REQUEST], responses[0] == MAGIC[RESPONSE]
    return agree(requests, responses) if all(binary) else not any(binary)


MEMCACHED = Protocol("memcached", Memcached, _request_match, _response_match, agree=_agree)
