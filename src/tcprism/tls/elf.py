"""What we need of an ELF file: where functions are, and read-only data.

The files are anybody's: a process can map whatever it wrote, and change it while it is read. So all
is read with pread(), never mapped (a mapped file that shrinks kills its reader), and all sizes are
bounded. A library for ELF files would not do: pyelftools 0.33 follows hash chains and builds lists
as long as the file says, and takes 60 ms to import and 4 ms a file. A machine has hundreds of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NOT_X86_64 = "not for x86-64"

MOST_HEADERS = 512
MOST_DYNAMIC = 1 << 16
MOST_STRINGS = 1 << 26
MOST_SYMBOLS = 1 << 28
MOST_PLACES = 64  # of one name in a table of strings
CHUNK = 1 << 20

_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_CLASS_64, _LITTLE_ENDIAN, _X86_64 = 2, 1, 62
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_EXECUTABLE = 1
_SHT_SYMTAB = 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_STT_FUNC = 2
_RELATIVE = 8

_SEGMENT = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        ("offset", "<u8"),
        ("address", "<u8"),
        ("physical", "<u8"),
        ("size", "<u8"),
        ("memory", "<u8"),
        ("align", "<u8"),
    ]
)
_SECTION = np.dtype(
    [
        ("name", "<u4"),
        ("type", "<u4"),
        ("flags", "<u8"),
        ("address", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("align", "<u8"),
        ("entry", "<u8"),
    ]
)
_SYMBOL = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("section", "<u2"),
        ("address", "<u8"),
        ("size", "<u8"),
    ]
)
_ENTRY = np.dtype([("tag", "<u8"), ("value", "<u8")])
_RELOCATION = np.dtype([("address", "<u8"), ("info", "<u8"), ("addend", "<u8")])


class Unreadable(Exception):
    """A file that is no ELF file of this machine, or a damaged one; says why in a few words."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section is, in memory and in the file."""

    address: int
    offset: int
    size: int


