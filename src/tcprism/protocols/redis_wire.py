"""What Redis' clients and servers write (RESP2, RESP3 and inline commands), whole or not yet."""

from __future__ import annotations

import re
from abc import abstractmethod

from tcprism.protocols import REQUEST, Match, NotThisProtocol
from tcprism.protocols.ordered import Ordered
from tcprism.protocols.redis_commands import RESOURCE_MAX, is_command, kept

_WAITED_FOR = 256  # longer strings are passed over, only their begin is taken
_WORDS = 3
_ENOUGH = 2  # arguments that are strings, to be a command
_ELEMENTS_MAX = 1 << 32

_COMMAND = re.compile(rb"\*([1-9]\d{0,6})\r\n\$(\d{1,2})\r\n([A-Za-z][\w.-]*)\r\n")
_WITH_KEY = re.compile(rb"\*([2-9])\r\n\$(\d{1,2})\r\n([A-Za-z][\w.-]*)\r\n\$(\d{1,3})\r\n")
_COMMAND_BEGUN = re.compile(
    rb"\*(?:[1-9]\d{0,6}(?:\r(?:\n(?:\$(?:\d{1,2}(?:\r(?:\n(?:[A-Za-z][\w.-]{0,98}\r?)?)?)?)?)?)?)?)?"
)
_AMID = re.compile(rb"\r\n(?=\*[1-9]\d{0,6}\r\n\$\d{1,2}\r\n[A-Za-z][\w.-]*\r\n)")
_ARGUMENT = re.compile(rb"\$(\d{1,10})\r\n")
_ARGUMENT_BEGUN = re.compile(rb"(?:\$(?:\d{1,10}\r?)?)?")
_INLINE = re.compile(rb"([A-Za-z][\w.-]{0,63}(?:[ \t][^\r\n]*)?)?\r?\n|\*(?:0|-1)\r\n")
_WHOLE_LINE = re.compile(rb"([A-Za-z][\w.-]{0,63}(?:[ \t][\x20-\x7e\t]*)?)\r?\n")
_INLINE_PING = re.compile(rb"ping\s", re.IGNORECASE)
_POP3 = (b"AUTH", b"QUIT")
_INLINE_BEGUN = re.compile(rb"[A-Za-z][^\r\n]{0,8192}\r?|\r|\*-?[01]?\r?")
# 1: a whole element; 2 and 3: a string of so many bytes; 4 and 5: so many elements
_ELEMENT = re.compile(
    rb"(?:([+-][^\r\n]{0,8192}|:[+-]?\d{1,20}|[$*]-1|_|#[tf]|,[-+.\w]{1,32}|\([+-]?\d{1,4096})"
    rb"|([$=!])(\d{1,10})|([*~>%|])(\d{1,10}))\r\n"
)
_ELEMENT_BEGUN = re.compile(
    rb"(?:[+-][^\r\n]{0,8192}|[:(][+-]?\d{0,4096}|_|#[tf]?|,[-+.\w]{0,32}|[$*](?:-1?)?"
    rb"|[$=!*~>%|]\d{0,10})\r?"
)


class Reply:
    """A reply that is being read."""

    __slots__ = ("begin", "error", "first", "left", "number", "words")

    def __init__(self, begin: int, first: bytes, words: list[bytes] | None) -> None:
        self.begin = begin
        self.first = first  # its first line
        self.left = 1  # elements still to come
        self.error = b""  # the first one in it
        self.words = words  # the first strings of what may be unasked
        self.number = 0  # the last one of that

    def note(self, line: bytes) -> None:
        """Take an element that is a line."""
        self.left -= 1
        if line[:1] == b"-":
            self.error = self.error or line
        elif self.words is not None and line[:1] == b":":
            self.number = int(line[1:])


