"""Retransmissions by cause, peer and process, over time, and each with its bytes."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from tcprism.diagnosis.event_history import EventHistory
from tcprism.events import Batch
from tcprism.tui.chart import titled_chart
from tcprism.tui.grid import Grid
from tcprism.tui.layout import printable, shortened
from tcprism.tui.lines import COLUMNS, book_lines, style
from tcprism.tui.views import GridView

_MOST = 5  # lines of a summary


class RetransmitsView(GridView):
    """Three summaries and a chart above the events."""

    kinds: ClassVar[tuple[str, ...]] = ("retransmit", "undo", "drop")
    searched: ClassVar[bool] = True
    focus_id: ClassVar[str] = "losses-grid"

    def compose(self) -> ComposeResult:
        yield Static("", id="losses-summary", classes="detail", markup=False)
        grid = Grid(COLUMNS, style, id=self.focus_id)
        grid.empty = (
            "nothing that passes the filter was sent again or dropped, since this view was opened"
        )
        yield grid

    @property
    def book(self) -> EventHistory:
        """The losses among the events."""
        return self.model.loss_book

    def update_view(self) -> None:
        book = self.book
        self.grid.follow(len(book), lambda first, last: book_lines(book, first, last))
        self.query_one("#losses-summary", Static).update("\n".join(self._summary()))

    def _summary(self) -> list[str]:
        width = max(20, self.size.width - 2)
        losses = self.model.losses
        seconds = losses.per_second(self.model.feed.now_ns())
        lines = titled_chart("segments a second", seconds, "{:.0f}".format, min(width, 60), 4)
        columns = [
            _top("by cause", losses.causes),
            _top("by peer", losses.peers),
            _top("by process", losses.processes),
        ]
        cell = width // len(columns)
        for row in zip(*columns, strict=True):
            lines.append(
                "".join(shortened(text, cell - 1, "[").ljust(cell) for text in row).rstrip()
            )
        return lines

    def selection(self) -> Batch:
        found = self.book.between(self.grid.cursor, self.grid.cursor + 1)
        return found[0] if found else Batch([])


def _top(title: str, counts: Counter[str]) -> list[str]:
    lines = [f"{count:>6} {printable(name)}" for name, count in counts.most_common(_MOST)]
    return [title, *lines, *[""] * (_MOST - len(lines))]
