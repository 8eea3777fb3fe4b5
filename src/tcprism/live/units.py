"""Numbers as people read them, short and always of about the same width."""

from __future__ import annotations

import math

from tcprism.sinks.units import duration, size


def rate_text(value: float) -> str:
    """Return bytes a second as "1.5M", and nothing for none: such a column is easy to read."""
    if value < 0.5:
        return ""
    number, unit = size(round(value)).split()
    return number + unit.rstrip("B").upper()


def known_duration(microseconds: float) -> str:
    """Return a time, nothing where it is unknown (nan)."""
    return "" if math.isnan(microseconds) else duration(microseconds)


def percent(share: float) -> str:
    """Return 0.125 as "12 %"."""
    return f"{share * 100:.0f} %" if share >= 0.0995 or not share else f"{share * 100:.1f} %"


BARS = " ▁▂▃▄▅▆▇█"


def sparkline(values: list[float]) -> str:
    """Return a bar a value, the highest one full."""
    top = max(values, default=0)
    if not top:
        return " " * len(values)
    return "".join(BARS[math.ceil(value / top * (len(BARS) - 1))] for value in values)
