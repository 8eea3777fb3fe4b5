"""The views: one module each, one at a time on the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import Vertical

from tcprism.events import Batch
from tcprism.tui.grid import Grid
from tcprism.tui.model import Model


class View(Vertical):
    """One of the views. `kinds` are the events that it shows: hooks are on for no others.

    `searched` are views that show what matches the filter, the others have nothing to do with it.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    payload: ClassVar[int] = 0
    searched: ClassVar[bool] = False
    focus_id: ClassVar[str]

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(id=id)
        self.model = model

    def on_resize(self) -> None:
        self.call_after_refresh(self.update_view)

    def update_view(self) -> None:
        """Show the model as it is now."""

    def selection(self) -> Batch:
        """Return what is selected, to be exported."""
        return Batch([])

    def sort(self, step: int) -> None:
        """Order by the next column, or the one before, where that can be chosen."""

    def sort_by(self, column: str) -> None:
        """Order by a column; the other way round if it is that already."""

    def reverse(self) -> None:
        """Order the other way round."""


class GridView(View):
    """A view around a table; the keys move in that."""

    @property
    def grid(self) -> Grid:
        """The table."""
        return self.query_one(f"#{self.focus_id}", Grid)
