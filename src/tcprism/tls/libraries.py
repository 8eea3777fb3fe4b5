"""Which files have TLS functions, and where: of running processes, and of those started later.

A library is known by the symbols that it exports, never by its name: wheels rename theirs, and
Node has OpenSSL in its own executable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from tcprism.events.escape import escape
from tcprism.tls.elf import ElfFile, Symbols, Unreadable
from tcprism.tls.flavors import FLAVORS, FlavorName, find_version
from tcprism.tls.golang import go_program
from tcprism.tls.identity import Identity, identify
from tcprism.tls.linker import linked_libraries
from tcprism.tls.mappings import (
    MOST_FILES,
    TOO_MANY,
    Mapping,
    OpenFile,
    executable_mappings,
    open_file,
    open_mapping,
    running,
)
from tcprism.tls.rustls import rustls_program

How = Literal["dynamic", "bundled", "static"]
CANNOT_READ = "cannot read"
MOST_REMEMBERED = 1 << 16  # files
_METHOD = re.compile(r"\w+>::\w+(?:\(\w+\))?\Z")
_FOLDERS = (b"/lib", b"/usr/lib", b"/usr/local/lib")
_PACKAGES = (b"/site-packages/", b"/dist-packages/")


@dataclass(frozen=True)
class Library:
    """A file with TLS functions.

    `path` opens it from this process, while the process lives that uses it. `name` is its path as
    its users see it, escaped. `functions` has the offset in the file, in bytes, at which a uprobe
    sits on each function. `how` tells where it comes from: a folder of the linker, elsewhere (as in
    a wheel), or the program's own executable. `returns` has the offsets of all RETs of Go's
    functions, which bear no return probe.
    """

    path: str
    identity: Identity
    name: str
    flavor: FlavorName
    version: str | None
    functions: dict[str, int]
    how: How
    returns: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def places(self, functions: Iterable[str], returns: bool = False) -> list[int]:
        """Return the offsets at which functions begin, or all their RETs."""
        if returns:
            return [place for name in functions for place in self.returns.get(name, ())]
        return [self.functions[name] for name in self.among(functions)]

    def among(self, functions: Iterable[str]) -> list[str]:
        """Return the names of those that it has of these functions.

        `Trait>::method` stands for the method of each type that has this trait of Rust.
        """
        wanted = {*functions}
        return [name for name in self.functions if wanted & {name, _method(name)}]

    def same_as(self, other: Library) -> bool:
        """Say whether both are the same library in the same file."""
        return self.flavor == other.flavor and self.identity.same_as(other.identity)


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
class _Contents:
    """What a file has of a flavor: the `whole` of it, or only the companion's functions."""

    flavor: FlavorName
    version: str | None
    functions: dict[str, int]
    returns: dict[str, tuple[int, ...]]
    whole: bool
    program: bool


