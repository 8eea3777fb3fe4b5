"""Chart: one quantity over time, in as many lines as there is room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tcprism.events.units import BARS

STEPS = len(BARS) - 1


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """Return lines of bars: the newest value at the right end, the largest as high as all lines.

    A value that is not known (nan) has no bar.
    """
    shown = [0.0 if math.isnan(value) else value for value in values[-width:]] if width else []
    top = max(shown, default=0.0) or 1.0
    levels = [round(value / top * height * STEPS) for value in shown]
    levels = [max(level, 1) if value else 0 for level, value in zip(levels, shown, strict=True)]
    rows = range(height - 1, -1, -1)
    return [
        "".join(BARS[min(max(level - row * STEPS, 0), STEPS)] for level in levels).rjust(width)
        for row in rows
    ]


def titled_chart(
    title: str, values: Sequence[float], text: Callable[[float], str], width: int, height: int
) -> list[str]:
    """Return a chart below its title, the newest value and, where there is room, the largest."""
    known = [value for value in values[-width:] if not math.isnan(value)]
    now, top = (text(known[-1]), text(max(known))) if known else ("-", "-")
    head = f"{title} {now or 0}"
    most = f"{head} (most {top or 0})"
    head = most if len(most) <= width else head
    return [head[:width].ljust(width), *chart(values, width, height - 1)]
