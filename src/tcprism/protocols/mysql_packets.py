"""The packets of MySQL's and MariaDB's protocol: what is in them, and whether bytes are some."""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from tcprism.protocols import Match

HEAD = 4  # length, three bytes; sequence number
LONGEST = 0xFFFFFF  # such a packet is continued in the next
OK, LOCAL_INFILE, EOF, ERR = 0x00, 0xFB, 0xFE, 0xFF
EOF_SIZE = 5  # an OK packet that stands for it is longer

QUIT, INIT_DB, QUERY, FIELD_LIST, STATISTICS = 0x01, 0x02, 0x03, 0x04, 0x09
CHANGE_USER, BINLOG_DUMP, BINLOG_DUMP_GTID = 0x11, 0x12, 0x1E
PREPARE, EXECUTE, LONG_DATA, CLOSE, FETCH, BULK_EXECUTE = 0x16, 0x17, 0x18, 0x19, 0x1C, 0xFA
# The other commands, which are answered by one packet.
COMMANDS = {
    INIT_DB: "INIT_DB", FIELD_LIST: "FIELD_LIST", 0x05: "CREATE_DB", 0x06: "DROP_DB",
    0x07: "REFRESH", 0x08: "SHUTDOWN", STATISTICS: "STATISTICS", 0x0A: "PROCESS_INFO",
    0x0C: "PROCESS_KILL", 0x0D: "DEBUG", 0x0E: "PING", CHANGE_USER: "CHANGE_USER",
    BINLOG_DUMP: "BINLOG_DUMP", 0x15: "REGISTER_SLAVE", 0x1A: "STMT_RESET", 0x1B: "SET_OPTION",
    FETCH: "FETCH", BINLOG_DUMP_GTID: "BINLOG_DUMP_GTID", 0x1F: "RESET_CONNECTION",
}  # fmt: skip

# Capabilities, and flags of the server's status.
WITH_DATABASE, COMPRESS, PROTOCOL_41, SSL, SECURE = 1 << 3, 1 << 5, 1 << 9, 1 << 11, 1 << 15
LONG_AUTHENTICATION, DEPRECATE_EOF, COMPRESS_ZSTD = 1 << 21, 1 << 24, 1 << 26
MORE_RESULTS, CURSOR_EXISTS = 0x08, 0x40
SSL_REQUEST_SIZE = 32

_LENGTH = Struct("<I").unpack_from  # and the number
_EOF_LENGTH = b"\x05\0\0"
_INTEGERS = {0xFC: 2, 0xFD: 3, 0xFE: 8}  # their bytes, by the first
_TOLD = 32  # bytes of a statement that suffice
_TRIED = 2_048
_SHORT = 32  # packets
_STATEMENT = rb"[\s(;]*(?:[A-Za-z]{2}|--|/\*|#)[^\x00-\x08\x0e-\x1f\x7f]*"
_BODIES = re.compile(
    rb"(?:\x03(?:\x00\x01)?|\x16)%s|[\x01\x09\x0d\x0e\x1f]|\x02[^\x00-\x1f]{1,64}"
    rb"|\x17.{4}[\x00-\x0f]\x01\x00\x00\x00.*|[\x19\x1a].{4}|\x1b[\x00\x01]\x00|\x1c.{8}"
    % _STATEMENT,
    re.DOTALL,
)
_BEGUN = re.compile(rb"(?:\x03(?:\x00\x01)?|\x16)%s" % _STATEMENT, re.DOTALL)
# Since protocol 4.1; MariaDB has flags in the last four bytes that MySQL leaves zero.
_LOGIN = re.compile(rb".[\x02\x03\x06\x07\x0a\x0b\x0e\x0f\x82-\xff].{7}\x00{19}.{4}", re.DOTALL)
_GREETING = re.compile(rb"\x0a[\x20-\x7e]{3,100}\x00.{12}\x00.{15}", re.DOTALL)
_ERROR = re.compile(rb"\xff..#[0-9A-Z]{5}[^\x00]*\Z", re.DOTALL)
_DEFINITION = re.compile(rb"..\x00.\x03def", re.DOTALL)
_END = re.compile(rb"[\x05\x07-\xff]\x00\x00.\xfe", re.DOTALL)
_END_MAX = HEAD + 255


class Whole(NamedTuple):
    """A result set: the place behind it, and whether an EOF packet follows its columns."""

    end: int
    eofs: bool


def length_encoded(data: bytes, place: int) -> tuple[int, int]:
    """Return an integer, and the place behind it."""
    first = data[place] if place < len(data) else 0
    if first < LOCAL_INFILE:
        return first, place + 1
    size = _INTEGERS.get(first, 0)
    return int.from_bytes(data[place + 1 : place + 1 + size], "little"), place + 1 + size


def status(body: bytes) -> int:
    """Return the server's status, which an OK packet and an EOF packet have."""
    place = 3 if len(body) == EOF_SIZE else _status_place(body)
    return int.from_bytes(body[place : place + 2], "little")


def _status_place(body: bytes) -> int:
    _, place = length_encoded(body, 1)  # rows, and an id that was inserted
    return length_encoded(body, place)[1]