class Wire(Ordered):
    """Reads commands and replies; a subclass pairs them."""

    def __init__(self, show_values: bool = False) -> None:
        super().__init__(show_values)
        self.arguments: list[bytes] = []  # the first ones of the command that is being read
        self.begin = self.size = self.more = 0  # of it: offset, arguments, those still to come
        self.reply: Reply | None = None

    @abstractmethod
    def asked(self, end: int) -> None:
        """Take the command that is whole now, before an offset."""

    @abstractmethod
    def replied(self, first: bytes, begin: int, end: int) -> None:
        """Take a reply of one element, of which `first` is the first line, between offsets."""

    @abstractmethod
    def replied_more(self, reply: Reply, end: int) -> None:
        """Take a reply that came in pieces or has elements, and is whole now, before an offset."""

    @abstractmethod
    def may_be_unasked(self, kind: bytes) -> bool:
        """Say whether a reply, by its first byte, may answer no command."""

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Read commands and replies."""
        return self._commands(data, at) if side == REQUEST else self._replies(data, at)

    def find(self, side: int, data: bytes) -> int:
        """Find the start of a command, or take the start of a reply."""
        if side != REQUEST:
            return 0 if _ELEMENT.match(data) else -1
        if _COMMAND.match(data):
            return 0
        amid = _AMID.search(data)
        return amid.end() if amid else -1

    def _commands(self, data: bytes, at: int) -> int:
        place = 0
        while place < len(data) and not self.ended_here:
            if not self.more:
                begun = self._command(data, place, at)
                if begun == place:
                    return place
                place = begun
            if self.more:
                place, whole = self._take(data, place)
                if not whole:
                    return place
            if self.arguments:
                self.asked(at + place)
        return place

    def _command(self, data: bytes, place: int, at: int) -> int:
        """Read the first line of a command and its name, or all of one that is inline."""
        self.begin = at + place
        if (found := _WITH_KEY.match(data, place)) and (end := self._with_key(found, data)):
            return end
        if found := _COMMAND.match(data, place):
            if int(found[2]) != len(found[3]):
                raise NotThisProtocol
            self.size = int(found[1])
            self.more = self.size - 1
            self.arguments = [found[3]]
            return found.end()
        if inline := _INLINE.match(data, place):
            self.arguments = (inline[1] or b"").split()
            self.size = len(self.arguments)
            return inline.end()
        if _COMMAND_BEGUN.fullmatch(data, place) or _INLINE_BEGUN.fullmatch(data, place):
            return place
        raise NotThisProtocol

    def _with_key(self, found: re.Match[bytes], data: bytes) -> int:
        """Take the name and the first argument at once; return the place behind, 0: not whole."""
        begin = found.end()
        end = begin + int(found[4])
        if data[end : end + 2] != b"\r\n" or int(found[2]) != len(found[3]):
            return 0
        self.size = int(found[1])
        self.more = self.size - 2
        self.arguments = [found[3], data[begin : min(end, begin + RESOURCE_MAX)]]
        return end + 2

    def _take(self, data: bytes, place: int) -> tuple[int, bool]:
        """Take arguments; return the place behind them and whether they are all there."""
        arguments, size, more = self.arguments, len(data), self.more
        wanted = kept(arguments[0], self.show_values) - len(arguments)
        while more:
            found = _ARGUMENT.match(data, place)
            if not found:
                if not _ARGUMENT_BEGUN.fullmatch(data, place):
                    raise NotThisProtocol
                break
            begin = found.end()
            end = begin + int(found[1])
            if end + 2 <= size:
                if data[end : end + 2] != b"\r\n":
                    raise NotThisProtocol
            elif wanted > 0 and end - begin <= _WAITED_FOR:
                break
            if wanted > 0:
                wanted -= 1
                arguments.append(data[begin : min(end, begin + RESOURCE_MAX)])
            more -= 1
            place = end + 2
        self.more = more
        return place, not more

    def _replies(self, data: bytes, at: int) -> int:
        place, size = 0, len(data)
        while place < size and not self.ended_here:
            found = _ELEMENT.match(data, place)
            if not found:
                if not _ELEMENT_BEGUN.fullmatch(data, place):
                    raise NotThisProtocol
                return place
            if self.reply is None and (end := _simple(found, data)):
                self.replied(found[0][:-2], at + place, at + end)
                place = end
                continue
            reply = self.reply or self._first(found, at + place)
            if found.lastindex == 1:
                reply.note(found[1])
                place = found.end()
            elif found.lastindex == 3:
                end = self._string(reply, found, data)
                if not end:
                    return place
                place = end
            else:
                self._aggregate(reply, found[4], int(found[5]))
                place = _skip(reply, data, found.end())
            if not reply.left:
                self.reply = None
                self.replied_more(reply, at + place)
        return place

    def _first(self, found: re.Match[bytes], begin: int) -> Reply:
        first = found[0][:-2]
        words: list[bytes] | None = None
        if first[:1] in b"*>" and self.may_be_unasked(first[:1]):
            words = []
        self.reply = Reply(begin, first, words)
        return self.reply

    def _string(self, reply: Reply, found: re.Match[bytes], data: bytes) -> int:
        """Return the place behind a string; 0: it is too short yet, but wanted."""
        begin = found.end()
        end = begin + int(found[3])
        if end + 2 <= len(data):
            if data[end : end + 2] != b"\r\n":
                raise NotThisProtocol
        elif reply.words is not None and end - begin <= _WAITED_FOR:
            return 0
        if reply.words is not None and len(reply.words) < _WORDS:
            reply.words.append(data[begin : min(end, begin + RESOURCE_MAX)])
        if found[2] == b"!":
            reply.error = reply.error or b"-" + data[begin : min(end, begin + RESOURCE_MAX)]
        reply.left -= 1
        return end + 2

    def _aggregate(self, reply: Reply, kind: bytes, count: int) -> None:
        if kind == b"|":  # belongs to the element behind it
            reply.left += 2 * count
        else:
            reply.left += (2 * count if kind == b"%" else count) - 1
        if reply.left > _ELEMENTS_MAX:
            raise NotThisProtocol


def _simple(found: re.Match[bytes], data: bytes) -> int:
    """Return the place behind a line or a string that is whole; 0: it is neither."""
    if found.lastindex == 1:
        return found.end()
    if found[2] != b"$":
        return 0
    end = found.end() + int(found[3]) + 2
    return end if data[end - 2 : end] == b"\r\n" and end <= len(data) else 0


def _skip(reply: Reply, data: bytes, place: int) -> int:
    """Return the place behind the whole strings that come next, of which there may be many."""
    size, left = len(data), reply.left
    if reply.words is not None:
        return place
    while left and data[place : place + 1] == b"$":
        line = data.find(b"\r\n", place, place + 12)
        if line < 0 or not (length := data[place + 1 : line]).isdigit():
            break
        end = line + 4 + int(length)
        if end > size or data[end - 2 : end] != b"\r\n":
            break
        left -= 1
        place = end
    reply.left = left
    return place


def request_match(data: bytes) -> Match:
    """Take commands by their names: a reply may be an array of strings, too.

    Lines of text are other protocols', too. NATS answers PING otherwise, and is tried before; what
    POP3 has as well is not taken.
    """
    if inline := _WHOLE_LINE.match(data):
        words = inline[1].split()
        known = words[0].upper() not in _POP3 and is_command(words[0], len(words))
        return Match.YES if known else Match.NO
    if found := _COMMAND.match(data):
        known = int(found[2]) == len(found[3]) and is_command(found[3], int(found[1]))
        return _arguments_match(data, found) if known else Match.NO
    return Match.MORE if _COMMAND_BEGUN.fullmatch(data) else Match.NO


def _arguments_match(data: bytes, command: re.Match[bytes]) -> Match:
    """Say whether the first arguments are strings.

    The confirmation of a subscription begins like the command, but its second is a number.
    """
    place = command.end()
    for number in range(int(command[1]) - 1):
        found = _ARGUMENT.match(data, place)
        if not found:
            return Match.MORE if _ARGUMENT_BEGUN.fullmatch(data, place) else Match.NO
        if number + 1 == _ENOUGH or int(found[1]) > _WAITED_FOR:
            return Match.YES
        place = found.end() + int(found[1]) + 2
        if place > len(data):
            return Match.MORE
    return Match.YES


def response_match(data: bytes) -> Match:
    """Take anything but what is a command, or an error of NATS."""
    if data.startswith(b"-ERR '"):
        return Match.NO
    if data[:1] == b"*" and (match := request_match(data)) is not Match.NO:
        return Match.NO if match is Match.YES else match
    if found := _ELEMENT.match(data):
        rest = data[found.end() :] if found.lastindex == 1 else b""
        fits = not rest or _ELEMENT.match(rest) or _ELEMENT_BEGUN.fullmatch(rest)
        return Match.YES if fits else Match.NO
    return Match.MORE if _ELEMENT_BEGUN.fullmatch(data) else Match.NO


def agree(request: bytes, response: bytes) -> bool:
    """Say whether a reply fits: what NATS answers to its PING may come behind an +OK."""
    return not (_INLINE_PING.match(request) and response.startswith(b"+OK"))
