"""HPACK (RFC 7541) as far as it is wanted: a few fields, also of a connection that is older.

Indexes into the dynamic table count from the newest entry. So those that were inserted since the
trace began are known exactly, and only what is older is not.
"""

from __future__ import annotations

from tcprism.protocols import NotThisProtocol
from tcprism.protocols.huffman import decode as huffman

METHOD, PATH, STATUS, AUTHORITY = b":method", b":path", b":status", b":authority"
CONTENT_TYPE, GRPC_STATUS, GRPC_MESSAGE = b"content-type", b"grpc-status", b"grpc-message"
_WANTED = frozenset((METHOD, PATH, STATUS, AUTHORITY, CONTENT_TYPE, GRPC_STATUS, GRPC_MESSAGE))
UNKNOWN = b""  # the name of a field that is older than the trace

VALUE_MAX = 256  # bytes of a value that are kept, more than is shown of any
# A table of 64 KiB, which is more than most allow, has no more (an entry counts 32 and its bytes).
_ENTRIES_MAX = 2_048
_CACHED = 256  # bytes of a block, and how many of a connection
_COMMON_MAX = 4_096
_INTEGER_MAX = 1 << 24  # a frame holds no more

Fields = dict[bytes, bytes]
Field = tuple[bytes, bytes] | None  # None: not wanted

_STATIC: list[Field] = [None] * 62
_STATIC[1:6] = (
    (AUTHORITY, b""),
    (METHOD, b"GET"),
    (METHOD, b"POST"),
    (PATH, b"/"),
    (PATH, b"/index.html"),
)
_STATIC[8:15] = [(STATUS, b"%d" % code) for code in (200, 204, 206, 304, 400, 404, 500)]
_STATIC[31] = (CONTENT_TYPE, b"")
_OLDER: Field = (UNKNOWN, b"")

# Of blocks that say the same on all connections: their fields, and what they insert.
_common: dict[bytes, tuple[Fields, list[Field]]] = {}


class Decoder:
    """Reads the header blocks of one direction in their order."""

    __slots__ = ("_cache", "_refers", "_table")

    def __init__(self) -> None:
        self._table: list[Field] = []  # what was inserted, the newest last
        self._cache: dict[bytes, Fields] = {}  # of blocks that refer to the table as it is now
        self._refers = False  # whether the block that is read does

    def forget(self) -> None:
        """Forget the table, as what was inserted meanwhile is not known."""
        self._table.clear()
        self._cache.clear()

    def decode(self, block: bytes) -> Fields:
        """Return the wanted fields of a block, and `UNKNOWN` where one may be any.

        Raises NotThisProtocol.
        """
        if common := _common.get(block):
            fields, inserted = common
            if inserted:
                self._insert(inserted)
            return fields
        found = self._cache.get(block)
        return self._decode(block) if found is None else found

    def _decode(self, block: bytes) -> Fields:
        fields: Fields = {}
        table, inserted = self._table, 0
        self._refers = False
        try:
            place, size = 0, len(block)
            while place < size:
                first = block[place]
                if first >= 0x80:  # an entry
                    field, place = self._entry(block, place, 0x7F)
                elif first >= 0x40:  # a literal that is inserted
                    field, place = self._literal(block, place, 0x3F)
                    table.append(field)
                    inserted += 1
                elif first >= 0x20:  # the table gets another size
                    _, place = integer(block, place, 0x1F)
                    continue
                else:
                    field, place = self._literal(block, place, 0x0F)
                if field:
                    fields[field[0]] = field[1]
        except IndexError:
            raise NotThisProtocol from None
        if place > size:
            raise NotThisProtocol
        new = table[len(table) - inserted :]
        if len(block) <= _CACHED:
            self._keep(block, fields, new)
        if inserted:
            self._insert([])
        return fields

    def _keep(self, block: bytes, fields: Fields, inserted: list[Field]) -> None:
        if not self._refers:
            if len(_common) == _COMMON_MAX:
                _common.clear()
            _common[block] = fields, inserted
        elif not inserted:
            if len(self._cache) == _CACHED:
                self._cache.clear()
            self._cache[block] = fields

    def _insert(self, fields: list[Field]) -> None:
        self._table += fields
        self._cache.clear()
        if len(self._table) > 2 * _ENTRIES_MAX:
            del self._table[:_ENTRIES_MAX]

    def _entry(self, block: bytes, place: int, mask: int) -> tuple[Field, int]:
        index = block[place] & mask
        place += 1
        if index == mask:
            index, place = integer(block, place - 1, mask)
        if index < 62:
            if not index:
                raise NotThisProtocol
            return _STATIC[index], place
        self._refers = True
        newest = index - 61
        return self._table[-newest] if newest <= len(self._table) else _OLDER, place

    def _literal(self, block: bytes, place: int, mask: int) -> tuple[Field, int]:
        if block[place] & mask:
            entry, place = self._entry(block, place, mask)
            name = entry[0] if entry else None
        else:
            raw, coded, place = _string(block, place + 1)
            text = huffman(raw) if coded else raw
            name = text if text in _WANTED else None
        value, coded, place = _string(block, place)
        if name is None:
            return None, place
        value = value[:VALUE_MAX]
        return (name, huffman(value) if coded else value), place


def _string(block: bytes, place: int) -> tuple[bytes, bool, int]:
    """Return the bytes of a string, whether they are coded, and the place behind them."""
    first = block[place]
    length, begin = first & 0x7F, place + 1
    if length == 0x7F:
        length, begin = integer(block, place, 0x7F)
    end = begin + length
    if end > len(block):
        raise NotThisProtocol
    return block[begin:end], first >= 0x80, end


def integer(block: bytes, place: int, mask: int) -> tuple[int, int]:
    """Return the integer that begins in the low bits of a byte, and the place behind it."""
    value = block[place] & mask
    place += 1
    if value < mask:
        return value, place
    shift = 0
    while True:
        byte = block[place]
        place += 1
        value += (byte & 0x7F) << shift
        if value > _INTEGER_MAX:
            raise NotThisProtocol
        if byte < 0x80:
            return value, place
        shift += 7
