"""Which columns of a table fit into a line, how wide they are, and what they show of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sized(Protocol):
    """A column of `width` characters, `least` where room is short, `most` where texts need it.

    Where a line is too short all the same, columns with the largest `rank` are left out first.
    A text that is too long keeps what follows the last `tail`.
    """

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def width(self) -> int:
        """Characters that it takes where there is room."""

    @property
    def least(self) -> int:
        """Characters that it makes do with; 0: no fewer than `width`."""

    @property
    def most(self) -> int:
        """Characters that it takes where texts are so long; 0: no more than `width`."""

    @property
    def rank(self) -> int:
        """The larger, the sooner it is left out."""

    @property
    def tail(self) -> str:
        """The character that what must stay of a text begins with."""


def fitted(
    columns: Sequence[Sized], room: int, needs: Sequence[int], keep: str = ""
) -> list[tuple[int, int]]:
    """Return the places of the columns that fit, a space between two, and their widths.

    `needs` are the characters that each column's texts have; the column called `keep` stays.
    """
    floors = [column.least or column.width for column in columns]
    chosen = list(range(len(columns)))
    while len(chosen) > 1 and sum(floors[place] + 1 for place in chosen) - 1 > room:
        chosen.remove(
            max(chosen, key=lambda place: (columns[place].name != keep, columns[place].rank, place))
        )
    widths = {
        place: max(columns[place].width, min(needs[place], columns[place].most)) for place in chosen
    }
    excess = sum(widths.values()) + len(chosen) - 1 - room
    needed = [max(column.least, need) for column, need in zip(columns, needs, strict=True)]
    excess = _narrow(widths, needed, excess)  # first what is empty
    _narrow(widths, floors, excess)
    return list(widths.items())


def _narrow(widths: dict[int, int], floors: Sequence[int], excess: int) -> int:
    """Make the widest narrower, one character at a time; return what is still too much."""
    while excess > 0:
        wide = [place for place, width in widths.items() if width > floors[place]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
        excess -= 1
    return excess


def shortened(text: str, width: int, tail: str) -> str:
    """Return a text cut to a width, with a mark; what follows the last `tail` stays."""
    if len(text) <= width:
        return text
    end = text[text.rfind(tail) :] if tail and tail in text else ""
    if not 0 < len(end) <= width:
        return text[: max(0, width - 1)] + "…"
    head = text[: max(0, width - len(end) - 1)]
    return f"{head}…{end}" if len(end) < width else end


def printable(text: str) -> str:
    """Return text without what a terminal could take for a command."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
