"""Reading recordings: from a file, a directory of files, or a pipe."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tcprism import interrupts
from tcprism.errors import ExtraMissing, RecordingError
from tcprism.events import Batch
from tcprism.events.escape import escape_text
from tcprism.events.ledger import Ledger
from tcprism.events.optional import load_plugins, pyarrow
from tcprism.events.registration import GROUP
from tcprism.recording.encryption import decrypted
from tcprism.recording.framing import DEFAULT_MEMORY, LIFT, Framed
from tcprism.recording.names import NameBook
from tcprism.recording.notes import (
    Gap,
    decode,
    decode_facts,
    decode_gaps,
    decode_ledger,
)
from tcprism.recording.schema import schema, to_parts

if TYPE_CHECKING:
    from tcprism.events import Event

SUFFIX = ".tcpr"
# Sinks need several times the size of what they are given. More than what the writer puts into a
# batch, so that an honest one is left whole.
_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 16 << 20
_NAME_SHARE, _GAP_SHARE = 4000, 2000  # a tenth of the memory, of 400 bytes or 200 each
_UNFINISHED = "ends without its last batch: it was cut off, or is still being written"
_DAMAGED = "is damaged: what comes after the last event shown cannot be read"
# What Arrow raises for a stream that breaks off or makes no sense; its own errors are among them.
_BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of a recording and its name in messages."""

    name: str
    path: Path | None

    def open(self) -> BinaryIO:
        try:
            file = self.path.open("rb") if self.path else io.BufferedReader(_Pipe(os.dup(0), "rb"))
            return decrypted(file, partial(self._again, file))
        except RecordingError as error:
            raise RecordingError(f"cannot read {self.name}: {error}") from error
        except OSError as error:
            raise RecordingError(f"cannot read {self.name}: {error.strerror}") from error

    def _again(self, file: BinaryIO) -> BinaryIO:
        """Return the file from its beginning: a pipe has that once."""
        return self.path.open("rb") if self.path else file


