"""Inserts that wait for the server: in memory, or on disk while it is away."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tcprism.errors import OutputError
from tcprism.private_file import PrivateFile

IN_MEMORY = 64 << 20  # bytes

_SUFFIX = ".arrow"
_NAME = re.compile(r"(\d{20}-[0-9a-f]{16}-\d{8}-([a-z_]+)-(\d+))\.arrow", re.ASCII)
_LARGEST = 1 << 28  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows for a table, as an Arrow stream. `token` is theirs alone, also in a later run.

    `data` is empty while they are on disk.
    """

    token: str
    table: str
    rows: int
    data: bytes = b""


class Spool:
    """Inserts on disk, a file each, with at most `most` bytes. Raises OSError."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._waiting: deque[tuple[Insert, int]] = deque()
        self._size = 0
        for path in sorted(folder.iterdir()):
            if match := _NAME.fullmatch(path.name):
                self._add(Insert(match[1], match[2], int(match[3])), path.stat().st_size)
            elif path.name.endswith(_SUFFIX + ".new"):  # a run was killed while it wrote
                path.unlink()

    def __iter__(self) -> Iterator[Insert]:
        return (insert for insert, _ in self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def _add(self, insert: Insert, size: int) -> None:
        self._waiting.append((insert, size))
        self._size += size

    def _path(self, insert: Insert) -> Path:
        return self._folder / (insert.token + _SUFFIX)

    def put(self, insert: Insert, kept: str) -> int:
        """Write an insert; return how many rows of older ones were deleted to make room.

        That with the token `kept` stays.
        """
        deleted = self._make_room(len(insert.data), kept)
        path = self._path(insert)
        new = path.with_name(path.name + ".new")
        with PrivateFile(new, new=True) as file:
            try:
                left = memoryview(insert.data)
                while left:
                    left = left[file.write(left) :]
            except OSError:
                new.unlink(missing_ok=True)
                raise
        new.rename(path)
        self._add(Insert(insert.token, insert.table, insert.rows), len(insert.data))
        return deleted

    def _make_room(self, size: int, kept: str) -> int:
        deleted = 0
        while self._waiting and self._size + size > self._most:
            oldest = next((each for each, _ in self._waiting if each.token != kept), None)
            if oldest is None:
                break
            self.remove(oldest.token)
            deleted += oldest.rows
        return deleted

    def read(self, insert: Insert) -> Insert:
        """Return an insert with its data."""
        with self._path(insert).open("rb") as file:
            return Insert(insert.token, insert.table, insert.rows, file.read(_LARGEST))

    def remove(self, token: str) -> None:
        """Delete an insert, if it is there."""
        for place, (insert, size) in enumerate(self._waiting):
            if insert.token == token:
                del self._waiting[place]
                self._size -= size
                self._path(insert).unlink(missing_ok=True)
                return


class Outbox:
    """What waits to be inserted; used by the thread that fills it and the one that empties it.

    Of what does not fit, the oldest is dropped, and counted in rows: `dropped`. `put_rows` counts
    the rows that came, those of earlier runs included. `trouble` is why the spool could not be
    written to, if it could not.
    """

    def __init__(self, spool: Spool | None = None, room: int = IN_MEMORY) -> None:
        self._spool = spool
        self.room = room
        self._memory: deque[Insert] = deque()
        self._size = 0
        self._number = 0
        self._run = f"{time.time_ns():020d}-{secrets.token_hex(8)}"
        self._sending = ""
        self._changed = threading.Condition()
        self.put_rows = sum(insert.rows for insert in spool or ())
        self.dropped = self.inserted = 0
        self.trouble = ""

    def put(self, table: str, rows: int, data: bytes) -> None:
        """Have rows inserted."""
        with self._changed:
            self._number += 1
            token = f"{self._run}-{self._number:08d}-{table}-{rows}"
            self._memory.append(Insert(token, table, rows, data))
            self._size += len(data)
            self.put_rows += rows
            self._shrink(self.room)
            self._changed.notify()

    def let_go(self) -> int:
        """Have the older half in memory go to disk, or else drop it; return its rows."""
        with self._changed:
            return self._shrink(self._size // 2)

    def _shrink(self, room: int) -> int:
        rows = 0
        while self._size > room and (oldest := self._idle()):
            if not self._to_disk(oldest):
                self.dropped += oldest.rows
            self._forget(oldest)
            rows += oldest.rows
        return rows

    def spill(self) -> None:
        """Move what is in memory to disk, if there is a spool and as far as it can be written."""
        with self._changed:
            while (oldest := self._idle()) and self._to_disk(oldest):
                self._forget(oldest)

    def _idle(self) -> Insert | None:
        """Return the oldest insert in memory that is not being sent."""
        return next((each for each in self._memory if each.token != self._sending), None)

    def _to_disk(self, insert: Insert) -> bool:
        if self._spool is None:
            return False
        try:
            self.dropped += self._spool.put(insert, self._sending)
            self.trouble = ""
        except (OSError, OutputError) as error:
            self.trouble = str(getattr(error, "strerror", None) or error)
        return not self.trouble

    def _forget(self, insert: Insert) -> None:
        for place, each in enumerate(self._memory):
            if each.token == insert.token:
                del self._memory[place]
                self._size -= len(insert.data)
                return

    def next(self, seconds: float) -> Insert | None:
        """Return the oldest insert, waiting so long for one; it stays until `done`."""
        with self._changed:
            if not self._memory and not self._spool:
                self._changed.wait(seconds)
            while self._spool:
                insert = next(iter(self._spool))
                try:
                    found = self._spool.read(insert)
                except OSError:  # somebody deleted it
                    self.dropped += insert.rows
                    self._spool.remove(insert.token)
                    continue
                self._sending = found.token
                return found
            self._sending = self._memory[0].token if self._memory else ""
            return self._memory[0] if self._memory else None

    def done(self, insert: Insert, inserted: bool) -> None:
        """Forget an insert: it is in the server, or never will be."""
        with self._changed:
            self._sending = ""
            if self._spool is not None:
                self._spool.remove(insert.token)
            self._forget(insert)
            if inserted:
                self.inserted += insert.rows
            else:
                self.dropped += insert.rows

    def failed(self) -> None:
        """Take note that the oldest insert was not sent: it waits like all others."""
        with self._changed:
            self._sending = ""

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return self.put_rows - self.inserted - self.dropped

    def abandon(self) -> None:
        """Count as dropped what is in memory: the run ends."""
        with self._changed:
            self.dropped += sum(insert.rows for insert in self._memory)
            self._memory.clear()

    def wake(self) -> None:
        """End a wait for an insert."""
        with self._changed:
            self._changed.notify()
