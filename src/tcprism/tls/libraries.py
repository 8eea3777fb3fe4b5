"""Which files have TLS functions, and where: of running processes, and of those started later.

A library is known by the symbols that it exports, never by its name: wheels rename theirs, and
Node has OpenSSL in its own executable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from tcprism.events.escape import escape
from tcprism.tls.elf import ElfFile, Symbols, Unreadable
from tcprism.tls.flavors import FLAVORS, FlavorName, find_version
from tcprism.tls.golang import go_program
from tcprism.tls.linker import cached_libraries
from tcprism.tls.mappings import (
    Mapping,
    OpenFile,
    executable_mappings,
    open_file,
    open_mapping,
    running,
)

How = Literal["dynamic", "bundled", "static"]
_FOLDERS = (b"/lib", b"/usr/lib", b"/usr/local/lib")
_PACKAGES = (b"/site-packages/", b"/dist-packages/")


@dataclass(frozen=True)
class Library:
    """A file with TLS functions.

    `path` opens it from this process, while the process lives that uses it. `device` and `inode`
    are those of stat(). `name` is its path as its users see it, escaped. `functions` has the offset
    in the file, in bytes, at which a uprobe sits on each function. `how` tells where it comes from:
    a folder of the linker, elsewhere (as in a wheel), or the program's own executable. `returns`
    has the offsets of all RETs of Go's functions, which bear no return probe.
    """

    path: str
    device: int
    inode: int
    name: str
    flavor: FlavorName
    version: str | None
    functions: dict[str, int]
    how: How
    returns: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class Found:
    """TLS libraries and their users.

    `users` has the libraries of each process that has some. `reasons` says, for each process, of
    which files we cannot tell and why; an empty name stands for all files of the process.
    """

    libraries: list[Library] = field(default_factory=list)
    users: dict[int, list[Library]] = field(default_factory=dict)
    reasons: dict[int, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """A file that has functions of a flavor: the `whole` of it, or only the companion's."""

    library: Library
    whole: bool


def find(pids: Iterable[int] | None = None) -> Found:
    """Return the libraries of these processes; without them, of all and of the linker.

    Raises nothing: what cannot be read is in `reasons`, and a process that has ended has nothing.
    """
    return Search().find(pids)


class Search:
    """Finds libraries again and again; examines each file once."""

    def __init__(self) -> None:
        self._by_mapping: dict[tuple[int, int], list[_Part] | str] = {}
        self._by_inode: dict[tuple[int, int], list[_Part] | str] = {}

    def find(self, pids: Iterable[int] | None = None) -> Found:
        """Return what find() does."""
        found = Found()
        known: dict[tuple[int, int, str], Library] = {}
        for pid in running() if pids is None else pids:
            libraries = self._libraries_of(pid, found.reasons)
            if libraries:
                found.users[pid] = libraries
            for library in libraries:
                known.setdefault((library.device, library.inode, library.flavor), library)
        for library in self._of_linker() if pids is None else ():
            known.setdefault((library.device, library.inode, library.flavor), library)
        found.libraries = list(known.values())
        return found

    def _libraries_of(self, pid: int, reasons: dict[int, dict[str, str]]) -> list[Library]:
        try:
            mappings = executable_mappings(pid)
        except PermissionError:
            reasons[pid] = {"": "cannot read"}
            return []
        except OSError:
            return []
        parts: list[_Part] = []
        for mapping in mappings:
            examined = self._examine_mapping(mapping)
            if isinstance(examined, str):
                reasons.setdefault(pid, {})[mapping.name] = examined
            else:
                parts += examined
        return _used(parts)

    def _examine_mapping(self, mapping: Mapping) -> list[_Part] | str:
        key = mapping.device, mapping.inode
        if key not in self._by_mapping:
            examined = self._open_and_examine(mapping)
            if examined == "cannot read":
                return examined  # another process's path to the same file may do
            self._by_mapping[key] = examined
        return self._by_mapping[key]

    def _open_and_examine(self, mapping: Mapping) -> list[_Part] | str:
        try:
            with open_mapping(mapping) as file:
                return self._examine(file, mapping.raw_name)
        except OSError:
            return "cannot read"

    def _of_linker(self) -> list[Library]:
        parts: list[_Part] = []
        for path in cached_libraries():
            try:
                with open_file(path) as file:
                    examined = self._examine(file, path)
            except OSError:
                continue
            if not isinstance(examined, str):
                parts += examined
        return _used(parts)

    def _examine(self, file: OpenFile, name: bytes) -> list[_Part] | str:
        key = file.about.st_dev, file.about.st_ino
        if key not in self._by_inode:
            try:
                self._by_inode[key] = list(_parts(file, name))
            except Unreadable as error:
                self._by_inode[key] = str(error)
        return self._by_inode[key]


def _parts(opened: OpenFile, name: bytes) -> Iterator[_Part]:
    file = ElfFile(opened.descriptor)
    library = partial(
        Library,
        path=os.fsdecode(opened.path),
        device=opened.about.st_dev,
        inode=opened.about.st_ino,
        name=escape(name),
        how="static" if file.is_program else _how(name),
    )
    exported, internal = file.exported(), file.internal()
    for flavor in FLAVORS:
        offsets = _offsets(file, flavor.mark, flavor.functions + flavor.companion, exported)
        if not offsets:
            offsets = _offsets(file, flavor.mark, flavor.functions + flavor.companion, internal)
        whole = bool(offsets)
        if not whole and flavor.companion_mark:  # internal ones serve no other file
            offsets = _offsets(file, flavor.companion_mark, flavor.companion, exported)
        if offsets:
            version = find_version(file, flavor)
            yield _Part(library(flavor=flavor.name, version=version, functions=offsets), whole)
    program = go_program(file)
    if program:
        functions, returns = program.entries, program.returns
        found = library(flavor="go", version=program.version, functions=functions, returns=returns)
        yield _Part(found, whole=True)


def _offsets(
    file: ElfFile, mark: bytes, functions: tuple[bytes, ...], symbols: Symbols | None
) -> dict[str, int]:
    """Return the file offsets of functions, none if the mark is not among them."""
    if symbols is None or mark + b"\0" not in symbols.strings:
        return {}
    addresses = symbols.addresses(functions)
    if mark not in addresses:
        return {}
    offsets = {name: file.code_offset(address) for name, address in addresses.items()}
    return {name.decode(): at for name, at in sorted(offsets.items()) if at is not None}


def _how(name: bytes) -> How:
    system = name.startswith(_FOLDERS) and not any(part in name for part in _PACKAGES)
    return "dynamic" if system else "bundled"


def _used(parts: list[_Part]) -> list[Library]:
    """Return the libraries that do TLS, and the companions of those."""
    doing_tls = {part.library.flavor for part in parts if part.whole}
    libraries = [part.library for part in parts if part.library.flavor in doing_tls]
    return [_with_version(library, libraries) for library in libraries]


def _with_version(library: Library, others: list[Library]) -> Library:
    """Return a library that names no version, as libssl, with that of the libcrypto beside it."""
    if library.version:
        return library
    folder = os.path.dirname(library.name)
    for other in others:
        if other.flavor == library.flavor and os.path.dirname(other.name) == folder:
            library = replace(library, version=library.version or other.version)
    return library
