"""A recording that goes on for months in a bounded place: the oldest files go first."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tcprism.errors import OutputError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.recording.files import Create, Files, Limit
from tcprism.recording.reader import SUFFIX
from tcprism.sinks import Sink

LEAST = 64 << 20  # bytes to keep
_PIECES = 16
_LARGEST = 256 << 20  # bytes of a piece
_BEYOND = 8 << 20  # that a piece may have more: it ends behind a batch
_AGAIN = 60.0  # seconds after which a place that could not be written to is tried again


class Kept(Sink):
    """Writes a recording into a directory of its own below `place`, as files of bounded size.

    All recordings there together have at most `keep` bytes: before a file is begun, the oldest
    ones are deleted, those of earlier runs first. A disk that is full ends nothing: what is not
    recorded is counted, and the next recording is begun when there is room again.
    """

    def __init__(
        self, place: Path, keep: int, filters: Mapping[str, tuple[str, ...]], create: Create
    ) -> None:
        self._place = place
        self._keep = keep
        self._piece = min(keep // _PIECES, _LARGEST)
        self._filters = filters
        self._create = create
        self._files: Files | None = None
        self._path: Path | None = None  # of the latest attempt
        self._tried = 0.0
        self._taken = 0  # events, by the recording that is written
        self._deleted = self._missed = 0
        self._trouble = ""

    def open(self, facts: Facts) -> None:
        """Begin the first file. Raises OutputError: then nothing can be recorded at all."""
        self._facts = facts
        try:
            self._begin()
        except OSError as error:
            raise OutputError(
                f"--record: cannot write to {self._place}: {error.strerror}"
            ) from error
        finally:
            if self._files is None:
                self._remove()

    def _begin(self) -> None:
        self._tried, self._path = time.monotonic(), None
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path, number = self._place / name, 2
        while path.exists():
            path, number = self._place / f"{name}-{number}", number + 1
        self._path = path
        limit = Limit(rotate=self._piece)
        files = Files(path, self._filters, limit, self._next, io.BytesIO(), lambda: None)
        files.open(replace(self._facts, started=datetime.now(UTC).isoformat()))
        self._files, self._taken = files, 0

    def _next(self, path: Path) -> BinaryIO:
        """Make room for a file, and begin it."""
        # Names have the time, but clocks are set: what is being recorded goes last all the same.
        found = sorted(
            self._place.glob(f"*/*{SUFFIX}"), key=lambda each: (each.parent == path.parent, each)
        )
        sizes = {each: _size(each) for each in found}
        total = sum(sizes.values()) + self._piece + _BEYOND
        for oldest in found:
            if total <= self._keep:
                break
            oldest.unlink(missing_ok=True)
            total -= sizes[oldest]
            self._deleted += 1
            if oldest.parent != path.parent:
                with suppress(OSError):  # others are in it
                    oldest.parent.rmdir()
        return self._create(path)

    def write(self, batch: Batch) -> None:
        """Record a batch, or count it."""
        if not len(batch):
            return
        if self._files is None and time.monotonic() - self._tried > _AGAIN:
            self._try(self._begin)
        if files := self._files:
            self._taken += len(batch)
            self._try(partial(files.write, batch))
        else:
            self._missed += len(batch)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (OSError, OutputError) as error:
            self._trouble = str(getattr(error, "strerror", None) or error)
            files, self._files = self._files, None
            if files:
                self._missed += self._taken - files.written
            if not (files and files.written):
                self._remove()

    def _remove(self) -> None:
        """Leave no folder where nothing was recorded: there may be such an attempt every minute."""
        if self._path:
            with suppress(OSError):
                for path in self._path.glob(f"*{SUFFIX}"):
                    path.unlink()
                self._path.rmdir()

    def account(self, ledger: Ledger) -> None:
        """Record the account so far."""
        if files := self._files:
            self._try(partial(files.account, ledger))

    def dropped(self) -> Account:
        """Return what was not recorded, and how many files were deleted."""
        remarks = []
        if self._missed:
            remarks.append(f"{self._missed:,} events were not recorded: {self._trouble}")
        counts = {"recordings_deleted": self._deleted, "not_recorded": self._missed}
        return Account(counts=counts, remarks=tuple(remarks))

    def close(self) -> None:
        """End the recording in good order."""
        if files := self._files:
            self._try(files.close)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # somebody else deleted it
        return 0
