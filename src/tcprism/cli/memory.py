"""The bound of memory of `tcprism serve`: how large, and what is let go of to keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import click

from tcprism.cli.options import parse_size
from tcprism.errors import UsageError
from tcprism.features import memory
from tcprism.sinks import Sink
from tcprism.sources.tracing import Tracing
from tcprism.stages import Stage
from tcprism.stages.memory_bound import Keeper, MemoryBound

USUAL = 2 << 30  # bytes
_SHARE = 0.9  # of what the cgroup may have: the kernel's structures and files count there, too
# What cannot be let go of: the rings; Python, NumPy and the loaded programs; the latest sends. Some
# more must be there to let go of.
_LEAST = 160 << 20  # bytes besides the rings

max_memory_option: Callable[..., Any] = click.option(
    "--max-memory",
    metavar="SIZE",
    help="Memory to keep to, rings included; by default 2G, or nine tenths of what the cgroup"
    " (MemoryMax) may have if that is less.",
)


@runtime_checkable
class Keeps(Protocol):
    """A stage or sink that keeps things, some of which it can let go of."""

    keeps: str

    def let_go(self) -> int:
        """Let go of about half; return how many that is."""


def parse_limit(text: str | None) -> int | None:
    """Parse --max-memory; None is the usual bound. Raises UsageError."""
    return None if text is None else parse_size(text, "max-memory")


def bound(
    limit: int | None, tracing: Tracing, sinks: Iterable[Sink], stages: Sequence[Stage]
) -> MemoryBound:
    """Return the stage that keeps a bound, of sinks first; None is the usual bound.

    Raises UsageError if the rings leave too little of what was asked for.
    """
    rings = tracing.ring_bytes
    least = rings + _LEAST
    if limit is None:
        allowed = memory.allowed()
        usual = USUAL if allowed is None else min(USUAL, int(allowed * _SHARE))
        limit = max(usual, least)
    elif limit < least:
        raise UsageError(
            f"--max-memory: the rings take {rings >> 20} MB: give {-(-least >> 20)}M or more, or a"
            " smaller --ring-size"
        )
    found = [Keeper(one.keeps, one.let_go) for one in (*sinks, *stages) if isinstance(one, Keeps)]
    bursts = Keeper("bytes of the room for bursts", tracing.hold_less)
    return MemoryBound(
        limit, lambda: rings + memory.anonymous(), memory.give_back, [*found, bursts]
    )
