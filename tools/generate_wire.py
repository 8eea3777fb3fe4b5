#!/usr/bin/env python3
"""Write src/tcprism/events/_wire.py from the types in a compiled BPF object.

BTF says where the compiler really put each field, so the NumPy dtypes cannot disagree with C.
DOC() texts are BTF declaration tags and come along. Preprocessor constants are not in BTF; they
are read from events.h, where each is one plain `#define NAME NUMBER`.
"""

import argparse
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "bpf/include/tcprism/events.h"
OUTPUT = ROOT / "src/tcprism/events/_wire.py"
OBJECT = ROOT / "src/tcprism/kernel/tcprism.bpf.o"

RECORDS = ("message", "delivery", "segment", "loss", "connection_event", "snapshot", "tls_message",
           "translation")  # fmt: skip
STRUCTS = ("event", "totals", *RECORDS, "counters", "lane", "effort", "config")
ENUMS = (
    "event_kind",
    "message_flag",
    "payload_reason",
    "owner_source",
    "cause",
    "segment_arrival",
    "ending",
    "socket_source",
)
FLAGS = {"message_flag"}

BTF_MAGIC = 0xEB9F
INT, ARRAY, STRUCT, UNION, ENUM, DECL_TAG = 1, 3, 4, 5, 6, 17
ALIASES = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag
EXTRA_BYTES = {INT: 4, ARRAY: 12, 14: 4, DECL_TAG: 4}
EXTRA_BYTES_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, 13: 8, 15: 12, 19: 12}


class WireError(Exception):
    """The object or the header lacks something that _wire.py needs."""


@dataclass(frozen=True)
class Type:
    """One BTF type: `size` is the size of a struct or the type id that an alias points to."""

    kind: int
    name: str
    size: int
    extra: bytes


@dataclass(frozen=True)
class Member:
    """A field of a C struct: `format` is a NumPy format, or the name of an embedded struct."""

    name: str
    format: str
    offset: int
    doc: str


@dataclass
class Btf:
    """The types of an object, numbered as BTF numbers them, and the texts attached to fields."""

    types: list[Type]
    strings: bytes
    docs: dict[tuple[int, int], str] = field(default_factory=dict)

    def find(self, kind: int, name: str) -> int:
        """Return the id of the type of that kind and name; WireError when it is not there."""
        for number, entry in enumerate(self.types):
            if entry.kind == kind and entry.name == name:
                return number
        raise WireError(f"the object has no BTF for '{name}': some variable must use it")

    def resolve(self, number: int) -> Type:
        """Return the type behind typedefs and qualifiers."""
        while self.types[number].kind in ALIASES:
            number = self.types[number].size
        return self.types[number]


def elf_section(image: bytes, name: str) -> bytes:
    """Return the bytes of a section of a little-endian 64-bit ELF file."""
    if image[:6] != b"\x7fELF\x02\x01":
        raise WireError("not a little-endian 64-bit ELF object")
    (table,) = struct.unpack_from("<Q", image, 40)
    entry_size, count, names_index = struct.unpack_from("<3H", image, 58)
    headers = [
        struct.unpack_from("<IIQQQQ", image, table + index * entry_size) for index in range(count)
    ]
    names = headers[names_index][4]
    for name_offset, _, _, _, offset, size in headers:
        if c_string(image, names + name_offset) == name:
            return image[offset : offset + size]
    raise WireError(f"no {name} section: compile with -g")


def c_string(data: bytes, offset: int) -> str:
    """Return the NUL-terminated text at an offset."""
    return data[offset : data.index(b"\0", offset)].decode()


def parse_btf(data: bytes) -> Btf:
    """Return the types in a .BTF section."""
    magic, _, _, header, type_offset, type_length, string_offset, _ = struct.unpack_from(
        "<HBBIIIII", data
    )
    if magic != BTF_MAGIC:
        raise WireError("the .BTF section does not start with BTF's magic number")
    strings = data[header + string_offset :]
    start = header + type_offset
    types = [Type(0, "void", 0, b""), *parse_types(data[start : start + type_length], strings)]
    btf = Btf(types, strings)
    for entry in btf.types:
        if entry.kind == DECL_TAG:
            (component,) = struct.unpack("<i", entry.extra)
            btf.docs[entry.size, component] = entry.name
    return btf


def parse_types(data: bytes, strings: bytes) -> Iterator[Type]:
    """Yield the types in order of their ids, from 1."""
    offset = 0
    while offset < len(data):
        name, info, size = struct.unpack_from("<3I", data, offset)
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        extra = EXTRA_BYTES.get(kind, 0) + EXTRA_BYTES_EACH.get(kind, 0) * vlen
        offset += 12
        yield Type(kind, c_string(strings, name), size, data[offset : offset + extra])
        offset += extra