@dataclass(frozen=True)
class Symbols:
    """A table of symbols with its strings."""

    strings: bytes
    read: Callable[[], bytes]

    def addresses(self, names: Collection[bytes]) -> dict[bytes, int]:
        """Return the address of each named function that is defined here."""
        places = {place: name for name in names for place in self._places(name)}
        if not places:
            return {}
        raw = self.read()
        symbols = np.frombuffer(raw, _SYMBOL, len(raw) // _SYMBOL.itemsize)
        wanted = np.isin(symbols["name"], np.fromiter(places, np.uint32))
        wanted &= ((symbols["info"] & 0xF) == _STT_FUNC) & (symbols["section"] != 0)
        found = symbols[wanted]
        return {
            places[name]: address
            for name, address in zip(found["name"].tolist(), found["address"].tolist(), strict=True)
        }

    def _places(self, name: bytes) -> Iterator[int]:
        # A linker lets a name be the end of a longer one, so there may be several.
        place = -1
        for _ in range(MOST_PLACES):
            place = self.strings.find(name + b"\0", place + 1)
            if place < 0:
                return
            yield place
        raise Unreadable("damaged ELF file")


class ElfFile:
    """An ELF file behind an open descriptor, which stays its caller's. Raises Unreadable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        header = self._read(0, _HEADER.size, "not an ELF file")
        fields = _HEADER.unpack(header)
        magic, width, order, _, _, machine, _, _, segments, self._sections = fields[:10]
        if magic != b"\x7fELF":
            raise Unreadable("not an ELF file")
        if (width, order, machine) != (_CLASS_64, _LITTLE_ENDIAN, _X86_64):
            raise Unreadable(NOT_X86_64)
        *_, entry_size, count, section_size, self._section_count, self._names = fields
        if entry_size != _SEGMENT.itemsize or count > MOST_HEADERS:
            raise Unreadable("damaged ELF file")
        self._has_sections = section_size == _SECTION.itemsize
        self._segments = np.frombuffer(self._read(segments, entry_size * count), _SEGMENT)

    def exported(self) -> Symbols | None:
        """Return the symbols that other files can use; None in a static program."""
        dynamic = self._segments[self._segments["type"] == _PT_DYNAMIC]
        if not len(dynamic):
            return None
        size = min(int(dynamic["size"][0]), MOST_DYNAMIC) // _ENTRY.itemsize * _ENTRY.itemsize
        raw = self._read(int(dynamic["offset"][0]), size)
        entries = np.frombuffer(raw, _ENTRY)
        tags = dict(zip(entries["tag"].tolist(), entries["value"].tolist(), strict=True))
        if not {_DT_STRTAB, _DT_STRSZ, _DT_SYMTAB} <= tags.keys():
            return None
        strings = self._read(self._offset(tags[_DT_STRTAB]), tags[_DT_STRSZ], most=MOST_STRINGS)
        start = self._offset(tags[_DT_SYMTAB])
        return Symbols(strings, lambda: self._read_symbols(start, self._count(tags)))

    def internal(self) -> Symbols | None:
        """Return the symbols for debuggers; None in a stripped file."""
        sections = self._section_headers
        tables = sections[sections["type"] == _SHT_SYMTAB]
        if not len(tables) or tables["link"][0] >= len(sections):
            return None
        table, strings = tables[0], sections[tables["link"][0]]
        return Symbols(
            self._read(int(strings["offset"]), int(strings["size"]), most=MOST_STRINGS),
            lambda: self._read_symbols(
                int(table["offset"]), int(table["size"]) // _SYMBOL.itemsize
            ),
        )

    @property
    def is_program(self) -> bool:
        """Say whether the file is one that is run, not a library."""
        kinds = self._segments["type"]
        return bool((kinds == _PT_INTERP).any() or not (kinds == _PT_DYNAMIC).any())

    def code_offset(self, address: int) -> int | None:
        """Return where in the file the code at an address is; None if it is no code."""
        for segment in self._segments[self._segments["flags"] & _EXECUTABLE != 0]:
            offset = _within(segment, address)
            if offset is not None:
                return offset
        return None

    def section(self, name: bytes) -> Section | None:
        """Return where a section is."""
        sections = self._section_headers
        if self._names >= len(sections):
            return None
        table = sections[self._names]
        names = self._read(int(table["offset"]), int(table["size"]), most=MOST_DYNAMIC)
        if name + b"\0" not in names:
            return None
        for start, address, offset, size in sections[
            ["name", "address", "offset", "size"]
        ].tolist():
            if names[start : start + len(name) + 1] == name + b"\0":
                return Section(address, offset, size)
        return None

    def read(self, section: Section, most: int = MOST_STRINGS) -> bytes:
        """Return what is in a section."""
        return self._read(section.offset, section.size, most=most)

    def chunks(self, section: Section) -> Iterator[bytes]:
        """Return what is in a section, piece by piece; each goes on into the next."""
        overlap = 256
        for offset in range(section.offset, min(section.offset + section.size, self.size), CHUNK):
            yield os.pread(self._descriptor, CHUNK + overlap, offset)

    def code(self, start: int, end: int) -> bytes:
        """Return the code between two addresses."""
        offset = self.code_offset(start)
        if offset is None:
            raise Unreadable("damaged ELF file")
        return self._read(offset, end - start, most=CHUNK)

    def constant(self, address: int, size: int) -> bytes:
        """Return what is at an address."""
        return self._read(self._offset(address), size)

    def relocated(self, address: int, count: int) -> list[int]:
        """Return words as they are in memory, if the file is loaded at address 0.

        The linker adds to some where it loads the file: R_X86_64_RELATIVE.
        """
        raw = self._read(self._offset(address), 8 * count)
        words: list[int] = np.frombuffer(raw, "<u8").tolist()
        section = self.section(b".rela.dyn")
        if section is None:
            return words
        raw = self.read(section, MOST_SYMBOLS)
        entries = np.frombuffer(raw, _RELOCATION, len(raw) // _RELOCATION.itemsize)
        places = entries["address"]
        inside = (places >= address) & (places < address + 8 * count)
        for entry in entries[inside & (entries["info"] == _RELATIVE)]:
            words[(int(entry["address"]) - address) // 8] = int(entry["addend"])
        return words

    @cached_property
    def _section_headers(self) -> NDArray[np.void]:
        if not self._has_sections or self._section_count > MOST_HEADERS:
            return np.empty(0, _SECTION)
        raw = self._read(self._sections, self._section_count * _SECTION.itemsize)
        return np.frombuffer(raw, _SECTION)

    def _count(self, tags: dict[int, int]) -> int:
        """Return how many symbols are exported, which only the tables of hashes tell."""
        if _DT_HASH in tags:
            _, chains = struct.unpack("<II", self._read(self._offset(tags[_DT_HASH]), 8))
            return int(chains)
        if _DT_GNU_HASH not in tags:
            raise Unreadable("damaged ELF file")
        start = self._offset(tags[_DT_GNU_HASH])
        buckets, first, bloom, _ = struct.unpack("<IIII", self._read(start, 16))
        chains = start + 16 + 8 * bloom + 4 * buckets
        raw = self._read(chains - 4 * buckets, 4 * buckets, most=MOST_STRINGS)
        last = int(np.frombuffer(raw, "<u4").max(initial=0))
        if last < first:
            return int(first)
        return last + 1 + self._chain_length(chains + 4 * (last - first))

    def _chain_length(self, offset: int) -> int:
        raw = os.pread(self._descriptor, MOST_DYNAMIC, offset) if offset < self.size else b""
        ends = np.frombuffer(raw, "<u4", len(raw) // 4) & 1
        if not ends.any():
            raise Unreadable("damaged ELF file")
        return int(ends.argmax())

    def _read_symbols(self, offset: int, count: int) -> bytes:
        return self._read(offset, count * _SYMBOL.itemsize, most=MOST_SYMBOLS)

    def _offset(self, address: int) -> int:
        for segment in self._segments[self._segments["type"] == _PT_LOAD]:
            offset = _within(segment, address)
            if offset is not None:
                return offset
        raise Unreadable("damaged ELF file")

    def _read(
        self, offset: int, size: int, why: str = "damaged ELF file", most: int = MOST_STRINGS
    ) -> bytes:
        if size > most or offset + size > self.size:
            raise Unreadable(why)
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise Unreadable(why)
        return data


def _within(segment: np.void, address: int) -> int | None:
    start = int(segment["address"])
    if segment["type"] == _PT_LOAD and start <= address < start + int(segment["size"]):
        return address - start + int(segment["offset"])
    return None
