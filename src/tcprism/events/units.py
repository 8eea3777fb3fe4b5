"""Numbers as people read them: three significant digits and a unit."""

from __future__ import annotations

import math

DURATIONS = ("us", "ms", "s")
SIZES = ("B", "kB", "MB", "GB", "TB")


def duration(microseconds: float) -> str:
    """Return a time, as in 12 us, 40.1 ms, 3.1 s."""
    return _scaled(microseconds, DURATIONS)


def size(byte_count: float) -> str:
    """Return a number of bytes, as in 78 B, 1.23 MB."""
    return _scaled(byte_count, SIZES)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    place = 0
    while value >= 999.5 and place < len(units) - 1:  # 999.5 would be rounded to 1000
        value /= 1000
        place += 1
    return f"{value:.0f} {units[place]}" if value >= 100 else f"{value:.3g} {units[place]}"


def counted(number: int, noun: str) -> str:
    """Return a number of things, as in 1 event, 12,034 events."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
