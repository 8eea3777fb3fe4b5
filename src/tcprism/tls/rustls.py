"""The functions of rustls in a Rust program that has its symbols.

Compilers merge most of rustls into its callers. But what encrypts and decrypts a record is called
through a table, so each cipher's function stays one of its own, in optimized programs, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcprism.tls.elf import ElfFile

# Versions in which these functions take and return what bpf/probes/tls_rustls.bpf.c reads.
_KNOWN = re.compile(r"0\.2[012]\.")

# The path of a source file, which panics name.
_VERSION = re.compile(rb"/rustls-([0-9]+\.[0-9]+\.[0-9]+)[^/ ]{0,20}/src/")
_MARK = b"MessageEncrypter"
_MOST = 64  # functions

# <TYPE as rustls::...::MessageEncrypter>::encrypt, in the mangling that Rust has by default up to
# 1.94, and in "v0" (RFC 2603). That of InvalidMessageEncrypter, before there are keys, only fails.
_LEGACY = re.compile(
    rb"\0(_ZN[0-9]+_\$LT\$(rustls\.\.[\w.]+)\$u20\$as\$u20\$(rustls\.\.[\w.]*cipher\.\.Message)"
    rb"(Encrypter|Decrypter)\$GT\$7(encrypt|decrypt)17h[0-9a-f]{16}E(?:\.llvm\.[0-9]+)?)(?=\0)"
)
_V0 = re.compile(
    rb"\0(_RNvX\w*6rustls\w*?([A-Z]\w*Message(?:En|De)crypter)Nt\w*16Message"
    rb"(Encrypter|Decrypter)7(encrypt|decrypt)(?:\.llvm\.[0-9]+)?)(?=\0)"
)
_INVALID = b"InvalidMessage"


@dataclass(frozen=True)
class RustlsProgram:
    """The version, and file offsets of functions by their names in Rust."""

    version: str
    functions: dict[str, int]


def rustls_program(file: ElfFile) -> RustlsProgram | None:
    """Return what a program has of rustls, if it can be read; None if it has none.

    Raises Unreadable if the file is damaged.
    """
    symbols = file.internal()
    if symbols is None or _MARK not in symbols.strings:
        return None
    version = rustls_version(file)
    if version is None or not _KNOWN.match(version):
        return None
    names = _names(symbols.strings)
    addresses = symbols.addresses(names)
    offsets = {names[name]: file.code_offset(at) for name, at in addresses.items()}
    functions = {name: at for name, at in sorted(offsets.items()) if at is not None}
    if not all(any(name.endswith(f"::{what}") for name in functions) for what in _WHAT):
        return None
    return RustlsProgram(f"rustls {version}", functions)


def why_not(file: ElfFile) -> str | None:
    """Say why rustls_program() does not know the rustls in a file; None if there is none in it."""
    version = rustls_version(file)
    if version is None:
        return None
    symbols = file.internal()
    if symbols is None or not _names(symbols.strings):
        return f"rustls {version}, no symbols"
    return f"rustls {version}, unsupported build"


def rustls_version(file: ElfFile) -> str | None:
    """Return the version that a file names, such as 0.20.8."""
    constants = file.section(b".rodata")
    for chunk in file.chunks(constants) if constants else ():
        if found := _VERSION.search(chunk):
            return found[1].decode()
    return None


_WHAT = ("encrypt", "decrypt")


def _names(strings: bytes) -> dict[bytes, str]:
    """Return the names of functions in Rust by those in the table of symbols."""
    found: dict[bytes, str] = {}
    for match in _LEGACY.finditer(strings):
        name, kind, trait, role, what = match.groups()
        rust = b"<%b as %b%b>::%b" % (kind, trait, role, what)
        found[name] = rust.replace(b"..", b"::").decode()
    for match in _V0.finditer(strings):
        name, kind, role, what = match.groups()
        found[name] = (b"<%b as Message%b>::%b" % (kind, role, what)).decode()
    valid = {name: rust for name, rust in found.items() if _INVALID not in name}
    return dict([*valid.items()][:_MOST])
