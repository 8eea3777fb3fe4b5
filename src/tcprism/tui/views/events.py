"""The stream of events, which can be paused and searched; the payload of one below."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from tcprism.diagnosis.event_history import EventHistory
from tcprism.events import Batch, Event
from tcprism.tui.grid import Grid
from tcprism.tui.layout import printable
from tcprism.tui.lines import COLUMNS, book_lines, style
from tcprism.tui.model import Model
from tcprism.tui.payload import payload_text
from tcprism.tui.views import GridView


class EventsView(GridView):
    """One line an event, the newest last; it follows them while the cursor is on the last line."""

    kinds: ClassVar[tuple[str, ...]] = (
        "send",
        "recv",
        "retransmit",
        "drop",
        "connect",
        "accept",
        "close",
        "reset",
    )
    payload: ClassVar[int] = 256
    searched: ClassVar[bool] = True
    focus_id: ClassVar[str] = "events-grid"

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._hex = False

    def compose(self) -> ComposeResult:
        grid = Grid(COLUMNS, style, id=self.focus_id)
        grid.empty = "no event yet that passes the filter"
        yield grid
        yield Static("", id="event-detail", classes="detail", markup=False)

    @property
    def book(self) -> EventHistory:
        """The events that are shown."""
        return self.model.book

    def update_view(self) -> None:
        book = self.book
        self.grid.follow(len(book), lambda first, last: book_lines(book, first, last))
        self.show_detail()

    def selection(self) -> Batch:
        if not self.grid.count:
            return Batch([])
        found = self.book.between(self.grid.cursor, self.grid.cursor + 1)
        return found[0] if found else Batch([])

    def on_grid_moved(self) -> None:
        self.show_detail()

    def toggle_hex(self) -> None:
        """Show payload in hexadecimal, or as text again."""
        self._hex = not self._hex
        self.show_detail()

    def show_detail(self) -> None:
        """Show all that is known of the event under the cursor."""
        batch = self.selection()
        text = ""
        if len(batch):
            text = describe(next(iter(batch)), self._hex)
        self.query_one("#event-detail", Static).update(text)


def describe(event: Event, as_hex: bool) -> str:
    """Return what is known of an event, and its payload."""
    facts = [
        f"{name} {value}"
        for name in event.columns
        if name not in ("payload", "payload_text", "time", "ts_ns")
        and (value := getattr(event, name)) is not None
    ]
    payload = payload_text(event.payload, as_hex) if event.payload else ""
    return printable(", ".join(facts)) + ("\n" + payload if payload else "")
