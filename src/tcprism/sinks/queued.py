"""A queue before a sink that may be slow, as one that writes to a network: a ring never waits."""

from __future__ import annotations

import threading
from collections import deque

from tcprism.events import Batch
from tcprism.events.batch import size_of
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.sinks import Sink

ROOM = 64 << 20  # bytes, about
PATIENCE = 5.0  # seconds that the end waits for what is queued


class Queued(Sink):
    """Hands everything to another sink in a thread of its own.

    A batch for which the queue, of about `room` bytes, has no room is dropped and counted, and so
    is what the sink has not taken `patience` seconds after the end. What the sink raises rises from
    the next call.
    """

    keeps = "events that wait to be written"

    def __init__(self, sink: Sink, room: int = ROOM, patience: float = PATIENCE) -> None:
        self._sink = sink
        self.room = room  # bytes, about
        self._patience = patience
        self._queue: deque[Batch | Ledger] = deque()
        self._waiting = self._size = self._dropped = 0  # events, bytes, events
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="sink")

    def open(self, facts: Facts) -> None:
        """Open the sink and start its thread."""
        self._sink.open(facts)
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Queue a batch, or drop it where there is no room."""
        with self._changed:
            self._raise()
            if self._size and self._size + size_of(batch) > self.room:
                self._dropped += len(batch)
                return
            self._put(batch)

    def account(self, ledger: Ledger) -> None:
        """Queue the account; one that has not been taken yet is replaced."""
        with self._changed:
            self._raise()
            if self._queue and isinstance(self._queue[-1], Ledger):
                self._queue.pop()
            self._put(ledger)

    def dropped(self) -> Account:
        """Return what was dropped, here and by the sink."""
        with self._changed:
            count = self._dropped
        if not count:
            return self._sink.dropped()
        said = f"{count:,} events were not written: the output is slower than they came"
        return Account(counts={"not_written": count}, remarks=(said,)) + self._sink.dropped()

    def let_go(self) -> int:
        """Drop what waits; return how many events that is."""
        with self._changed:
            batches = [item for item in self._queue if isinstance(item, Batch)]
            count = sum(map(len, batches))
            self._queue.clear()
            self._waiting -= count
            self._size -= sum(map(size_of, batches))
            self._dropped += count
            return count

    def close(self) -> None:
        """Wait for the sink to take what is queued, and for its end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(self._patience)
        with self._changed:
            self._raise()
            self._dropped += self._waiting
            self._queue.clear()

    def _put(self, item: Batch | Ledger) -> None:
        self._queue.append(item)
        if isinstance(item, Batch):
            self._waiting += len(item)
            self._size += size_of(item)
        self._changed.notify()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, Ledger):
                    self._sink.account(item)
                    continue
                self._sink.write(item)
                with self._changed:
                    self._waiting -= len(item)
                    self._size -= size_of(item)
            self._sink.close()
        except BaseException as error:
            with self._changed:
                self._error = error

    def _next(self) -> Batch | Ledger | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            return self._queue.popleft() if self._queue else None