def offered(greeting: bytes) -> int:
    """Return the capabilities that a server's greeting offers; all of them if it does not say."""
    place = greeting.find(b"\0") + 14
    low, high = greeting[place : place + 2], greeting[place + 5 : place + 7]
    return int.from_bytes(low + high, "little") if len(high) == 2 else ~0


def database(body: bytes, capabilities: int) -> bytes:
    """Return the database that a client asks for when it logs in."""
    if not capabilities & WITH_DATABASE or not capabilities & PROTOCOL_41:
        return b""
    place = body.find(b"\0", SSL_REQUEST_SIZE) + 1
    if capabilities & LONG_AUTHENTICATION:
        size, place = length_encoded(body, place)
    elif capabilities & SECURE:
        size, place = body[place] if place < len(body) else 0, place + 1
    else:
        size = body.find(b"\0", place) + 1 - place
    return body[place + size :].partition(b"\0")[0]


def whole_result(data: bytes, place: int, number: int) -> Whole | None:
    """Return where the only result of a response ends, if it is short and all there."""
    size, columns = len(data), data[place + HEAD] if len(data) > place + HEAD else 0
    first = (1 | (number + 1 & 0xFF) << 24).to_bytes(HEAD, "little")
    if not 0 < columns < LOCAL_INFILE or not data.startswith(first, place):
        return None
    place += HEAD + 1
    eofs = False
    try:
        for _ in range(columns):
            place += HEAD + (_LENGTH(data, place)[0] & LONGEST)
        if data[place + HEAD] == EOF and data.startswith(_EOF_LENGTH, place):
            if data[place + HEAD + 3] & CURSOR_EXISTS:
                return None
            eofs = True
            place += HEAD + EOF_SIZE
        for _ in range(_SHORT):
            if data[place + HEAD] >= EOF:
                break
            place += HEAD + (_LENGTH(data, place)[0] & LONGEST)
        end = place + HEAD + (_LENGTH(data, place)[0] & LONGEST)
    except (IndexError, StructError):
        return None  # it is not all there
    body = data[place + HEAD : end]
    if end > size or len(body) < EOF_SIZE or body[0] != EOF or status(body) & MORE_RESULTS:
        return None
    return Whole(end, eofs)


def end_of_rows(data: bytes) -> int:
    """Return where the packet is that ends the rows, if it ends the bytes; -1: nowhere."""
    for found in _END.finditer(data, max(0, len(data) - _END_MAX)):
        body = data[found.end() - 1 :]
        if data[found.start()] == len(body) and not status(body) & MORE_RESULTS:
            return found.start()
    return -1


def is_request(data: bytes) -> Match:
    """Say whether a client sends such: packets, of which the first begins a command, or a login."""
    place, size = 0, min(len(data), _TRIED)
    found = Match.MORE
    while size - place >= HEAD:
        length, number = int.from_bytes(data[place : place + 3], "little"), data[place + 3]
        body = data[place + HEAD : place + HEAD + length]
        if not length or number > 1 or (number and place):
            return found if place and length else Match.NO
        whole = len(body) == length
        if number:
            login = _LOGIN.match(body)
            return Match.YES if login else Match.NO if whole or len(body) > _TOLD else Match.MORE
        if not whole:
            return _begun(body) if found is Match.MORE else found
        if not _BODIES.fullmatch(body):
            return Match.NO
        found = Match.YES
        place += HEAD + length
    return found


def _begun(body: bytes) -> Match:
    if len(body) <= _TOLD:
        return Match.MORE if not body or body[0] in (QUERY, PREPARE, EXECUTE) else Match.NO
    begun = _BEGUN.match(body)
    told = begun.end() == len(body) if begun else _BODIES.match(body) and body[0] == EXECUTE
    return Match.YES if told else Match.NO


def is_response(data: bytes) -> Match:
    """Say whether a server sends such: a greeting, or the first packet of a response."""
    if len(data) <= HEAD:
        return Match.MORE if not any(data[1:3]) and data[3:] in (b"", b"\0", b"\1") else Match.NO
    length, number = int.from_bytes(data[:3], "little"), data[3]
    if not length or length > 1_000 or number > 1:
        return Match.NO
    body = data[HEAD : HEAD + length]
    check: Callable[[bytes], object]
    if number == 0:
        check = _GREETING.match
    elif body[0] == OK:
        check = _is_ok
    elif body[0] == ERR:
        check = _ERROR.match
    elif body[0] == EOF and length == EOF_SIZE:
        check = bool
    elif length in (1, 2) or (length in (3, 4) and body[0] == 0xFC):
        columns = data[HEAD + length :]
        if len(columns) < 8:
            return Match.MORE
        return Match.YES if _DEFINITION.match(columns) else Match.NO
    else:
        return Match.NO
    if len(body) < length:
        return Match.MORE
    return Match.YES if check(body) else Match.NO


def _is_ok(body: bytes) -> bool:
    if len(body) in (12, 13) and body[9] == 0:  # the response to PREPARE
        return True
    end = _status_place(body) + 4  # status, warnings
    if end == len(body):
        return True
    size, place = length_encoded(body, end)
    return place + size <= len(body)