@dataclass(frozen=True)
class _Part:
    """A library, or only the companion of one."""

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
        self._examined: dict[tuple[int, ...], list[_Contents] | str] = {}

    def find(self, pids: Iterable[int] | None = None) -> Found:
        """Return what find() does."""
        found = Found()
        files: dict[tuple[int, int], list[_Part] | str] = {}  # by device and inode in maps
        for pid in running() if pids is None else pids:
            libraries = self._libraries_of(pid, files, found.reasons)
            if libraries:
                found.users[pid] = libraries
        used = [library for libraries in found.users.values() for library in libraries]
        found.libraries = distinct(used + (self._of_linker() if pids is None else []))
        return found

    def examine(self, mapping: Mapping) -> list[Library] | None:
        """Return the libraries in one file that a process maps; None if it cannot be read."""
        parts = self._open_and_examine(mapping)
        if isinstance(parts, str):
            return None if parts == CANNOT_READ else []
        return _used(parts)

    def _libraries_of(
        self,
        pid: int,
        files: dict[tuple[int, int], list[_Part] | str],
        reasons: dict[int, dict[str, str]],
    ) -> list[Library]:
        try:
            mappings = executable_mappings(pid)
        except PermissionError:
            reasons[pid] = {"": CANNOT_READ}
            return []
        except OSError:
            return []
        if len(mappings) > MOST_FILES:
            reasons[pid] = {"": TOO_MANY}
        parts: list[_Part] = []
        for mapping in mappings[:MOST_FILES]:
            key = mapping.device, mapping.inode
            # What one process's path does not open, that of another may.
            if files.get(key, CANNOT_READ) == CANNOT_READ:
                files[key] = self._open_and_examine(mapping)
            examined = files[key]
            if isinstance(examined, str):
                reasons.setdefault(pid, {})[mapping.name] = examined
            else:
                parts += [_called(part, mapping) for part in examined]
        return _used(parts)

    def _open_and_examine(self, mapping: Mapping) -> list[_Part] | str:
        try:
            with open_mapping(mapping) as file:
                return self._examine(file, mapping.raw_name, mapping.pid)
        except OSError:
            return CANNOT_READ

    def _of_linker(self) -> list[Library]:
        parts: list[_Part] = []
        for path in linked_libraries():
            try:
                with open_file(path) as file:
                    examined = self._examine(file, path, None)
            except OSError:
                continue
            if not isinstance(examined, str):
                parts += examined
        return _used(parts)

    def _examine(self, file: OpenFile, name: bytes, pid: int | None) -> list[_Part] | str:
        about = file.about
        key = about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns
        if key not in self._examined:
            if len(self._examined) >= MOST_REMEMBERED:
                self._examined.clear()
            self._examined[key] = _contents(file.descriptor)
        contents = self._examined[key]
        if isinstance(contents, str):
            return contents
        return [_part(each, file, name, pid) for each in contents]


def distinct(libraries: Iterable[Library]) -> list[Library]:
    """Return each library once."""
    found: list[Library] = []
    for library in libraries:
        if not any(library.same_as(other) for other in found):
            found.append(library)
    return found


def _part(contents: _Contents, file: OpenFile, name: bytes, pid: int | None) -> _Part:
    library = Library(
        path=os.fsdecode(file.path),
        identity=identify(file.descriptor, pid),
        name=escape(name),
        flavor=contents.flavor,
        version=contents.version,
        functions=contents.functions,
        how="static" if contents.program else _how(name),
        returns=contents.returns,
    )
    return _Part(library, contents.whole)


def has_library(descriptor: int) -> bool:
    """Say whether a file has the functions of a library."""
    contents = _contents(descriptor)
    return not isinstance(contents, str) and any(each.whole for each in contents)


def _called(part: _Part, mapping: Mapping) -> _Part:
    """Return it by the name that its file has in one process; another may have a link to it."""
    library = part.library
    if library.name == mapping.name:
        return part
    how = "static" if library.how == "static" else _how(mapping.raw_name)
    return replace(part, library=replace(library, name=mapping.name, how=how))


def _contents(descriptor: int) -> list[_Contents] | str:
    """Return what a file has, or why we cannot tell."""
    try:
        file = ElfFile(descriptor)
        return [*_in_symbols(file), *_in_go(file), *_in_rust(file)]
    except Unreadable as error:
        return str(error)


def _in_symbols(file: ElfFile) -> Iterator[_Contents]:
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
            yield _Contents(flavor.name, version, offsets, {}, whole, file.is_program)


def _in_go(file: ElfFile) -> Iterator[_Contents]:
    go = go_program(file)
    if go:
        yield _Contents("go", go.version, go.entries, go.returns, True, file.is_program)


def _in_rust(file: ElfFile) -> Iterator[_Contents]:
    rustls = rustls_program(file)
    if rustls:
        yield _Contents("rustls", rustls.version, rustls.functions, {}, True, file.is_program)


def _method(name: str) -> str:
    found = _METHOD.search(name)
    return found[0] if found else name


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
