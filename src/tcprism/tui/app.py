"""The program with the screens: keys, time, and which view is shown."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.widgets import ContentSwitcher, Footer, Input, Static, Tab, Tabs

from tcprism.diagnosis.explain import lines, verdicts
from tcprism.diagnosis.feeds import Recorded
from tcprism.diagnosis.search import Search
from tcprism.errors import Error
from tcprism.events.units import rate_text
from tcprism.filters import Criteria
from tcprism.tui.dialogs import Export, Page, help_page
from tcprism.tui.export import WRITERS, export
from tcprism.tui.grid import Grid
from tcprism.tui.layout import printable
from tcprism.tui.model import ALL_GROUPINGS, NO_GROUPING, Model
from tcprism.tui.slider import Slider
from tcprism.tui.terminal import TerminalApp
from tcprism.tui.views import GridView, View
from tcprism.tui.views.connection import ConnectionView
from tcprism.tui.views.connections import ConnectionsView
from tcprism.tui.views.events import EventsView
from tcprism.tui.views.health import HealthView
from tcprism.tui.views.requests import RequestsView
from tcprism.tui.views.retransmits import RetransmitsView

EVENTS_PAUSE = 0.5  # seconds between two polls of the rings
VIEWS: dict[str, type[View]] = {
    "connections": ConnectionsView,
    "connection": ConnectionView,
    "retransmits": RetransmitsView,
    "events": EventsView,
    "health": HealthView,
    "requests": RequestsView,
}


class Top(TerminalApp):
    """`tcprism top`. `feed` is closed by whoever made it."""

    TITLE = "tcprism"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #status { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    #search { display: none; height: 1; border: none; padding: 0 1; }
    #search.open { display: block; }
    Tabs { height: 2; }
    ContentSwitcher { height: 1fr; }
    View { height: 1fr; }
    .detail { height: auto; max-height: 40%; background: $surface; padding: 0 1; }
    #event-detail { height: 30%; border-top: solid $primary; }
    #losses-summary { max-height: 12; }
    #connection-charts { height: 5; }
    .chart { width: 1fr; height: 5; color: $text-primary; padding: 0 1; }
    #connection-events { height: 1fr; border-top: solid $primary; }
    #timeline { width: 1fr; }
    #conversation { width: 1fr; height: 1fr; padding: 0 1; border-left: solid $primary; }
    #health-text { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        *(Binding(str(n), f"view('{name}')", show=False) for n, name in enumerate(VIEWS, 1)),
        Binding("slash", "search", "Filter", key_display="/"),
        Binding("w", "why", "Why"),
        Binding("g", "group", "Group"),
        Binding("less_than_sign", "sort(-1)", "Sort", key_display="<>"),
        Binding("greater_than_sign", "sort(1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("space", "hold", "Hold"),
        Binding("e", "export", "Export"),
        Binding("c", "copy", "Copy"),
        Binding("x", "hex", show=False),
        Binding("t", "light", show=False),
        Binding("left", "step(-1)", show=False),
        Binding("right", "step(1)", show=False),
        Binding("shift+left", "step(-10)", show=False),
        Binding("shift+right", "step(10)", show=False),
        Binding("escape", "back", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, model: Model, interval: float, begin: str = "connections") -> None:
        super().__init__()
        self.model = model
        self.interval = interval
        self._begin = begin
        self.held = False
        self._looking = self._moved = False
        self._hooks = asyncio.Lock()
        self._wanted: tuple[object, ...] | None = None

    # what is on the screen

    def compose(self) -> ComposeResult:
        yield Static("", id="status", markup=False)
        yield Tabs(*(Tab(f"{n} {name}", id=f"tab-{name}") for n, name in enumerate(VIEWS, 1)))
        yield Input(
            placeholder="words, or port:443 pid:812 state:CLOSE_WAIT cause:rto",
            id="search",
            compact=True,
        )
        with ContentSwitcher(initial="connections"):
            for name, kind in VIEWS.items():
                yield kind(self.model, id=name)
        if self.recorded:
            yield Slider()
        yield Footer()

    @property
    def recorded(self) -> Recorded | None:
        """The recording, where it is one."""
        return self.model.feed if isinstance(self.model.feed, Recorded) else None

    @property
    def view(self) -> View:
        """The view that is shown."""
        name = self.query_one(ContentSwitcher).current or "connections"
        return self.query_one(f"#{name}", View)

    def on_mount(self) -> None:
        self.query_one(Tabs).can_focus = False
        if self.recorded:
            self.recorded.seek(self.recorded.first_activity_ns)
            self.held = True
        self.set_interval(self.interval, self._tick)
        self.set_interval(EVENTS_PAUSE, self._read_events)
        self._tick_once()
        self._focus_view()
        self.action_view(self._begin)

    def _tick(self) -> None:
        """Look again, unless that is to be held."""
        if self.held:
            return
        if self.recorded:
            self.recorded.go_on()
            self.held = self.recorded.now_ns() >= self.recorded.span[1]
        self._tick_once()

    def _tick_once(self) -> None:
        if not self._looking:
            self._looking, self._moved = True, False
            self.run_worker(self._look())

    async def _look(self) -> None:
        """Take a snapshot in a thread, for one of many sockets takes its time, and show it."""
        model = self.model
        try:
            model.table = await asyncio.to_thread(model.feed.table, model.table)
        except Error as error:
            self._complain(error)
        finally:
            self._looking = False
        model.look()
        self._read_events()
        self._update()
        if self._moved:
            self._tick_once()

    def _read_events(self) -> None:
        """Take what has come, unless hooks are being changed in this moment."""
        if self._hooks.locked() or (self.held and not self.recorded):
            return
        batch = self.model.feed.events()
        if len(batch):
            self.model.add_events(batch)
            self._show()

    def _show(self) -> None:
        """Have the view show what is known, unless it is being put up or taken down."""
        with suppress(NoMatches):
            self.view.update_view()

    def _complain(self, error: Error) -> None:
        self.notify(printable(str(error)), severity="error", markup=False)

    def _update(self) -> None:
        self.query_one("#status", Static).update(self._status())
        if self.recorded:
            self.query_one(Slider).show(self.recorded.span, self.recorded.now_ns(), not self.held)
        self._show()

    def _status(self) -> str:
        model, table = self.model, self.model.table
        texts = [
            f"{len(table)} sockets",
            f"out {rate_text(float(table.rate_out.sum())) or 0}/s",
            f"in {rate_text(float(table.rate_in.sum())) or 0}/s",
        ]
        one_view = isinstance(self.view, ConnectionsView)
        texts += [f"by {model.grouping}"] if one_view and model.grouping != NO_GROUPING else []
        searched = model.search and self.view.searched
        texts += [f"filter: {printable(str(model.search))}"] if searched else []
        texts += ["HELD"] if self.held and not self.recorded else []
        return "  ".join(texts)

    # views

    def action_view(self, name: str) -> None:
        """Show a view."""
        self.query_one(Tabs).active = f"tab-{name}"

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        name = (event.tab.id or "").removeprefix("tab-")
        self.query_one(ContentSwitcher).current = name
        self.query_one("#search").remove_class("open")
        self._want_events()
        self._update()
        self._focus_view()

    def _focus_view(self) -> None:
        self.view.query_one(f"#{self.view.focus_id}").focus()

    def _want_events(self) -> None:
        """Have hooks on for the events of the view, and for no others."""
        view, model = self.view, self.model
        one = isinstance(view, ConnectionView)
        kinds = view.kinds if model.watch or not one else ()
        if self.recorded or isinstance(view, HealthView):
            return  # the latter tells about the hooks that are on
        chosen = model.watch_filter() if one else model.feed.filters
        wanted = (kinds, chosen, view.payload)
        if wanted == self._wanted:
            return
        self._wanted = wanted
        model.forget_events()
        self.run_worker(self._change_hooks(kinds, chosen, view.payload))

    async def _change_hooks(self, kinds: tuple[str, ...], chosen: Criteria, payload: int) -> None:
        """In a thread: the kernel takes its time for it."""
        async with self._hooks:
            try:
                await asyncio.to_thread(self.model.feed.want, kinds, chosen, payload)
            except Error as error:
                self._complain(error)

    def on_grid_chosen(self) -> None:
        view, model = self.view, self.model
        if not isinstance(view, ConnectionsView):
            return
        if view.group is not None:
            model.look_into(view.group)
            self._update()
        elif view.place is not None:
            model.open_watch(view.place)
            self._seek(model.feed.now_ns())
            self.action_view("connection")

    async def action_back(self) -> None:
        """Close the filter, then go back to the connections."""
        if self.query_one("#search").has_class("open") or self.model.search:
            self._drop_search()
        else:
            self.action_view("connections")

    # filter, order, groups

    def action_search(self) -> None:
        """Open the line for the filter, in a view that it holds for."""
        if not self.view.searched:
            return
        field = self.query_one("#search", Input)
        field.add_class("open")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "search":
            self.model.look_for(replace(self.model.search, text=event.value))
            self._update()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "search":
            self._close_search()

    def _drop_search(self) -> None:
        self.query_one("#search", Input).value = ""
        self.model.look_for(Search())
        self._close_search()
        self._update()

    def _close_search(self) -> None:
        self.query_one("#search").remove_class("open")
        self._focus_view()

    def action_sort(self, step: int) -> None:
        """Order by the next column, or the one before."""
        self.view.sort(step)
        self._update()

    def action_reverse(self) -> None:
        """Order the other way round."""
        self.view.reverse()
        self._update()

    def on_grid_header_chosen(self, event: Grid.HeaderChosen) -> None:
        self.view.sort_by(event.column)
        self._update()

    def action_group(self) -> None:
        """Add the connections up by the next thing."""
        place = ALL_GROUPINGS.index(self.model.grouping) + 1
        self.model.grouping = ALL_GROUPINGS[place % len(ALL_GROUPINGS)]
        self._update()

    # time

    def action_hold(self) -> None:
        """Hold what is shown, or go on; at the end of a recording: from the start."""
        self.held = not self.held
        recorded = self.recorded
        if recorded and not self.held and recorded.now_ns() >= recorded.span[1]:
            self._seek(recorded.span[0])
        self._update()

    def _seek(self, moment_ns: int) -> None:
        if self.recorded:
            self.recorded.seek(moment_ns)
            self.model.forget_events()
            self._moved = True  # while a snapshot is taken, that may be of another moment
            self._tick_once()

    def action_step(self, intervals: int) -> None:
        """Go back or on in a recording."""
        self._seek(self.model.feed.now_ns() + round(intervals * self.interval * 1e9))

    def on_slider_moved(self, event: Slider.Moved) -> None:
        if self.recorded:
            first, last = self.recorded.span
            self._seek(first + round(event.place * (last - first)))

    # what is selected

    def action_why(self) -> None:
        """Explain what limits the selected connection."""
        view, model = self.view, self.model
        if isinstance(view, ConnectionsView) and view.place is not None:
            place = view.place
            part = model.table.part.take(slice(place, place + 1))
            change = model.table.change.only(place)
        elif model.watch:
            part, change = model.watch.part, model.watched(model.watch)
        else:
            return
        self.push_screen(Page("why", "\n".join(lines(part, change, verdicts(change)))))

    def action_export(self) -> None:
        """Ask for a name and write what is selected."""
        batch = self.view.selection()
        if not len(batch):
            self.notify("nothing is selected", markup=False)
            return
        name = f"tcprism-{self._time_of_day()}{next(iter(WRITERS))}"

        def write(given: str | None) -> None:
            if not given:
                return
            try:
                export(batch, Path(given).expanduser())
                self.notify(printable(f"written: {given}"), markup=False)
            except Error as error:
                self._complain(error)

        self.push_screen(Export(name, ", ".join(WRITERS)), write)

    def _time_of_day(self) -> str:
        feed = self.model.feed
        seconds = (feed.now_ns() + feed.clock_offset_ns) / 1e9
        return time.strftime("%H%M%S", time.localtime(seconds))

    def action_copy(self) -> None:
        """Copy the line under the cursor, by the terminal (OSC 52)."""
        view = self.view
        if isinstance(view, GridView):
            self.copy_to_clipboard(view.grid.text_at_cursor())
            self.notify("copied", markup=False)

    def action_hex(self) -> None:
        """Show payload in hexadecimal, or as text again."""
        view = self.view
        if isinstance(view, EventsView | ConnectionView):
            view.toggle_hex()

    def action_light(self) -> None:
        """Be light or dark."""
        self.theme = "textual-dark" if self.theme == "textual-light" else "textual-light"

    def action_help(self) -> None:
        """Show the keys and what the columns mean."""
        self.push_screen(help_page())
