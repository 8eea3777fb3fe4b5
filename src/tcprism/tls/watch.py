"""Libraries that appear while tracing: new programs, dlopen(), upgrades."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tcprism.tls.libraries import Library, Search, distinct
from tcprism.tls.mappings import Mapping

MOST_REMEMBERED = 1 << 16  # files


class Source(Protocol):
    """Where mappings come from; kernel.code_mappings has one."""

    lost: bool

    def read(self) -> list[Mapping]:
        """Return the mappings since the last call."""
        ...


class Watch:
    """Says which libraries have appeared. `source` must be open before the first search.

    To ask costs 2 µs while no program starts. A start costs the program 25 to 60 µs for the
    kernel's report, and us some 100 µs for each file that was not seen before. To look through
    /proc instead, 20 times a second, would take a tenth of a CPU for a hundred processes, and miss
    those that end between.
    """

    def __init__(self, search: Search, known: Iterable[Library], source: Source) -> None:
        self._search = search
        self._known = [*known]
        self._source = source
        self._seen: set[tuple[int, int, int]] = set()
        self._unsettled: set[int] = set()

    def new(self) -> list[Library]:
        """Return libraries that were not returned before and not known at the start.

        They may be of a process that has ended. Then `path` may be of no use: see `forget`.
        """
        # A library may be mapped before its companion: its process is looked at once more.
        pids, self._unsettled = self._unsettled, set()
        libraries: list[Library] = []
        for mapping in self._source.read():
            found = self._examine(mapping)
            if found:
                libraries += found
                self._unsettled.add(mapping.pid)
        libraries += self._search.find(pids | self._unsettled).libraries
        if self._source.lost:
            self._source.lost = False
            libraries += self._search.find().libraries
        new = [
            library
            for library in distinct(libraries)
            if not any(library.same_as(known) for known in self._known)
        ]
        self._known += new
        return new

    def forget(self, library: Library) -> None:
        """Let a library be new again when it is next mapped, as when its path did not open."""
        self._known.remove(library)
        self._seen.clear()

    def _examine(self, mapping: Mapping) -> list[Library] | None:
        """Return the libraries in a file; none if it was seen before or cannot be read now."""
        key = mapping.device, mapping.inode, mapping.generation
        if key in self._seen:
            return None
        libraries = self._search.examine(mapping)
        if libraries is not None:
            if len(self._seen) >= MOST_REMEMBERED:
                self._seen.clear()
            self._seen.add(key)
        return libraries
