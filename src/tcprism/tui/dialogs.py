"""Dialogs over a view: help, an explanation, a name for an export."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tcprism.diagnosis.connections import COLUMNS

KEYS = """\
1 2 3 4 5 6  connections, one connection, retransmits, events, health, requests
Enter        open the connection under the cursor; of a group: show its connections;
             of a route: show its requests; of a request: show where its time went
s            the slowest requests of a route, or the latest
w            why: what limits the connection under the cursor
/            filter as you type: words are looked for in owner, addresses and ports,
             state:close_wait, port:443, limit:loss, cause:rto in what they name (docs/top.md);
             all must be there; Enter keeps the filter, Escape ends it
< >  r       order by the column before or behind; the other way round. Or click a title
g            group by process, remote host, port, container, and back
x            payload as text or in hexadecimal
space        hold what is shown, or go on; in a recording: play or stop
left right   in a recording: one interval back or on; with shift ten; or click on the line of time
e            export what is selected; the name's end chooses the format
c            copy the line under the cursor
t            light or dark
q            quit"""


class Page(ModalScreen[None]):
    """Text over the view; any of the keys that open or close things closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Close"),
        ("q", "dismiss", "Close"),
        ("question_mark", "dismiss", "Close"),
        ("w", "dismiss", "Close"),
        ("enter", "dismiss", "Close"),
    ]
    CSS = """
    Page { align: center middle; }
    Page > VerticalScroll {
        width: 90%; max-width: 110; height: auto; max-height: 90%;
        background: $panel; border: round $primary; padding: 0 1;
    }
    """

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with VerticalScroll() as scroll:
            scroll.border_title = self._title
            yield Static(self._text, markup=False)


def help_page() -> Page:
    """Return the keys, and a sentence about each column."""
    columns = "\n".join(f"{column.title:<12} {column.doc}" for column in COLUMNS)
    return Page("help", f"{KEYS}\n\n{columns}")


class Export(ModalScreen[str]):
    """Asks for the name of a file; the empty name means none."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "cancel", "Cancel")]
    CSS = """
    Export { align: center middle; }
    Export > Vertical {
        width: 70; max-width: 95%; height: auto;
        background: $panel; border: round $primary; padding: 0 1;
    }
    """

    def __init__(self, name: str, formats: str) -> None:
        super().__init__()
        self._name, self._formats = name, formats

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "export"
            yield Static(f"Write what is selected to ({self._formats}):", markup=False)
            yield Input(self._name)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        self.dismiss("")
