"""The functions of rustls in a Rust program that has its symbols.

Compilers merge most of rustls into its callers. But what encrypts and decrypts a record is called
through a table, so each cipher's function stays one of its own, in optimized programs, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tcprism.tls.elf import ElfFile

# Versions in which these functions take and return what bpf/probes/tls_rustls_*.bpf.c reads, and
# how they are told apart: by what they take.
_KNOWN = (
    (re.compile(r"0\.2[012]\."), {"encrypt": "encrypt", "decrypt": "decrypt"}),
    (
        re.compile(r"0\.23\."),
        {
            "encrypt": "encrypt(OutboundPlainMessage)",
            "decrypt": "decrypt(InboundOpaqueMessage)",
        },
    ),
)

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
    rb"\0(_RNvX\w*?6rustls(\w*?)[0-9]+([A-Z][A-Za-z0-9]*Message(?:En|De)crypter)Nt\w*?16Message"
    rb"(Encrypter|Decrypter)7(encrypt|decrypt)(?:\.llvm\.[0-9]+)?)(?=\0)"
)
_LENGTH = re.compile(rb"[0-9]{1,3}")  # before each name of a path
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
    versions = rustls_versions(file)
    methods = _methods(versions)
    if methods is None:
        return None
    names = _names(symbols.strings, methods)
    offsets: dict[int, str] = {}  # a compiler may give the same code two names
    for name, address in symbols.addresses(names).items():
        at = file.code_offset(address)
        if at is not None:
            offsets[at] = names[name]
    functions = {name: at for at, name in sorted(offsets.items(), key=lambda each: each[1])}
    if len(functions) < len(offsets):  # of two versions
        return None
    if not all(any(name.endswith(method) for name in functions) for method in methods.values()):
        return None
    return RustlsProgram(_title(versions), functions)


def why_not(file: ElfFile) -> str | None:
    """Say why rustls_program() does not know the rustls in a file; None if there is none in it."""
    versions = rustls_versions(file)
    if not versions:
        return None
    symbols = file.internal()
    if symbols is None or not (_LEGACY.search(symbols.strings) or _V0.search(symbols.strings)):
        return f"{_title(versions)}, no symbols"
    return f"{_title(versions)}, unsupported build"


def rustls_versions(file: ElfFile) -> list[str]:
    """Return the versions that a file names, such as 0.20.8: a program may have several."""
    constants = file.section(b".rodata")
    chunks = file.chunks(constants) if constants else ()
    return sorted({found.decode() for chunk in chunks for found in _VERSION.findall(chunk)})


def _title(versions: list[str]) -> str:
    return f"rustls {' and '.join(versions)}"


def _methods(versions: list[str]) -> dict[str, str] | None:
    """Return the methods of versions that all have the same; None if they have not."""
    found: list[dict[str, str] | None] = []
    for version in versions:
        known = [methods for pattern, methods in _KNOWN if pattern.match(version)]
        found.append(known[0] if known else None)
    return found[0] if found and all(methods is found[0] for methods in found) else None


def _names(strings: bytes, methods: dict[str, str]) -> dict[bytes, str]:
    """Return the names of functions in Rust by those in the table of symbols."""
    found: dict[bytes, str] = {}
    for match in _LEGACY.finditer(strings):
        name, kind, trait, role, what = match.groups()
        types = b"<%b as %b%b>" % (kind, trait, role)
        found[name] = f"{types.replace(b'..', b'::').decode()}::{methods[what.decode()]}"
    for match in _V0.finditer(strings):
        name, path, kind, role, what = match.groups()
        types = b"<%b as Message%b>" % (b"::".join([b"rustls", *_path(path), kind]), role)
        found[name] = f"{types.decode()}::{methods[what.decode()]}"
    valid = {name: rust for name, rust in found.items() if _INVALID not in name}
    return dict([*valid.items()][:_MOST])


def _path(mangled: bytes) -> Iterator[bytes]:
    """Return the names of modules, as of 6crypto4ring: crypto, ring."""
    at = 0
    while length := _LENGTH.match(mangled, at):
        at = length.end() + int(length[0])
        yield mangled[length.end() : at]
