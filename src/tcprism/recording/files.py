"""The files of a recording being written: one, or several in a directory, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from tcprism.errors import OutputError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.recording.reader import SUFFIX
from tcprism.recording.writer import Writer
from tcprism.sinks import Sink

Create = Callable[[Path], BinaryIO]


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes of all files at most, bytes of one file, how many files stay; None: no limit."""

    max_size: int | None = None
    rotate: int | None = None
    keep: int | None = None


class Files(Sink):
    """A sink that writes a recording to `path`, or to standard output where that is None.

    `path` is a directory when files rotate, `filters` are the filter options as the user gave them.
    `create` makes a file; `enough` is called when the recording has reached its size. What the
    files raise rises from all methods.
    """

    def __init__(
        self,
        path: Path | None,
        filters: Mapping[str, tuple[str, ...]],
        limit: Limit,
        create: Create,
        standard_output: BinaryIO,
        enough: Callable[[], None],
    ) -> None:
        self._path = path
        self._filters = filters
        self._limit = limit
        self._create = create
        self._standard_output = standard_output
        self._enough = enough
        self._done: list[tuple[Path, int]] = []
        self._made = 0
        self._events_before = 0

    def open(self, facts: Facts) -> None:
        """Make the first file, with the facts at its head."""
        self._facts = replace(facts, filters=self._filters)
        if self._path and self._limit.rotate:
            _make_directory(self._path)
        self._begin()

    def _begin(self, before: Ledger | None = None) -> None:
        self._made += 1
        self._current = self._path
        if self._path and self._limit.rotate:
            self._current = self._path / f"{self._made:06d}{SUFFIX}"
        self._file = self._create(self._current) if self._current else self._standard_output
        self._writer = Writer(self._file, self._facts, before)

    @property
    def events(self) -> int:
        """Events in all files, those that are gone too."""
        return self._events_before + self._writer.events

    @property
    def written(self) -> int:
        """Of these, the events that are in a file, and do not wait."""
        return self._events_before + self._writer.written

    @property
    def size(self) -> int:
        """Bytes of the files that are there."""
        return self._writer.size + sum(size for _, size in self._done)

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        written = self._writer.write(batch)
        if written and self._limit.rotate and self._writer.size >= self._limit.rotate:
            self._rotate()
        if self._limit.max_size is not None and self.size >= self._limit.max_size:
            self._enough()

    def _rotate(self) -> None:
        self.close()
        if self._current:
            self._done.append((self._current, self._writer.size))
        keep = self._limit.keep
        while keep and len(self._done) >= keep:
            self._done.pop(0)[0].unlink(missing_ok=True)
        ended = self._writer
        self._begin(ended.ledger)
        self._events_before += ended.events

    def account(self, ledger: Ledger) -> None:
        """Take the account so far."""
        self._writer.note(ledger)

    def close(self) -> None:
        """End the recording in good order."""
        self._writer.close()
        if self._current:
            self._file.close()


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        old = next(path.glob(f"*{SUFFIX}"), None)
    except OSError as error:
        raise OutputError(f"--output: cannot make {path}: {error.strerror}") from error
    if old:
        raise OutputError(f"--output: {path} has a recording already: choose another name")
