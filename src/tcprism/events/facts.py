"""Facts: what is known about a run from its start, whatever the source of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a source, as of its start.

    `kinds` and `payload` are as requested, `filters` the filter options with their values,
    `hooks` the hook in use for each family. `started` is RFC 3339 in UTC.
    """

    kinds: tuple[str, ...]
    payload: int = 0
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hooks: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    kernel: str = ""
    architecture: str = ""
    started: str = ""
    tcprism: str = ""
