"""Tracing with segments that arrive, as far as this kernel shows them."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from tcprism.errors import KernelRefused
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


class Arrivals:
    """Segments, traced from `with` to its end, as long as they are not too many.

    More than `most` a second, on average, end it: `given_up` says so. `sources` is empty where the
    kernel refuses.
    """

    def __init__(self, request: Request, most: int) -> None:
        self._request, self._most = request, most
        self.sources: list[Tracing] = []
        self.given_up = False
        self._began = 0.0
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with suppress(KernelRefused):
            self.sources = [self._stack.enter_context(Tracing(self._request))]
        self._began = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def count(self, segments: int) -> None:
        """Take how many came, and take the hooks off if they are too many."""
        self._count += segments
        seconds = time.monotonic() - self._began + 1
        if self._count > self._most * seconds and not self.given_up:
            self.given_up = True
            for source in self.sources:
                source.stop()
