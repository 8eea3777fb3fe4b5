"""The stream of events, which can be held and searched; the payload of one below."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from tcprism.diagnosis.connections import matching
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
    focus_id: ClassVar[str] = "events-grid"

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._search = ""
        self._found: list[int] = []  # places in the book, counted from the first event that came
        self._searched = 0
        self._hex = False

    def compose(self) -> ComposeResult:
        grid = Grid(COLUMNS, style, id=self.focus_id)
        grid.empty = "no event yet"
        yield grid
        yield Static("", id="event-detail", classes="detail", markup=False)

    @property
    def book(self) -> EventHistory:
        """The events that are shown."""
        return self.model.book

    def update_view(self) -> None:
        grid = self.grid
        follows = grid.cursor >= grid.count - 1
        if self.model.search:
            self._find()
            found = [place - self.book.forgotten for place in self._found]
            grid.show(len(found), lambda first, last: self._lines_at(found[first:last]))
        else:
            self._search = ""
            grid.show(len(self.book), lambda first, last: book_lines(self.book, first, last))
        if follows:
            grid.move_to(grid.count - 1)
        self.show_detail()

    def _find(self) -> None:
        """Search what has come since the last time; all of it when the search is another."""
        if self.model.search != self._search or self._searched < self.book.forgotten:
            self._search, self._found, self._searched = self.model.search, [], self.book.forgotten
        end = self.book.forgotten + len(self.book)
        lines = book_lines(self.book, self._searched - self.book.forgotten, len(self.book))
        found = matching((" ".join(line).lower() for line in lines), self._search)
        self._found += (found.nonzero()[0] + self._searched).tolist()
        self._searched = end
        self._found = [place for place in self._found if place >= self.book.forgotten]

    def _lines_at(self, places: list[int]) -> list[list[str]]:
        return [line for place in places for line in book_lines(self.book, place, place + 1)]

    def _place(self) -> int:
        if self.model.search:
            return self._found[self.grid.cursor] - self.book.forgotten
        return self.grid.cursor

    def selection(self) -> Batch:
        if not self.grid.count:
            return Batch([])
        place = self._place()
        found = self.book.between(place, place + 1)
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
