"""How long to measure."""

from __future__ import annotations

from enum import Enum


class Rounds(Enum):
    """A look, a measurement, a thorough one."""

    QUICK = 0
    NORMAL = 1
    FULL = 2

    def pick(self, quick: int, normal: int, full: int) -> int:
        """Return the number of rounds or seconds for this effort."""
        return (quick, normal, full)[self.value]
