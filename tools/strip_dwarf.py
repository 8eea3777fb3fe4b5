"""Drop the DWARF sections of a BPF object and keep everything that a loader reads.

Debug information is most of an object's size. BTF lives in sections of its own (.BTF, .BTF.ext),
which stay with their relocations. Only what clang writes for BPF is handled: relocatable ELF64,
little endian, REL relocations, no section groups, fewer than 65280 sections.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQ")

ET_REL, EM_BPF = 1, 247
SHT_SYMTAB, SHT_NOBITS, SHT_REL = 2, 8, 9
SHN_LORESERVE = 0xFF00
ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
# .llvm_addrsig is a table of symbol numbers for linkers, meaningless once those change.
UNWANTED = (".debug_", ".rel.debug_", ".llvm_addrsig")


@dataclass(frozen=True)
class Section:
    """One row of the section header table, with the bytes it describes."""

    name_offset: int
    type: int
    flags: int
    address: int
    link: int
    info: int
    alignment: int
    entry_size: int
    size: int
    data: bytes


@dataclass(frozen=True)
class Numbers:
    """Old to new numbers of the sections and the symbols that stay."""

    sections: dict[int, int]
    symbols: dict[int, int]


def strip_dwarf(image: bytes) -> bytes:
    """Return `image` without DWARF. Raises ValueError when it is not a relocatable BPF object."""
    header = HEADER.unpack(image[: HEADER.size].ljust(HEADER.size, b"\0"))
    if image[:6] != ELF64_LITTLE_ENDIAN or header[1:3] != (ET_REL, EM_BPF):
        raise ValueError("not a relocatable, little-endian BPF object")
    sections = list(read_sections(image, header[6], header[12]))
    name = section_name(sections[header[13]].data)
    kept = [i for i, section in enumerate(sections) if not name(section).startswith(UNWANTED)]
    numbers = Numbers(renumber(kept), {})
    symtab = next(section for section in sections if section.type == SHT_SYMTAB)
    numbers.symbols.update(renumber(kept_symbols(symtab.data, numbers)))
    rewritten = [rewrite(sections[i], numbers) for i in kept]
    return write(header, rewritten, numbers.sections[header[13]])


def read_sections(image: bytes, offset: int, count: int) -> Iterator[Section]:
    for row in SECTION.iter_unpack(image[offset : offset + count * SECTION.size]):
        name, kind, flags, address, start, size, link, info, alignment, entry_size = row
        data = b"" if kind == SHT_NOBITS else image[start : start + size]
        yield Section(name, kind, flags, address, link, info, alignment, entry_size, size, data)


def section_name(names: bytes) -> Callable[[Section], str]:
    def name(section: Section) -> str:
        return names[section.name_offset : names.index(b"\0", section.name_offset)].decode()

    return name


def renumber(kept: list[int]) -> dict[int, int]:
    return {old: new for new, old in enumerate(kept)}


def kept_symbols(symtab: bytes, numbers: Numbers) -> list[int]:
    """Return the numbers of the symbols whose section stays."""
    homes = (row[3] for row in SYMBOL.iter_unpack(symtab))
    return [i for i, home in enumerate(homes) if home >= SHN_LORESERVE or home in numbers.sections]


def rewrite(section: Section, numbers: Numbers) -> Section:
    """Return `section` with the numbers of other sections and of symbols brought up to date."""
    link = numbers.sections[section.link]
    if section.type == SHT_SYMTAB:
        rows = list(SYMBOL.iter_unpack(section.data))
        data = b"".join(rewrite_symbol(rows[i], numbers) for i in numbers.symbols)
        locals_before = sum(i < section.info for i in numbers.symbols)
        return replace(section, link=link, info=locals_before, size=len(data), data=data)
    if section.type == SHT_REL:
        data = b"".join(rewrite_relocations(section.data, numbers))
        return replace(section, link=link, info=numbers.sections[section.info], data=data)
    return replace(section, link=link)


def rewrite_symbol(row: tuple[int, ...], numbers: Numbers) -> bytes:
    name, info, other, home, value, size = row
    return SYMBOL.pack(name, info, other, numbers.sections.get(home, home), value, size)


def rewrite_relocations(data: bytes, numbers: Numbers) -> Iterator[bytes]:
    for offset, info in RELOCATION.iter_unpack(data):
        symbol, kind = info >> 32, info & 0xFFFFFFFF
        yield RELOCATION.pack(offset, numbers.symbols[symbol] << 32 | kind)


def write(header: tuple[int, ...], sections: list[Section], names_section: int) -> bytes:
    """Lay out header, section contents and section header table."""
    image = bytearray(HEADER.size)
    table = bytearray()
    for section in sections:
        image += bytes(-len(image) % max(section.alignment, 1))
        table += section_row(section, len(image) if section.type else 0)
        image += section.data
    image += bytes(-len(image) % 8)
    fields = (*header[:6], len(image), *header[7:12], len(sections), names_section)
    HEADER.pack_into(image, 0, *fields)
    return bytes(image + table)


def section_row(section: Section, start: int) -> bytes:
    return SECTION.pack(
        section.name_offset,
        section.type,
        section.flags,
        section.address,
        start,
        section.size,
        section.link,
        section.info,
        section.alignment,
        section.entry_size,
    )
