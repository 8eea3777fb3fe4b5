"""The bound of memory of `tcprism serve`: what may take how much, and is let go of to keep it."""

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
# Bytes besides the rings and what the process has at the start, for what has bounds of its own: the
# batch that is worked on and what stages and sinks make of it, snapshots, what secrets may begin
# with (Redact), metrics, libraries that are imported when they are needed.
_WORK = 72 << 20
_FEWEST = 48 << 20  # bytes of what is kept, in all: with less, hardly anything would be followed
_FILLED = 0.75  # of its room: the rest is lost between what is kept and what was let go of

max_memory_option: Callable[..., Any] = click.option(
    "--max-memory",
    metavar="SIZE",
    help="Memory to keep to, rings included; by default 2G, or nine tenths of what the cgroup"
    " (MemoryMax) may have if that is less.",
)


@runtime_checkable
class Keeps(Protocol):
    """A stage, sink or source that keeps things: as many as take `room` bytes, about."""

    keeps: str

    @property
    def room(self) -> int:
        """How many bytes they take at most."""

    @room.setter
    def room(self, size: int) -> None: ...

    def let_go(self) -> int:
        """Let go of about half; return how many that is."""


def parse_limit(text: str | None) -> int | None:
    """Parse --max-memory; None is the usual bound. Raises UsageError."""
    return None if text is None else parse_size(text, "max-memory")


def bound(
    limit: int | None, tracing: Tracing, sinks: Iterable[Sink], stages: Sequence[Stage]
) -> MemoryBound:
    """Return the stage that keeps a bound, of sinks first; None is the usual bound.

    What is kept gets less room than usual where all of it together would not fit. Raises UsageError
    if what was asked for leaves too little.
    """
    rings = tracing.ring_bytes
    taken = rings + memory.anonymous() + _WORK
    if limit is None:
        allowed = memory.allowed()
        usual = USUAL if allowed is None else min(USUAL, int(allowed * _SHARE))
        limit = max(usual, taken + _FEWEST)
    elif limit < taken + _FEWEST:
        raise UsageError(
            f"--max-memory: the rings take {rings >> 20} MB, the rest {taken - rings >> 20} MB at"
            f" least: give {-(-(taken + _FEWEST) >> 20) + 8}M or more, or a smaller --ring-size"
        )
    keep = [one for one in (*sinks, *tracing.stages, *stages, tracing) if isinstance(one, Keeps)]
    _share_out(int(_FILLED * (limit - taken)), keep)
    keepers = [Keeper(one.keeps, one.let_go) for one in keep]
    return MemoryBound(limit, lambda: rings + memory.anonymous(), memory.give_back, keepers)


def _share_out(size: int, keep: Sequence[Keeps]) -> None:
    """Have what is kept take so many bytes at most, each in the proportion of what it would."""
    wanted = sum(one.room for one in keep)
    for one in keep if wanted > size else ():
        one.room = one.room * size // wanted
