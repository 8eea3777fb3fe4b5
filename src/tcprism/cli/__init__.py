"""The command line. This module holds only its start, so that no signal is lost from there on."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main() -> NoReturn:
    """Run the command line, once in a process."""
    _open_what_is_closed()
    from tcprism import interrupts

    interrupts.note_signals()
    sys.stderr = vars(sys)["__stderr__"] = io.TextIOWrapper(  # the screens write to the latter
        io.BufferedWriter(_StandardError(2, "w", closefd=False)),
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
    from tcprism.cli.program import main as run

    run()


class _StandardError(io.FileIO):
    """Standard error, which may go away: what cannot be said is no reason to fail."""

    def write(self, data: Any) -> int:
        """Write, or let it be."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _open_what_is_closed() -> None:
    """Stand in for standard streams that are closed: the next file would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        if descriptor == 1:
            sys.stdout = os.fdopen(descriptor, "w", closefd=False)
        elif descriptor == 2:
            sys.stderr = os.fdopen(descriptor, "w", closefd=False)
    os.close(descriptor)
