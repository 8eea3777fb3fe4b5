"""Where output goes, and in which format."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tcprism.errors import OutputError, UsageError
from tcprism.sinks import Sink


class Output(Protocol):
    """What a sink writes to, as far as a session deals with it."""

    def flush(self) -> None:
        """Hand over what is buffered."""

    def fileno(self) -> int:
        """Return the descriptor, to notice that the reader went away."""


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open the output; a file is made readable to its owner alone, for it holds payload.

    Raises OutputError.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    with create(path) as output:
        yield output


def create(path: Path) -> BinaryIO:
    """Create a file that its owner alone may read. Raises OutputError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise OutputError(f"--output: cannot write {path}: {error.strerror}") from error
    return open(descriptor, "wb")


def make_sink(given: dict[str, Any], output: BinaryIO) -> Sink:
    """Return the sink that the options choose."""
    if given["count_only"]:
        if given["form"] == "json":
            raise UsageError("--count-only prints a table: leave --format json out")
        from tcprism.sinks.count import Count

        return Count(output)
    if given["form"] == "json":
        from tcprism.sinks.json_lines import JsonLines

        return JsonLines(output)
    from tcprism.sinks.text import Text

    return Text(output, color=wants_color(given["color"], output), style=given["payload_style"])


def wants_color(choice: str, output: BinaryIO) -> bool:
    """Follow --color, then NO_COLOR, then whether the output is a terminal."""
    if choice != "auto":
        return choice == "always"
    return not os.environ.get("NO_COLOR") and output.isatty()


def silence(output: Output) -> None:
    """Make sure that nothing is written to a pipe without a reader, at exit neither."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, output.fileno())
    os.close(null)
