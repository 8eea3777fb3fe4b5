"""Where OpenSSL moves the records of a session to and from memory, as under asyncio.

BIO_write() is called for each record that is sent, on sockets, too, where the call into TCP tells
all, and BIO_read() twice for each that is received. The functions behind them that are for memory
are called for that alone. They have no symbols, but are in the tables that BIO_s_mem() and
BIO_s_bio() return.
"""

from __future__ import annotations

import re

from tcprism.tls.elf import ElfFile, Unreadable

_RETURNS_TABLE = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x48\x8d\x05(....)\xc3", re.DOTALL)
_LONGEST = 12  # bytes of such a function

# struct bio_method_st of OpenSSL 1.1.1 to 3: type, name, bwrite, bwrite_old, bread, in words. The
# type is an int. bwrite and bread are the same functions for both kinds, and call the older ones.
_NAME, _WRITE, _WRITE_OLD, _READ, _READ_OLD = 1, 2, 3, 4, 5
_WORDS = 6
_TABLES = {
    b"BIO_s_mem": ("mem", 0x401, b"memory buffer\0"),
    b"BIO_s_bio": ("bio", 0x413, b"BIO pair\0"),
}
_FUNCTIONS = {"write": _WRITE_OLD, "read": _READ_OLD}


def memory_functions(descriptor: int) -> dict[str, int]:
    """Return the offset of each function that writes into memory or reads from it.

    They are mem_write and bio_write, whose arguments are as BIO_write's, mem_read and bio_read.
    None if the file does not prove what they are.
    """
    try:
        return _functions(ElfFile(descriptor))
    except Unreadable:
        return {}


def _functions(file: ElfFile) -> dict[str, int]:
    exported = file.exported()
    addresses = exported.addresses([*_TABLES]) if exported else {}
    tables = {}
    for function, (stem, kind, name) in _TABLES.items():
        if function not in addresses:
            return {}
        table = _table(file, addresses[function])
        if table is None or table[0] & 0xFFFFFFFF != kind:
            return {}
        if file.constant(table[_NAME], len(name)) != name:
            return {}
        tables[stem] = table
    of_memory, of_pair = tables.values()
    if of_memory[_WRITE] != of_pair[_WRITE] or of_memory[_READ] != of_pair[_READ]:
        return {}
    found = {
        f"{stem}_{action}": file.code_offset(table[place])
        for stem, table in tables.items()
        for action, place in _FUNCTIONS.items()
    }
    offsets = {name: offset for name, offset in found.items() if offset is not None}
    return offsets if len({*offsets.values()}) == len(_TABLES) * len(_FUNCTIONS) else {}


def _table(file: ElfFile, function: int) -> list[int] | None:
    code = _RETURNS_TABLE.match(file.code(function, function + _LONGEST))
    if code is None:
        return None
    address = function + code.end() - 1 + int.from_bytes(code[1], "little", signed=True)
    return file.relocated(address, _WORDS)
