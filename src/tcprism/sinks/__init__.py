"""Sinks: where batches go. One module each; ours write ASCII bytes to a given binary file.

What the file raises (BrokenPipeError, OSError) rises from all methods; nobody here closes the file.
What `write` takes is flushed to the file before it returns, but for formats that gather more first.
"""

from abc import ABC, abstractmethod

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger


class Sink(ABC):
    """A destination for batches. A subclass must implement only `write`.

    A `slow` one, say one that writes to a network, gets a thread and a queue of its own while
    events are traced (tcprism.sinks.queued), so that no ring fills up while it waits.
    """

    slow = False

    def open(self, facts: Facts) -> None:
        """Begin: before the first batch."""
        return

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Take a batch; an empty one only signals that time has passed."""

    def account(self, ledger: Ledger) -> None:
        """Take the account of every event so far, once a second and at the end."""
        return

    def dropped(self) -> Account:
        """Return what it accepted but could not keep, for the ledger."""
        return Account()

    def close(self) -> None:
        """Write what remains."""
        return
