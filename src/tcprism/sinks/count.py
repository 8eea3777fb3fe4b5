"""Totals and rates instead of events: needs neither the order nor any work for each event."""

import time
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events._wire import MESSAGE, MessageFlag
from tcprism.events.kinds import KIND_NUMBERS, NUMBERS, kind_name
from tcprism.sinks import Sink

INTERVAL = 1.0  # seconds
_RECV = NUMBERS["recv"]
HEADER = f"{'time':8}  {'kind':<10} {'events/s':>12} {'bytes/s':>14} {'events':>14} {'bytes':>18}\n"


class Count(Sink):
    """Writes, each second, a line for each kind seen so far.

    Bytes that were only peeked at are not counted: they will be received again. `clock` returns
    seconds and may start anywhere. Time is noticed when a batch comes, an empty one included.
    """

    def __init__(self, file: BinaryIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._events = np.zeros(KIND_NUMBERS, np.int64)
        self._bytes = np.zeros(KIND_NUMBERS, np.int64)
        self._printed_events = self._events.copy()
        self._printed_bytes = self._bytes.copy()
        self._printed_at = clock()
        self._header = HEADER

    def write(self, batch: Batch) -> None:
        """Add a batch to the totals; print them when a second has gone by."""
        events, size = batch.totals
        self._events += events
        self._bytes += size
        self._bytes[_RECV] -= sum(map(_peeked, batch.parts))
        if self._clock() - self._printed_at >= INTERVAL:
            self._print()

    def close(self) -> None:
        """Print the totals once more."""
        self._print()

    def _print(self) -> None:
        now = self._clock()
        seconds = max(now - self._printed_at, 1e-9)
        event_rates = (self._events - self._printed_events) / seconds
        byte_rates = (self._bytes - self._printed_bytes) / seconds
        clock_time = time.strftime("%H:%M:%S")
        lines = [self._header]
        for kind in np.flatnonzero(self._events).tolist():
            lines.append(
                f"{clock_time}  {kind_name(kind):<10} {event_rates[kind]:>12.0f}"
                f" {byte_rates[kind]:>14.0f} {self._events[kind]:>14} {self._bytes[kind]:>18}\n"
            )
        self._file.write("".join(lines).encode("ascii"))
        self._file.flush()
        self._header = ""
        self._printed_at = now
        self._printed_events = self._events.copy()
        self._printed_bytes = self._bytes.copy()


def _peeked(part: Part) -> int:
    """Return the bytes that were only looked at."""
    if part.rows.dtype != MESSAGE:
        return 0
    flags = part.rows["flags"]
    if not np.bitwise_or.reduce(flags) & MessageFlag.PEEK:  # nearly always, and soon told
        return 0
    return int(part.rows["bytes"][flags & MessageFlag.PEEK != 0].sum(dtype=np.int64))
