"""Sinks: where batches go. One module each; ours write ASCII bytes to a binary file given to them.

What the file raises (BrokenPipeError, OSError) rises from all methods; nobody here closes the file.
What `write` takes is flushed to the file before it returns, but for formats that gather more first.
"""

from abc import ABC, abstractmethod

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger


class Sink(ABC):
    """Something that batches are written to. Only `write` must be written anew.

    One that is `slow`, as a network may be, gets a thread of its own and a queue before it
    (tcprism.sinks.queued) while events are traced, so that no ring fills up while it waits.
    """

    slow = False

    def open(self, facts: Facts) -> None:
        """Begin: before the first batch."""
        return

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Take a batch; an empty one means that time has passed."""

    def account(self, ledger: Ledger) -> None:
        """Take the account of every event so far: once a second, and the final one at the end."""
        return

    def dropped(self) -> Account:
        """Return what it took and could not keep, for the ledger."""
        return Account()

    def close(self) -> None:
        """Write what is left."""
        return
