"""Tables: a figure, and beside it the target and whether it is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MISSED = "MISSED"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that figures are held against, with the unit's format as in "{:.0f} ns"."""

    bound: float
    at_most: bool
    form: str

    def cells(self, figure: float) -> tuple[str, str, str]:
        """Return the figure, the target and the verdict as texts."""
        sign = "<=" if self.at_most else ">="
        met = figure <= self.bound if self.at_most else figure >= self.bound
        return (
            self.form.format(figure),
            f"{sign} {self.form.format(self.bound)}",
            "" if met else MISSED,
        )


def at_most(bound: float, form: str) -> Target:
    """Return an upper bound."""
    return Target(bound, True, form)


def at_least(bound: float, form: str) -> Target:
    """Return a lower bound."""
    return Target(bound, False, form)


@dataclass(slots=True)
class Table:
    """Rows under a title, printed with aligned columns as soon as they are complete."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row."""
        self.rows.append(cells)

    def print(self) -> None:
        """Print it, the first column to the left and all others to the right."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        print(f"\n{self.title}")
        for row in (self.header, ["-" * width for width in widths], *self.rows):
            print("  " + "  ".join(_aligned(row, widths)).rstrip(), flush=True)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    yield row[0].ljust(widths[0])
    for cell, width in zip(row[1:], widths[1:], strict=True):
        yield cell.rjust(width)
