"""Times and sizes for people: three significant digits and a unit."""

from __future__ import annotations

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
