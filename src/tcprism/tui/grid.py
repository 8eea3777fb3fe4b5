"""Grid: a table of any length; only its visible lines are ever made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tcprism.tui.layout import fitted, printable, shortened

Line = list[str]
Lines = Callable[[int, int], list[Line]]


@dataclass(frozen=True, slots=True)
class GridColumn:
    """A column: its width and what may become of it are tcprism.tui.layout's."""

    name: str
    title: str
    width: int
    right: bool = False
    rank: int = 0
    least: int = 0
    most: int = 0
    tail: str = ""


class Grid(ScrollView, can_focus=True):
    """Shows `lines(first, last)` below a header, and a cursor on one of them.

    `marked` is the column that the lines are ordered by. `style_of` names the style, one of
    COMPONENT_CLASSES without "grid--", of a cell: by its column and text.
    """

    DEFAULT_CSS = """
    Grid { height: 1fr; overflow-x: hidden; overflow-y: auto; }
    Grid > .grid--header { background: $panel; color: $foreground; text-style: bold; }
    Grid > .grid--marked { background: $primary; color: $text; text-style: bold; }
    Grid > .grid--cursor { background: $secondary; color: $text; }
    Grid > .grid--bad { color: $error; text-style: bold; }
    Grid > .grid--warn { color: $warning; }
    Grid > .grid--good { color: $success; }
    Grid > .grid--cool { color: $text-primary; }
    Grid > .grid--dim { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--header",
        "grid--marked",
        "grid--cursor",
        "grid--bad",
        "grid--warn",
        "grid--good",
        "grid--cool",
        "grid--dim",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000000)", show=False),
        Binding("end", "move(1000000000)", show=False),
        Binding("enter", "choose", "Open", show=False),
    ]

    class Moved(Message):
        """The cursor is on another line."""

    class Chosen(Message):
        """A line was chosen, by Enter or a second click."""

        def __init__(self, grid: Grid) -> None:
            super().__init__()
            self.grid = grid

    class HeaderChosen(Message):
        """A column's title was clicked."""

        def __init__(self, grid: Grid, column: str) -> None:
            super().__init__()
            self.grid = grid
            self.column = column

    def __init__(
        self,
        columns: Sequence[GridColumn],
        style_of: Callable[[str, str], str] = lambda _column, _text: "",
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.cursor = 0
        self.count = 0
        self.marked = ""
        self.empty = ""
        self._lines: Lines = lambda _first, _last: []
        self._style_of = style_of
        self._shown: list[Line] = []
        self._first = 0
        self._needs = _titles(columns)

    # what is shown

    def show(self, count: int, lines: Lines) -> None:
        """Show other lines; unchanged ones are not drawn again."""
        self.count, self._lines = count, lines
        self.cursor = max(0, min(self.cursor, count - 1))
        self.virtual_size = Size(self.size.width, count + 1)
        self._draw_changes()

    def follow(self, count: int, lines: Lines) -> None:
        """Show lines to which some are added at the end; a cursor on the last one goes with it."""
        on_last = self.cursor >= self.count - 1
        self.show(count, lines)
        if on_last:
            self.move_to(count - 1)

    def set_columns(self, columns: Sequence[GridColumn]) -> None:
        """Have other columns; the lines come with the next `show`."""
        if self.columns != columns:
            self.columns, self.cursor, self.count, self._shown = columns, 0, 0, []
            self._needs = _titles(columns)
            self.refresh()

    def mark(self, column: str) -> None:
        """Mark the title of the column that the lines are ordered by."""
        if self.marked != column:
            self.marked = column
            self.refresh()

    @property
    def _room(self) -> int:
        return max(0, self.scrollable_content_region.height - 1)

    def _draw_changes(self) -> None:
        first = self.scroll_offset.y
        shown = self._lines(first, min(self.count, first + self._room))
        if self._need_more(shown):
            self.refresh()
        if first != self._first or len(shown) != len(self._shown):
            self.refresh()
        else:
            for y, (new, old) in enumerate(zip(shown, self._shown, strict=True)):
                if new != old:
                    self.refresh(Region(0, y + 1, self.size.width, 1))
        self._first, self._shown = first, shown

    def _need_more(self, lines: list[Line]) -> bool:
        """Have the columns as wide as the longest texts so far; tell whether that has changed."""
        before = self._needs
        for line in lines:
            self._needs = [
                max(n, cell_len(text)) for n, text in zip(self._needs, line, strict=True)
            ]
        return self._needs != before

    def _fitted(self) -> list[tuple[int, int]]:
        room = self.scrollable_content_region.width
        return fitted(self.columns, room, self._needs, self.marked)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._draw_changes()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, self.count + 1)
        self._shown = []
        self._needs = _titles(self.columns)
        self._draw_changes()
        self.refresh()
        self.call_after_refresh(self._bring_into_view)

    # drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        place = y - 1
        if place >= len(self._shown):
            text = self.empty if place == 1 and not self.count else ""
            return Strip([Segment(f" {text}", self._style("dim"))]).adjust_cell_length(
                width, self.rich_style
            )
        return self._strip(self._shown[place], self._first + place == self.cursor, width)

    def _header(self, width: int) -> Strip:
        segments = []
        plain = self._style("header")
        for place, wide in self._fitted():
            column = self.columns[place]
            style = self._style("marked") if column.name == self.marked else plain
            segments += [Segment(_cell(column.title, column, wide), style), Segment(" ", plain)]
        return Strip(segments).adjust_cell_length(width, plain)

    def _strip(self, line: Line, at_cursor: bool, width: int) -> Strip:
        base = self._style("cursor") if at_cursor else self.rich_style
        chosen = self._fitted()
        segments = []
        for place, wide in chosen:
            column, text = self.columns[place], printable(line[place])
            last = place == chosen[-1][0] and not column.right
            cell = text if last else _cell(text, column, wide)
            name = "" if at_cursor else self._style_of(column.name, text)
            segments += [Segment(cell, self._style(name) if name else base), Segment(" ", base)]
        return Strip(segments).adjust_cell_length(width, base)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"grid--{name}")

    # the cursor

    def move_to(self, line: int) -> None:
        """Put the cursor on a line and bring that into view."""
        line = max(0, min(line, self.count - 1))
        if line != self.cursor:
            for y in (self.cursor - self._first + 1, line - self._first + 1):
                self.refresh(Region(0, y, self.size.width, 1))
            self.cursor = line
            self.post_message(self.Moved())
        self.call_after_refresh(self._bring_into_view)  # how far it can scroll is known then

    def _bring_into_view(self) -> None:
        line, top, room = self.cursor, self.scroll_offset.y, self._room
        if line < top:
            self.scroll_to(y=line, animate=False)
        elif room and line >= top + room:
            self.scroll_to(y=line - room + 1, animate=False)

    def action_move(self, lines: int) -> None:
        self.move_to(self.cursor + lines)

    def action_page(self, pages: int) -> None:
        self.move_to(self.cursor + pages * max(1, self._room))

    def action_choose(self) -> None:
        if self.count:
            self.post_message(self.Chosen(self))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._click_header(event.x)
        elif event.y <= len(self._shown):
            line = self._first + event.y - 1
            again = line == self.cursor and event.chain > 1
            self.move_to(line)
            if again:
                self.action_choose()

    def _click_header(self, x: int) -> None:
        end = 0
        for place, wide in self._fitted():
            end += wide + 1
            if x < end:
                self.post_message(self.HeaderChosen(self, self.columns[place].name))
                return

    def text_at_cursor(self) -> str:
        """Return the line under the cursor, to be copied."""
        lines = self._lines(self.cursor, self.cursor + 1) if self.count else []
        return "  ".join(map(printable, lines[0])) if lines else ""


def _titles(columns: Sequence[GridColumn]) -> list[int]:
    return [len(column.title) for column in columns]


def _cell(text: str, column: GridColumn, width: int) -> str:
    """Return text in a column's width, cut with a mark where it is too long."""
    if cell_len(text) > width:
        if text.isascii():
            return shortened(text, width, column.tail)
        return set_cell_size(text, width - 1) + "…"
    return text.rjust(width) if column.right else set_cell_size(text, width)
