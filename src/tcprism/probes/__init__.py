"""Probes: per family of events, the ways to hook it, best first, and what each cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, field

MECHANISMS = ("fentry", "kprobe", "tracepoint")


@dataclass(frozen=True, slots=True)
class Hook:
    """One way to see a family's events.

    `programs` are loaded together. One that is in `where_function` or `where_tracepoint` is left
    out on a kernel that lacks the function or tracepoint named there. `since` is the first kernel.
    """

    mechanism: str
    name: str
    programs: tuple[str, ...]
    since: str
    cannot_tell: tuple[str, ...] = ()
    where_function: dict[str, str] = field(default_factory=dict)
    where_tracepoint: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A family of events: its kinds and its hooks in order of preference."""

    family: str
    kinds: tuple[str, ...]
    hooks: tuple[Hook, ...]
