"""Tracing with segments that arrive, as far as this kernel shows them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Self

from tcprism.errors import KernelRefused
from tcprism.events import Batch
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing

ARRIVING = "receive"


def entered(request: Request) -> Tracing:
    """Begin to trace; where the kernel refuses what shows segments that arrive, without those.

    Raises PermissionMissing, LibraryMissing or KernelRefused.
    """
    try:
        return Tracing(request).__enter__()
    except KernelRefused:
        if ARRIVING not in request.kinds:
            raise
    kinds = tuple(kind for kind in request.kinds if kind != ARRIVING)
    return Tracing(replace(request, kinds=kinds, options=False)).__enter__()


class Arrivals(Tracing):
    """Traces segments as long as they are not too many.

    More than `most` a second, on average, end it, and are not handed over: `given_up` says so.
    """

    def __init__(self, request: Request, most: int) -> None:
        super().__init__(request)
        self._most = most
        self.given_up = False
        self._began = 0.0
        self._count = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self._began = time.monotonic()
        return self

    def read(self) -> Batch:
        """Return the segments that are ready, none once they are given up. Never blocks."""
        return self._few(super().read())

    def drain(self) -> Batch:
        """Return what is left after `stop()`."""
        batch = self._few(super().drain())
        while self.given_up and len(super().drain()):
            pass
        return batch

    def _few(self, segments: Batch) -> Batch:
        """Take the hooks off if they are too many."""
        self._count += len(segments)
        seconds = time.monotonic() - self._began + 1
        if self._count > self._most * seconds and not self.given_up:
            self.given_up = True
            self.stop()
        return Batch(()) if self.given_up else segments
