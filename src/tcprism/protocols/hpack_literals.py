"""Where literal values are in a header block of HPACK (RFC 7541), which may end early.

Only a literal has bytes of a value; all else is a number of an entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tcprism.protocols import NotThisProtocol
from tcprism.protocols.hpack import integer
from tcprism.protocols.huffman import decode as huffman

LONGEST = 1 << 16  # bytes of a field
HUFFMAN_ASTERISK = 0xF9  # its code has eight bits

# Appendix A, without what comes first: names that have several values, once for each.
_SEVERAL = (b":authority", *[b":method"] * 2, *[b":path"] * 2, *[b":scheme"] * 2, *[b":status"] * 7)
_OTHERS = b"""
accept-charset accept-encoding accept-language accept-ranges accept access-control-allow-origin age
allow authorization cache-control content-disposition content-encoding content-language
content-length content-location content-range content-type cookie date etag expect expires from host
if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link location
max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server
set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_NAMES = (b"", *_SEVERAL, *_OTHERS.split())


class Literal(NamedTuple):
    """A value as far as it is there, decoded, and from where to where its bytes are.

    `name` is None if it is in the dynamic table. The bytes may be in HPACK's Huffman code.
    """

    name: bytes | None
    value: bytes
    coded: bool
    begin: int
    end: int


def literals(block: bytes) -> Iterator[Literal | int]:
    """Yield the literals, and the place of the field that is not there to its end, if there is one.

    Its own literal, if that has begun, comes before. Raises NotThisProtocol.
    """
    place = 0
    while place < len(block):
        start = place
        try:
            literal, place = _field(block, place)
        except IndexError:
            yield start
            return
        if literal:
            yield literal
        if place > len(block):
            yield start
            return


def _field(block: bytes, place: int) -> tuple[Literal | None, int]:
    """Return a field's literal and the place behind it. Raises IndexError if no value has begun."""
    first = block[place]
    if first >= 0x80:
        return None, integer(block, place, 0x7F)[1]
    if 0x20 <= first < 0x40:
        return None, integer(block, place, 0x1F)[1]
    index, place = integer(block, place, 0x3F if first >= 0x40 else 0x0F)
    name = _NAMES[index] if index < len(_NAMES) else None
    if not index:
        name, _, _, place = _string(block, place)
        if place > len(block):
            raise IndexError
    value, coded, begin, end = _string(block, place)
    return Literal(name, value, coded, begin, min(end, len(block))), end


def _string(block: bytes, place: int) -> tuple[bytes, bool, int, int]:
    coded = block[place] >= 0x80
    length, begin = integer(block, place, 0x7F)
    if length > LONGEST:
        raise NotThisProtocol
    raw = block[begin : begin + length]
    return huffman(raw) if coded else raw, coded, begin, begin + length
