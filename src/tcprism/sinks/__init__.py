"""Sinks: where batches go. One module each; all write ASCII bytes to a binary file given to them.

What the file raises (BrokenPipeError, OSError) rises from `write` and `close`; nobody here closes
the file.
"""

from typing import Protocol

from tcprism.events import Batch


class Sink(Protocol):
    """Something that batches are written to."""

    def write(self, batch: Batch) -> None:
        """Take a batch; an empty one means that time has passed."""

    def close(self) -> None:
        """Write what is left."""
