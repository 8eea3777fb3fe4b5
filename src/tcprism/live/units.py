"""Numbers as people read them, short and always of about the same width."""

from __future__ import annotations

import math


def _scaled(value: float, step: float, units: tuple[str, ...]) -> str:
    place = 0
    while value >= step * 0.9995 and place < len(units) - 1:
        value /= step
        place += 1
    digits = 0 if value >= 100 or (not place and value == int(value)) else 1
    return f"{value:.{digits}f}{units[place]}"


def bytes_text(value: float) -> str:
    """Return 1536 as "1.5 KiB"."""
    return _scaled(float(value), 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def rate_text(value: float) -> str:
    """Return bytes a second as "1.5M", and nothing for none: a column of these is easy to read."""
    return _scaled(float(value), 1000, ("", "K", "M", "G", "T")) if value else ""


def duration_text(microseconds: float) -> str:
    """Return 1500 as "1.5 ms", nothing where it is unknown."""
    if math.isnan(microseconds):
        return ""
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:.{0 if microseconds >= 1e8 else 1}f} s"
    return _scaled(float(microseconds), 1000, (" us", " ms"))


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