def struct_members(btf: Btf, name: str) -> list[Member]:
    """Return the named fields of a struct; reserved ones are holes in the dtype."""
    number = btf.find(STRUCT, name)
    members = []
    for index, (name_offset, type_id, bits) in enumerate(
        struct.iter_unpack("<3I", btf.types[number].extra)
    ):
        member = c_string(btf.strings, name_offset)
        if member != "reserved":
            doc = btf.docs.get((number, index), "")
            members.append(Member(member, numpy_format(btf, type_id), bits // 8, doc))
    return members


def enum_members(btf: Btf, name: str) -> list[tuple[str, int]]:
    """Return the names and values of an enum."""
    extra = btf.types[btf.find(ENUM, name)].extra
    return [
        (c_string(btf.strings, offset), value) for offset, value in struct.iter_unpack("<2i", extra)
    ]


def numpy_format(btf: Btf, number: int) -> str:
    """Return the NumPy format of a C type, or a struct's name."""
    entry = btf.resolve(number)
    if entry.kind == STRUCT:
        return entry.name
    if entry.kind == ARRAY:
        element, _, count = struct.unpack("<3I", entry.extra)
        inner = btf.resolve(element)
        return f"S{count}" if inner.name == "char" else f"({count},){numpy_format(btf, element)}"
    if entry.kind == INT:
        signed = struct.unpack("<I", entry.extra)[0] >> 24 & 1
        return f"{'<' if entry.size > 1 else ''}{'i' if signed else 'u'}{entry.size}"
    raise WireError(f"no NumPy format for the type '{entry.name}' (BTF kind {entry.kind})")


def header_constants(text: str) -> dict[str, int]:
    """Return every `#define NAME NUMBER` of the header."""
    pattern = r"^#define (\w+) (0x[0-9a-f]+|\d+)U?L{0,2}(?:\s|$)"
    return {name: int(value, 0) for name, value in re.findall(pattern, text, re.M | re.I)}


def payload_classes(text: str) -> tuple[int, ...]:
    """Return the sizes in the header's PAYLOAD_CLASSES list."""
    line = re.search(r"^#define PAYLOAD_CLASSES\(X\)((?: X\(\d+\))+)$", text, re.M)
    if line is None:
        raise WireError(f"{HEADER.name} has no PAYLOAD_CLASSES list")
    return tuple(int(size) for size in re.findall(r"\d+", line[1]))


def camel_case(name: str) -> str:
    """Return event_kind as EventKind."""
    return name.title().replace("_", "")


HEAD = '''"""What crosses from the kernel: dtypes, numbers and texts of include/tcprism/events.h.

Generated by tools/generate_wire.py from the compiled object's BTF. Do not edit.
"""
# ruff: noqa: E501

from collections.abc import Mapping
from enum import IntEnum, IntFlag

import numpy as np

Fields = Mapping[str, tuple[str, int]]


def _at(start: int, fields: Fields) -> Fields:
    return {name: (form, start + offset) for name, (form, offset) in fields.items()}


def _dtype(fields: Fields, itemsize: int) -> np.dtype[np.void]:
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": itemsize}
    )
'''


def render_constants(text: str) -> str:
    """Return assignments for the header's constants."""
    lines = [f"{name} = {number(value)}" for name, value in header_constants(text).items()]
    return "\n".join([*lines, f"PAYLOAD_CLASSES = {payload_classes(text)}"])


def number(value: int) -> str:
    """Return a sentinel or a high bit in hexadecimal, all else in decimal."""
    return f"0x{value:X}" if value == 0xFF or value > 0x7FFF else str(value)


def render_enum(name: str, members: list[tuple[str, int]]) -> str:
    """Return a Python enum; a member called _COUNT becomes a constant behind it."""
    prefix = members[0][0].split("_")[0] + "_"
    base = "IntFlag" if name in FLAGS else "IntEnum"
    lines = [f"class {camel_case(name)}({base}):", f'    """enum {name}."""', ""]
    counts = []
    for member, value in members:
        if member == f"{prefix}COUNT":
            counts.append(f"\n\n{member} = {value}")
        else:
            lines.append(f"    {member.removeprefix(prefix)} = {number(value)}")
    return "\n".join(lines + counts)


def render_struct(btf: Btf, name: str) -> str:
    """Return a struct's fields and dtype; an embedded struct gives its fields."""
    members = struct_members(btf, name)
    lines = [f"_{name.upper()}: Fields = {{"]
    for member in members:
        if member.format in STRUCTS:
            lines.append(f"    **_at({member.offset}, _{member.format.upper()}),")
        else:
            lines.append(f'    "{member.name}": ("{member.format}", {member.offset}),')
    size = btf.types[btf.find(STRUCT, name)].size
    return "\n".join([*lines, "}", f"{name.upper()} = _dtype(_{name.upper()}, {size})"])


def render_docs(btf: Btf) -> str:
    """Return the texts of the fields by struct and field."""
    lines = ["DOCS = {"]
    for name in STRUCTS:
        for member in struct_members(btf, name):
            if member.doc:
                lines.append(f'    "{name}.{member.name}": {quote(member.doc)},')
    return "\n".join([*lines, "}"])


def quote(text: str) -> str:
    """Return a string literal in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def render(btf: Btf, header: str) -> str:
    """Return the text of _wire.py."""
    enums = "\n\n\n".join(render_enum(name, enum_members(btf, name)) for name in ENUMS)
    structs = "\n\n".join(render_struct(btf, name) for name in STRUCTS)
    parts = [f"{HEAD}\n", render_constants(header), f"\n\n{enums}\n\n", structs]
    return "\n".join(parts) + "\n\n" + render_docs(btf) + "\n"


def main() -> int:
    """Write the module, or with --check compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("object", type=Path, nargs="?", default=OBJECT, metavar="OBJECT")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if it differs")
    arguments = parser.parse_args()
    try:
        btf = parse_btf(elf_section(arguments.object.read_bytes(), ".BTF"))
        text = render(btf, HEADER.read_text())
    except (OSError, WireError, struct.error, IndexError, ValueError) as error:
        print(f"{parser.prog}: {arguments.object}: {error}", file=sys.stderr)
        return 1
    if not arguments.check:
        OUTPUT.write_text(text)
    elif not OUTPUT.exists() or OUTPUT.read_text() != text:
        where = OUTPUT.relative_to(ROOT)
        print(f"{where} does not match {arguments.object}: run {parser.prog}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
