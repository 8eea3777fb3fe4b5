"""The functions of crypto/tls in a Go program, stripped or not.

Go keeps a table of all functions for its own tracebacks (runtime/symtab.go). Return probes cannot
be used: they change the return address, and Go moves stacks. So the places of all RETs are found.
A function may begin twice in one call: it does so again after its stack has been moved.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcprism.errors import ExtraMissing
from tcprism.events.optional import need
from tcprism.tls.elf import ElfFile, Section, Unreadable

FUNCTIONS = (
    b"crypto/tls.(*Conn).Close",
    b"crypto/tls.(*Conn).handshakeContext",
    b"crypto/tls.(*Conn).Read",
    b"crypto/tls.(*Conn).Write",
)
_NEEDED = FUNCTIONS[2:]
UNSUPPORTED = "unsupported build"
NEEDS_EXTRA = "Go: needs `pip install 'tcprism[tls]'`"

_FEWEST = len(_NEEDED)
_MOST_TABLE = 1 << 28
_LONGEST = 1 << 16  # bytes of code in one function
_HEADER = struct.Struct("<IBBBB8Q")
_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)  # since Go 1.18 and 1.20; before, entries were absolute
_VERSION = re.compile(rb"\A\xff Go buildinf:.{18}.go([0-9]+\.[0-9]+(?:\.[0-9]+)?)", re.S)
# In moduledata, the address of the table above and that where the program's code begins.
_TABLE_WORD, _TEXT_WORD = 0, 22

# How functions begin that may need a larger stack: they compare with the limit in the goroutine,
# which R14 points to. This also proves that arguments are in registers (Go 1.17 and later).
_PROLOGUE = re.compile(
    rb"\x49\x3b\x66\x10|(?:\x4c\x8d\x64\x24.|\x4c\x8d\xa4\x24.{4})\x4d\x3b\x66\x10", re.S
)


@dataclass(frozen=True)
class GoProgram:
    """Functions by name: file offsets of the first instruction and of each RET."""

    version: str | None
    entries: dict[str, int]
    returns: dict[str, tuple[int, ...]]


def go_program(file: ElfFile) -> GoProgram | None:
    """Return what crypto/tls has in a Go program; None if it is no such program.

    Raises Unreadable, with the reason, when the functions are in it but cannot be found.
    """
    information = file.section(b".go.buildinfo")
    section = file.section(b".gopclntab") or file.section(b".data.rel.ro.gopclntab")
    if information is None or section is None:
        return None
    table = file.read(section, most=_MOST_TABLE)
    if FUNCTIONS[-1] + b"\0" not in table:
        return None
    try:
        ranges = _ranges(file, section, table)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise Unreadable(UNSUPPORTED) from error
    code = {name: file.code(start, end) for name, (start, end) in ranges.items()}
    offsets = {name: file.code_offset(start) or 0 for name, (start, _) in ranges.items()}
    returns = {}
    for name in code:
        try:
            places = _returns(code[name])
        except Unreadable:
            if name.encode() in _NEEDED:
                raise
            del offsets[name]
        else:
            returns[name] = tuple(offsets[name] + place for place in places)
    version = _VERSION.match(file.read(information))
    return GoProgram("Go " + version[1].decode() if version else None, offsets, returns)


def _ranges(file: ElfFile, section: Section, table: bytes) -> dict[str, tuple[int, int]]:
    """Return the addresses at which each function begins and ends."""
    magic, _, _, _, word, count, _, start, names, _, _, _, functions = _HEADER.unpack_from(table)
    if magic not in _MAGICS or word != 8 or functions % 4:
        raise Unreadable(UNSUPPORTED)
    raw = table[functions : functions + 8 * count + 4]
    index = np.frombuffer(raw, "<u4", 2 * count + 1)
    words = np.frombuffer(table, "<u4", (len(table) - functions) // 4, functions)
    name_of = words[index[1::2] // 4 + 1]  # the second field of a function's own record
    found = {}
    for name in FUNCTIONS:
        place = table.find(b"\0" + name + b"\0", names) + 1
        if not place:
            continue  # the linker leaves out what is never called
        (number,) = np.flatnonzero(name_of == place - names)[:1].tolist()
        found[name.decode()] = int(index[2 * number]), int(index[2 * number + 2])
    if len(found) < _FEWEST:
        raise Unreadable(UNSUPPORTED)
    for text in _text_candidates(file, section, start):
        ranges = {name: (text + begin, text + end) for name, (begin, end) in found.items()}
        if all(_begins_a_function(file, *each) for each in ranges.values()):
            return ranges
    raise Unreadable(UNSUPPORTED)


def _text_candidates(file: ElfFile, table: Section, header: int) -> list[int]:
    """Return addresses to which those in the table may be relative.

    Up to Go 1.25 the table's header has it, since then only moduledata. Where the dynamic linker
    writes either, it is most often the beginning of .text.
    """
    candidates = [header]
    module = file.section(b".go.module")
    if module:
        words = np.frombuffer(file.read(module)[: 8 * (_TEXT_WORD + 1)], "<u8")
        if words[_TABLE_WORD] == table.address:
            candidates.append(int(words[_TEXT_WORD]))
    text = file.section(b".text")
    return [*candidates, text.address] if text else candidates


def _begins_a_function(file: ElfFile, start: int, end: int) -> bool:
    if not 0 < end - start <= _LONGEST or file.code_offset(start) is None:
        return False
    return _PROLOGUE.match(file.code(start, end)) is not None


def _returns(code: bytes) -> list[int]:
    """Return where the RETs are, counted from the first byte.

    A byte 0xC3 may as well be in the middle of an instruction, so all are decoded. A jump out of
    the function would be a way to return that we miss.
    """
    iced = _disassembler()
    flow = iced.FlowControl
    found = []
    for instruction in iced.Decoder(64, code, ip=0):
        if instruction.is_invalid:
            raise Unreadable(UNSUPPORTED)
        if instruction.flow_control == flow.RETURN:
            found.append(int(instruction.ip))
        elif instruction.flow_control in (flow.UNCONDITIONAL_BRANCH, flow.CONDITIONAL_BRANCH):
            if instruction.near_branch_target >= len(code):
                raise Unreadable(UNSUPPORTED)
        elif instruction.flow_control == flow.INDIRECT_BRANCH:
            raise Unreadable(UNSUPPORTED)
    if not found:
        raise Unreadable(UNSUPPORTED)
    return found


def _disassembler() -> Any:
    try:
        return need("iced_x86", "tls")
    except ExtraMissing as error:
        raise Unreadable(NEEDS_EXTRA) from error
