"""Writing a recording: batches become record batches in an Arrow IPC stream as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from tcprism.counting_file import CountingFile
from tcprism.events import Batch, Part
from tcprism.events.column import DERIVED_TYPES
from tcprism.events.facts import Facts
from tcprism.events.kinds import RECORDS
from tcprism.events.ledger import Ledger
from tcprism.events.optional import pyarrow
from tcprism.events.part import joined_rows
from tcprism.recording.names import NameStore
from tcprism.recording.notes import Gap, encode, encode_facts, encode_ledger
from tcprism.recording.schema import derived_types, schema, to_record_batch

# Larger batches compress better; smaller ones lose less when the power fails, and none may be so
# large that a reader refuses it (DEFAULT_MEMORY).
ROWS_AT_ONCE = 1 << 15
BYTES_AT_ONCE = 4 << 20
SECONDS_AT_MOST = 1.0


class Writer:
    """Writes a recording to a binary file that is open for writing, closing it never.

    What is written reaches the file in whole batches: when there is enough, or after a second.
    `before` is the account of what files before this one have.
    What the file raises rises from all methods.
    """

    def __init__(self, file: BinaryIO, facts: Facts, before: Ledger | None = None) -> None:
        pa = pyarrow()
        self._file = CountingFile(file)
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        described = schema().with_metadata(encode_facts(facts))
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), described, options=options)
        self._names = NameStore()
        self._waiting: list[Part] = []
        self._clock_offset_ns = 0
        self._ledger = before
        self._ledger_written: Ledger | None = None
        self._gaps: list[Gap] = []
        self._flushed = time.monotonic()
        self._noted_ns = time.monotonic_ns()
        self.events = 0  # that came
        self.written = 0  # of these, in the file
        self._write({})  # the facts are in the file from the start

    @property
    def ledger(self) -> Ledger | None:
        """The latest account."""
        return self._ledger

    @property
    def size(self) -> int:
        """Bytes written to the file."""
        return self._file.size

    def write(self, batch: Batch) -> bool:
        """Take a batch; return whether it, and all before it, went to the file."""
        if self._waiting and batch.clock_offset_ns != self._clock_offset_ns:
            self.flush()
        self._clock_offset_ns = batch.clock_offset_ns
        self.events += len(batch)
        written = False
        for piece in batch.split(ROWS_AT_ONCE, BYTES_AT_ONCE):
            self._waiting += [part for part in piece.parts if len(part)]
            written = self._due()
            if written:
                self.flush()
        return written

    def _due(self) -> bool:
        if not self._waiting:
            return False
        rows = sum(map(len, self._waiting))
        size = sum(part.nbytes for part in self._waiting)
        late = time.monotonic() - self._flushed >= SECONDS_AT_MOST
        return late or rows >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE

    def note(self, ledger: Ledger) -> None:
        """Take the account so far; what is not here since the last one becomes gaps."""
        now = time.monotonic_ns()
        before = (
            {entry.kind: entry.absent for entry in self._ledger.entries} if self._ledger else {}
        )
        for entry in ledger.entries:
            if lost := entry.absent - before.get(entry.kind, 0):
                self._gaps.append(Gap(self._noted_ns, now, entry.kind, lost))
        self._ledger = ledger
        self._noted_ns = now

    def flush(self) -> None:
        """Write what waits."""
        self._write({})

    def close(self) -> None:
        """Write what is left and the last note, which says that the recording is whole."""
        self._write({"end": True})
        self._stream.close()
        self._file.flush()

    def _notes(self, parts: Sequence[Part]) -> dict[str, Any]:
        notes: dict[str, Any] = {"clock_offset_ns": self._clock_offset_ns}
        if names := self._names.news(parts):
            notes["names"] = names
        if self._ledger and self._ledger != self._ledger_written:
            notes["ledger"] = encode_ledger(self._ledger)
            self._ledger_written = self._ledger
        if self._gaps:
            notes["gaps"] = [
                {name: getattr(gap, name) for name in Gap.__dataclass_fields__}
                for gap in self._gaps
            ]
            self._gaps = []
        return notes

    def _write(self, more: dict[str, Any]) -> None:
        batch = Batch(list(joined(self._waiting)), self._clock_offset_ns)
        self._waiting = []
        notes = encode(self._notes(batch.parts) | more)
        self._stream.write_batch(to_record_batch(batch), custom_metadata=notes)
        self._file.flush()
        self.written += len(batch)
        self._flushed = time.monotonic()


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts with those of one ring in one piece."""
    families = list(RECORDS)
    rings: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        width = -1 if part.payload is None else part.payload.shape[1]
        rings.setdefault((families.index(part.family), width), []).append(part)
    for key in sorted(rings):
        yield _concatenated(rings[key])


def _concatenated(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    payloads = [part.payload for part in parts if part.payload is not None]
    payload = np.concatenate(payloads) if payloads else None
    names = [name for name in derived_types() if any(name in part.derived for part in parts)]
    derived = {name: _joined_derived(parts, name) for name in names}
    return Part(joined_rows(parts), payload, derived, parts[-1].context)


def _joined_derived(parts: Sequence[Part], name: str) -> np.ma.MaskedArray[Any, Any]:
    kind = DERIVED_TYPES[derived_types()[name]]
    columns = [
        part.derived.get(name, np.ma.MaskedArray(np.zeros(len(part), kind), mask=True))
        for part in parts
    ]
    values = np.concatenate([np.ma.getdata(column) for column in columns])
    return np.ma.MaskedArray(values, np.concatenate(list(map(np.ma.getmaskarray, columns))))
