"""Tracing with segments that arrive, as far as this kernel shows them."""

from __future__ import annotations

from dataclasses import replace

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
