"""What `tcprism serve` says of itself: its own cost, and that it goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tcprism.events import Batch
from tcprism.events.ledger import Ledger
from tcprism.metrics import instruments
from tcprism.metrics.aggregate import Metrics
from tcprism.sinks import Sink

_SILENCE = 15.0  # seconds without a look at the rings after which something is wrong


class Own(Sink):
    """Adds tcprism's own cost to the metrics; `run_time` returns that of its BPF programs."""

    def __init__(self, metrics: Metrics, run_time: Callable[[], float | None]) -> None:
        self._metrics = metrics
        self._run_time = run_time

    def write(self, batch: Batch) -> None:
        """Nothing."""

    def account(self, ledger: Ledger) -> None:
        """Measure."""
        self._metrics.set(instruments.CPU, {(): time.process_time()})
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        self._metrics.set(instruments.MEMORY, {(): pages * os.sysconf("SC_PAGE_SIZE")})
        run_time = self._run_time()
        if run_time is not None:
            self._metrics.set(instruments.BPF, {(): run_time})


class Pulse(Sink):
    """Knows whether batches come."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def write(self, batch: Batch) -> None:
        """Take note."""
        self._at = time.monotonic()

    def beats(self) -> bool:
        """Tell whether a batch, though an empty one, came of late."""
        return time.monotonic() - self._at < _SILENCE
