"""Arrow IPC stream: the public columns, typed, batch by batch; works in a pipe."""

from __future__ import annotations

from typing import BinaryIO

from tcprism.counting_file import CountingFile
from tcprism.events import Batch
from tcprism.events.arrow import schema, to_record_batch
from tcprism.events.optional import pyarrow
from tcprism.sinks import Sink


class ArrowStream(Sink):
    """Writes batches to a binary file as an Arrow IPC stream. Raises ExtraMissing."""

    def __init__(self, file: BinaryIO) -> None:
        pa = pyarrow()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        sink = pa.PythonFile(CountingFile(file), "w")
        self._file = file
        self._stream = pa.ipc.new_stream(sink, schema(), options=options)

    def write(self, batch: Batch) -> None:
        """Write a batch in time order."""
        if len(batch):
            self._stream.write_batch(to_record_batch(batch))
            self._file.flush()

    def close(self) -> None:
        """Write the end of the stream."""
        self._stream.close()
        self._file.flush()
