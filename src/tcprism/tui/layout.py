"""Which columns of a table fit into a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sized(Protocol):
    """A column: where a line is too short, those with the largest `rank` are left out first."""

    @property
    def width(self) -> int:
        """Characters that it takes."""

    @property
    def rank(self) -> int:
        """The larger, the sooner it is left out."""


def fitting(columns: Sequence[Sized], width: int) -> list[int]:
    """Return which columns fit into a width, a space between two, in their order."""
    chosen = list(range(len(columns)))
    while len(chosen) > 1 and sum(columns[place].width + 1 for place in chosen) - 1 > width:
        chosen.remove(max(chosen, key=lambda place: (columns[place].rank, place)))
    return chosen


def printable(text: str) -> str:
    """Return text without what a terminal could take for a command."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
