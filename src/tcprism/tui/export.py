"""Export: the selection, to a file; the suffix chooses the format."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tcprism import __version__
from tcprism.errors import OutputError, UsageError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.private_file import PrivateFile
from tcprism.recording.writer import Writer
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.pcapng import Pcapng


def _json(batch: Batch, file: BinaryIO) -> None:
    JsonLines(file).write(batch)


def _pcapng(batch: Batch, file: BinaryIO) -> None:
    Pcapng(file, "messages").write(batch)


def _recording(batch: Batch, file: BinaryIO) -> None:
    kinds = tuple(sorted(set(batch["kind"].tolist())))
    writer = Writer(file, Facts(kinds, tcprism=__version__))
    writer.write(batch)
    writer.close()


WRITERS: dict[str, Callable[[Batch, BinaryIO], None]] = {
    ".json": _json,
    ".pcapng": _pcapng,
    ".tcpr": _recording,
}


def export(batch: Batch, path: Path) -> None:
    """Write a batch to a new file. Raises UsageError, ExtraMissing and OutputError."""
    if path.suffix not in WRITERS:
        raise UsageError(f"{path.name}: end the name with {' or '.join(WRITERS)}")
    try:
        with io.BufferedWriter(PrivateFile(path, new=True)) as file:
            WRITERS[path.suffix](batch, file)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