class _Pipe(io.FileIO):
    """Standard input, of which nothing more comes after a signal: a read would go on waiting."""

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there."""
        return super().readinto(buffer) if interrupts.wait_for(self.fileno()) else 0


class Recording:
    """A recording: iterate over its events, or over its `batches()`.

    `select` takes each batch and returns the wanted part. With `fields`, only these columns of the
    file are read. `facts` are those of the first file.
    `ledger`, `gaps`, `trouble` and `clock_offset_ns` cover what has been read so far. `trouble`
    says what is missing, one sentence per file, and `damaged` whether the recording cannot be read
    to its end. A recording that is still being written is read as far as it goes. Unpacked batches
    and retained data fit into `memory` bytes. Raises RecordingError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        select: Callable[[Batch], Batch] | None = None,
        fields: Collection[str] | None = None,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self.memory = memory
        self._path = path
        self._select = select
        self._fields = fields
        self._sources = _sources(path)
        self._first: _Stream | None = self._open(self._sources[0])
        self.facts = self._first.facts
        self.ledger = Ledger(())
        self.gaps: list[Gap] = []
        self.trouble: list[str] = []
        self.damaged = False
        self.clock_offset_ns = 0

    def _open(self, source: _Source) -> _Stream:
        return _Stream(source, self._fields, self.memory)

    def close(self) -> None:
        """Close a file that was opened but not read."""
        if self._first:
            self._first.close()
        self._first = None

    def __iter__(self) -> Iterator[Event]:
        """Make events in time order."""
        for batch in self.batches():
            yield from batch

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a chart, sums and a table of the first events."""
        from tcprism.events.preview import preview  # with the large class of events

        where = f" from {self.facts.host}" if self.facts.host else ""
        heading = f"Recording {self._sources[0].name}{where}"
        if os.fspath(self._path) == "-":  # what is read is gone
            return preview((), heading)
        look = Recording(self._path, self._select, self._fields, self.memory)
        try:
            return preview(look.batches(), heading)
        finally:
            look.close()

    def batches(self) -> Iterator[Batch]:
        """Read batches in the order in which they were recorded."""
        self.gaps, self.trouble, self.damaged = [], [], False
        for source in self._sources:
            try:
                stream, self._first = self._first or self._open(source), None
            except RecordingError as error:  # a file among others: they can be read
                self.trouble.append(str(error))
                self.damaged = True
                continue
            try:
                for batch in stream:
                    self.clock_offset_ns = batch.clock_offset_ns
                    self.ledger = stream.ledger or self.ledger
                    self.gaps += stream.gaps
                    yield self._select(batch) if self._select else batch
                self.ledger = stream.ledger or self.ledger
                self.gaps += stream.gaps
            finally:
                stream.close()
            if stream.trouble:
                self.trouble.append(f"{source.name} {stream.trouble}")
                self.damaged |= stream.damaged


def _sources(path: str | os.PathLike[str]) -> list[_Source]:
    """Return the files of a recording: one, those in a directory, or standard input for "-"."""
    if os.fspath(path) == "-":
        return [_Source("standard input", None)]
    place = Path(path)
    if not os.path.isdir(place):  # Path.is_dir() raises where it may not look
        return [_source(place)]
    files = sorted(place.glob(f"*{SUFFIX}"))
    if not files:
        raise RecordingError(f"there is no recording (*{SUFFIX}) in {escape_text(str(place))}")
    return list(map(_source, files))


def _source(path: Path) -> _Source:
    return _Source(escape_text(str(path)), path)


class _Stream:
    """One file of a recording: iterate to get its batches."""

    def __init__(self, source: _Source, fields: Collection[str] | None, memory: int) -> None:
        self._name = source.name
        self._file = source.open()
        self._framed = Framed(self._file, memory)
        self._gaps_left = memory // _GAP_SHARE
        self.ledger: Ledger | None = None
        self.gaps: list[Gap] = []
        self.trouble = ""
        self.damaged = False
        self._names = NameBook(memory // _NAME_SHARE)
        self._clock_offset_ns = 0
        try:
            self._stream = pyarrow().ipc.open_stream(self._framed)
            if fields is not None:
                self._stream = self._reopened(fields)
            self.facts = decode_facts(self._stream.schema.metadata)
            if any(name not in schema().names for name in self._stream.schema.names):
                load_plugins(GROUP)
        except ExtraMissing:
            self.close()
            raise
        except RecordingError as error:
            self.close()
            raise RecordingError(f"cannot read {self._name}: {error}") from error
        except Exception as error:
            self.close()
            raise RecordingError(
                f"cannot read {self._name}: it is not a recording of tcprism's"
            ) from error

    def close(self) -> None:
        self._file.close()

    def _reopened(self, fields: Collection[str]) -> Any:
        """Return a stream that unpacks some columns only."""
        names = self._stream.schema.names
        numbers = [number for number, name in enumerate(names) if name in fields]
        self._framed.rewind()
        ipc = pyarrow().ipc
        options = ipc.IpcReadOptions(included_fields=numbers, use_threads=False)
        return ipc.open_stream(self._framed, options=options)

    def __iter__(self) -> Iterator[Batch]:
        ended = False
        try:
            while not ended:
                read = self._stream.read_next_batch_with_custom_metadata()
                read.batch.validate(full=True)
                notes = decode(read.custom_metadata)
                self._learn(notes)
                ended = notes.end
                parts = to_parts(read.batch, self._clock_offset_ns, self._names.context)
                batch = Batch(parts, self._clock_offset_ns)
                for piece in batch.split(_ROWS_AT_ONCE, _BYTES_AT_ONCE) if len(batch) else ():
                    yield piece
                    self.gaps = []
        except StopIteration:
            self.trouble = _UNFINISHED
        except RecordingError as error:
            self.trouble, self.damaged = f"cannot be read to its end: {error}", True
        except _BROKEN:
            self.damaged = bool(self._file.read(1))
            self.trouble = _DAMAGED if self.damaged else _UNFINISHED

    def _learn(self, notes: Any) -> None:
        if notes.clock_offset_ns is not None:
            self._clock_offset_ns = notes.clock_offset_ns
        if notes.names:
            self._names.learn(notes.names)
        if notes.ledger:
            self.ledger = decode_ledger(notes.ledger)
        self._gaps_left -= len(notes.gaps)
        if self._gaps_left < 0:
            raise RecordingError(f"it has more gaps than fit into memory: {LIFT}")
        self.gaps += decode_gaps(notes.gaps)
