"""BSON: the elements of a document, of which only the first bytes may be seen."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

DOUBLE, STRING, DOCUMENT, ARRAY, BOOLEAN, INT32, INT64 = 1, 2, 3, 4, 8, 16, 18
_FIXED = {
    DOUBLE: 8, 6: 0, 7: 12, BOOLEAN: 1, 9: 8, 10: 0, INT32: 4, 17: 8, INT64: 8, 19: 16,
    255: 0, 127: 0,
}  # fmt: skip
# What a length in front does not count: itself, and of binary data its type.
_BESIDE = {STRING: 4, DOCUMENT: 0, ARRAY: 0, 5: 5, 13: 4, 14: 4, 15: 0, 12: 16}
_REGEX = 11
_ELEMENTS_MAX = 256
_NUMBERS = {DOUBLE: Struct("<d"), INT32: Struct("<i"), INT64: Struct("<q"), BOOLEAN: Struct("<?")}
_LENGTH = Struct("<i")


class Element(NamedTuple):
    """An element of a document: its value is `data[begin:end]`."""

    name: bytes
    kind: int
    begin: int
    end: int


def elements(data: bytes, place: int) -> Iterator[Element]:
    """Yield the elements of the document at a place whose values begin in what is seen.

    Raises ValueError where no element looks so.
    """
    place += 4
    for _ in range(_ELEMENTS_MAX):
        if place >= len(data) or not data[place]:
            return
        kind = data[place]
        name_end = data.find(b"\0", place + 1)
        if name_end < 0:
            return
        begin = name_end + 1
        end = _value_end(data, kind, begin)
        if end is None:
            return
        yield Element(data[place + 1 : name_end], kind, begin, end)
        place = end


def _value_end(data: bytes, kind: int, begin: int) -> int | None:
    size = _FIXED.get(kind)
    if size is not None:
        return begin + size
    if kind == _REGEX:
        middle = data.find(b"\0", begin)
        last = data.find(b"\0", middle + 1) if middle >= 0 else -1
        return last + 1 if last >= 0 else None
    beside = _BESIDE.get(kind)
    if beside is None:
        raise ValueError(kind)
    if begin + 4 > len(data):
        return None
    length: int = _LENGTH.unpack_from(data, begin)[0]
    if length < 0:
        raise ValueError(length)
    return begin + length + beside


def number(data: bytes, element: Element) -> float | None:
    """Return the value of an element, if it is a number that is seen."""
    form = _NUMBERS.get(element.kind)
    if form is None or element.end > len(data):
        return None
    value: float = form.unpack_from(data, element.begin)[0]
    return value


def string(data: bytes, element: Element) -> bytes:
    """Return the value of an element, if it is a string: as much of it as is seen."""
    return data[element.begin + 4 : element.end - 1] if element.kind == STRING else b""
