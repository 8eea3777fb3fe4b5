"""Requests: the routes, the requests of a route, and one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from tcprism.diagnosis.event_history import EventHistory
from tcprism.diagnosis.request_history import PENDING_MAX, RequestHistory, Route
from tcprism.errors import ExtraMissing
from tcprism.events import Batch, Part
from tcprism.events.requests import NEEDS, PAYLOAD
from tcprism.sinks.request_summary import Group
from tcprism.tui import lines as event_lines
from tcprism.tui.grid import Grid, GridColumn, Line
from tcprism.tui.layout import printable
from tcprism.tui.model import Model
from tcprism.tui.pending import pending_lines
from tcprism.tui.request_lines import page, request_lines
from tcprism.tui.views import GridView

_PENDING = 6  # lines
_ROUTES = [
    GridColumn("count", "COUNT", 9, right=True),
    GridColumn("failed", "FAILED", 6, right=True),
    GridColumn("rate", "RATE/s", 9, right=True),
    GridColumn("p50", "P50", 8, right=True),
    GridColumn("p90", "P90", 8, right=True, rank=3),
    GridColumn("p99", "P99", 8, right=True),
    GridColumn("most", "MAX", 8, right=True, rank=2),
    GridColumn("retransmissions", "RETR", 5, right=True),
    GridColumn("mostly", "MOSTLY", 14, rank=1),
    GridColumn("route", "ROUTE", 20, most=200),
]
_REQUESTS = [
    GridColumn("time", "ENDED", 15),
    GridColumn("client", "CLIENT", 16, rank=1, least=10, most=36, tail="["),
    GridColumn("server", "SERVER", 18, rank=2, least=10, most=47, tail=":"),
    GridColumn("took", "TOOK", 8, right=True),
    GridColumn("there", "THERE", 7, right=True, rank=3),
    GridColumn("back", "BACK", 7, right=True, rank=3),
    GridColumn("what", "REQUEST", 30, most=300),
]
_EVENTS = [GridColumn("time", "AFTER", 9, right=True), *event_lines.COLUMNS[1:]]
# What routes are ordered by, the largest first; at first the one with the most time in all.
_KEYS: dict[str, Callable[[Group], float]] = {
    "": lambda group: group.sketch.sum,
    "count": lambda group: group.count,
    "failed": lambda group: group.failed,
    "p50": lambda group: group.percentile(0.5) or 0,
    "p90": lambda group: group.percentile(0.9) or 0,
    "p99": lambda group: group.percentile(0.99) or 0,
    "most": lambda group: group.most,
    "retransmissions": lambda group: group.retransmissions,
}


def _style(column: str, text: str) -> str:
    if column in ("failed", "retransmissions"):
        return "bad" if text not in ("", "0") else "dim"
    return event_lines.style(column, text)


class RequestsView(GridView):
    """A page of text above a table: pending requests above routes, requests, or one's events."""

    kinds: ClassVar[tuple[str, ...]] = (*NEEDS, "transmit")  # for the events of one request
    payload: ClassVar[int] = PAYLOAD
    searched: ClassVar[bool] = True
    focus_id: ClassVar[str] = "requests-grid"
    DEFAULT_CSS = "#requests-page { max-height: 60%; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "slowest", "Slowest"),
        Binding("escape", "leave", show=False),
    ]

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._route: str | None = None
        self._request: Part | None = None
        self._events = EventHistory()
        self._slowest = False
        self._sort, self._reverse = "", False
        self._part: Part | None = None  # the requests in the table
        self._keys: list[object] = []  # what the lines of the table are about

    def compose(self) -> ComposeResult:
        yield Static("", id="requests-page", classes="detail", markup=False)
        yield Grid(_ROUTES, _style, id=self.focus_id)

    def update_view(self) -> None:
        if not self.display:
            return
        try:
            requests = self.model.requests()
        except ExtraMissing as error:
            self.grid.empty = printable(str(error))
            self.grid.show(0, lambda _first, _last: [])
            return
        if self._request:
            self._show_request(self._request)
        elif self._route in requests.routes:
            self._show_route(requests, self._route)
        else:
            self._route = None
            self._show_routes(requests)

    def _show_routes(self, requests: RequestHistory) -> None:
        now_ns = self.model.feed.now_ns()
        waiting = self._found(requests.pending())
        text = []
        if waiting is not None and len(waiting):
            count = f"{len(waiting)}{' or more' if len(waiting) == PENDING_MAX else ''}"
            oldest = pending_lines(waiting, self.model.table, now_ns, _PENDING)
            text = [f"{count} without a response", *oldest]
        routes = [one for one in requests.routes.items() if self._is_found(one[1])]
        key = _KEYS[self._sort]
        routes.sort(key=lambda one: key(one[1].sums), reverse=not self._reverse)
        seconds = max(0, now_ns - requests.began_ns) / 1e9

        def lines(first: int, last: int) -> list[Line]:
            return [[*route.sums.cells(seconds), name] for name, route in routes[first:last]]

        none = "no request yet: they are read off the bytes since this view was opened"
        self.grid.empty = "no route has a request that matches" if self.model.search else none
        self.grid.mark(self._sort)
        self._show(text, _ROUTES, [name for name, _ in routes], lines)

    def _show_route(self, requests: RequestHistory, name: str) -> None:
        route = requests.routes[name]
        part = self._part = self._found(route.slowest if self._slowest else route.latest)
        text = [f"{name}: the {'slowest' if self._slowest else 'latest'} requests"]
        keys: list[object] = []
        if part is not None:
            names = ("start_ts_ns", "local_port", "seq", "response_seq")
            keys = list(zip(*(part.rows[field].tolist() for field in names), strict=True))
        offset_ns = self.model.feed.clock_offset_ns

        def lines(first: int, last: int) -> list[Line]:
            return [] if part is None else request_lines(part.take(slice(first, last)), offset_ns)

        self._show(text, _REQUESTS, keys, lines)

    def _show_request(self, request: Part) -> None:
        book, begun_ns = self._events, int(request.rows["start_ts_ns"][0])
        self.grid.empty = "its messages are not kept any more"
        self._show(
            list(page(request, self.model.feed.clock_offset_ns)),
            _EVENTS,
            list(range(len(book))),
            lambda first, last: event_lines.after_lines(book, first, last, begun_ns),
        )

    def _found(self, part: Part | None) -> Part | None:
        """Return the requests that the filter lets through."""
        search = self.model.search
        return part.take(search.events(part)) if part is not None and search else part

    def _is_found(self, route: Route) -> bool:
        """Tell whether the filter lets one of the latest or slowest requests of a route through."""
        kept = (route.latest, route.slowest)
        return not self.model.search or any(len(self._found(one) or ()) for one in kept)

    def _show(
        self,
        text: list[str],
        columns: list[GridColumn],
        keys: list[object],
        lines: Callable[[int, int], list[Line]],
    ) -> None:
        """Show a page and a table; the cursor stays with what it is on, but for the first line."""
        area, grid = self.query_one("#requests-page", Static), self.grid
        area.update("\n".join(map(printable, text)))
        area.display = bool(text)
        followed = self._keys[grid.cursor] if 0 < grid.cursor < len(self._keys) else None
        grid.set_columns(columns)
        if followed in keys:
            grid.cursor = keys.index(followed)
        self._keys = keys
        grid.show(len(keys), lines)

    # from one to the next

    def on_grid_chosen(self) -> None:
        key = self._keys[self.grid.cursor]
        if self._request:
            return
        if self._route is None:
            self._route = str(key)
        elif self._part:
            cursor = self.grid.cursor
            self._request = self._part.take(slice(cursor, cursor + 1))
            self._events = self.model.events_of(self._request)
        self._begin()

    def action_leave(self) -> None:
        """Go back to the requests of the route, to the routes, to the connections."""
        if self._request:
            self._request = None
        elif self._route is not None:
            self._route = None
        else:
            raise SkipAction
        self._begin()

    def action_slowest(self) -> None:
        """Show the slowest requests of a route, or the latest again."""
        if self._request is None and self._route is not None:
            self._slowest = not self._slowest
            self._begin()

    def sort(self, step: int) -> None:
        names = [*_KEYS]
        self._sort = names[(names.index(self._sort) + step) % len(names)]

    def sort_by(self, column: str) -> None:
        if column == self._sort:
            self.reverse()
        elif column in _KEYS:
            self._sort = column

    def reverse(self) -> None:
        self._reverse = not self._reverse

    def _begin(self) -> None:
        """Show something else, from its first line."""
        self.grid.cursor, self._keys = 0, []
        self.update_view()

    def selection(self) -> Batch:
        offset_ns = self.model.feed.clock_offset_ns
        if self._request:
            events = [part for batch in self._events.batches() for part in batch.parts]
            return Batch([self._request, *events], offset_ns)
        if self._route is None or not self._part:
            return Batch([])
        cursor = self.grid.cursor
        return Batch([self._part.take(slice(cursor, cursor + 1))], offset_ns)
