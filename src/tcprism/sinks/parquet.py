"""Parquet: the public columns, typed, compressed with zstd."""

from __future__ import annotations

from typing import Any, BinaryIO

from tcprism.counting_file import CountingFile
from tcprism.events import Batch
from tcprism.events.arrow import schema, to_record_batch
from tcprism.events.optional import need, pyarrow
from tcprism.sinks import Sink

# A row group: what a reader takes or leaves at once.
ROWS_AT_ONCE = 1 << 17
BYTES_AT_ONCE = 64 << 20


class Parquet(Sink):
    """Writes batches to a binary file as Parquet. Raises ExtraMissing.

    Parquet has its index at the end: without `close` the file cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        sink = pyarrow().PythonFile(CountingFile(file), "w")
        parquet = need("pyarrow.parquet", "arrow")
        self._writer = parquet.ParquetWriter(sink, schema(), compression="zstd")
        self._waiting: list[Any] = []

    def write(self, batch: Batch) -> None:
        """Take a batch, in time order."""
        if len(batch):
            self._waiting.append(to_record_batch(batch))
        rows = sum(each.num_rows for each in self._waiting)
        if rows >= ROWS_AT_ONCE or sum(each.nbytes for each in self._waiting) >= BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pyarrow().Table.from_batches(self._waiting))
        self._waiting = []

    def close(self) -> None:
        """Write what is left, and the index."""
        self._flush()
        self._writer.close()
        self._file.flush()
