"""The connections, or groups of them."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from tcprism.diagnosis.connections import COLUMNS, Column, Places, shown_columns
from tcprism.diagnosis.groups import Groups
from tcprism.events import Batch
from tcprism.events.units import known_duration, percent, rate_text, size
from tcprism.tui.grid import Grid, GridColumn, Line
from tcprism.tui.model import NO_GROUPING, Model
from tcprism.tui.views import GridView

_GROUP_COLUMNS = [
    GridColumn("members", "CONNS", 7, right=True),
    GridColumn("out", "OUT/s", 7, right=True),
    GridColumn("in", "IN/s", 7, right=True),
    GridColumn("rtt", "WORST RTT", 9, right=True, rank=1),
    GridColumn("retransmits", "RETR", 6, right=True),
    GridColumn("send_queue", "SENDQ", 8, right=True, rank=2),
    GridColumn("receive_queue", "RECVQ", 8, right=True, rank=2),
    GridColumn("label", "GROUP", 24, most=60),
]

_GOOD_STATES = {"ESTABLISHED", "LISTEN"}


def _style(column: str, text: str) -> str:
    if column == "limit":
        return "" if text in ("idle", "waits for peer") else "warn"
    if column == "retransmits":
        return "bad" if text else ""
    if column == "state":
        return "dim" if text in _GOOD_STATES else "warn"
    return {"out": "good", "in": "cool", "trend": "cool", "local": "dim"}.get(column, "")


class ConnectionsView(GridView):
    """One line a connection, or one a group."""

    searched: ClassVar[bool] = True
    focus_id: ClassVar[str] = "connections-grid"

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._places: Places | None = None
        self._groups: Groups | None = None

    def compose(self) -> ComposeResult:
        grid = Grid(_grid_columns(shown_columns(self.model.table)), _style, id=self.focus_id)
        grid.empty = "no connection: none is open, or none passes the filters"
        yield grid

    def update_view(self) -> None:
        if self.model.grouping == NO_GROUPING:
            self._update_connections()
        else:
            self._update_groups()
        self.grid.mark(self.model.sort)

    def _update_connections(self) -> None:
        grid, table = self.grid, self.model.table
        columns = shown_columns(table)
        self._groups = None
        followed = self._followed()
        places = self._places = self.model.places()
        grid.set_columns(_grid_columns(columns))
        if followed is not None:
            here = (table.rows["inode"][places] == followed).nonzero()[0]
            if len(here):
                grid.cursor = int(here[0])

        def lines(first: int, last: int) -> list[Line]:
            chosen = places[first:last]
            return [
                list(line) for line in zip(*(c.texts(table, chosen) for c in columns), strict=True)
            ]

        grid.show(len(places), lines)
        self._inodes = table.rows["inode"][places]

    def _followed(self) -> int | None:
        """Return the connection under the cursor; on the first line the cursor follows none."""
        if self._places is None or not 0 < self.grid.cursor < len(self._inodes):
            return None
        return int(self._inodes[self.grid.cursor])

    def _update_groups(self) -> None:
        groups, places = self.model.groups()
        self._groups, self._places = groups, places
        self._inodes = places
        self.grid.set_columns(_GROUP_COLUMNS)
        self.grid.show(
            len(places), lambda first, last: [_line(groups, i) for i in places[first:last]]
        )

    def sort(self, step: int) -> None:
        model = self.model
        names = [column.name for column in shown_columns(model.table)]
        place = names.index(model.sort) + step if model.sort in names else 0
        model.sort = names[place % len(names)]

    def sort_by(self, column: str) -> None:
        if column == self.model.sort:
            self.reverse()
        elif column in {one.name for one in COLUMNS}:
            self.model.sort = column

    def reverse(self) -> None:
        self.model.reverse = not self.model.reverse

    @property
    def place(self) -> int | None:
        """Where the connection under the cursor is in the table."""
        if self._groups or self._places is None or not len(self._places):
            return None
        return int(self._places[self.grid.cursor])

    @property
    def group(self) -> str | None:
        """The group under the cursor."""
        if self._groups is None or self._places is None or not len(self._places):
            return None
        return self._groups.labels[int(self._places[self.grid.cursor])]

    def selection(self) -> Batch:
        place = self.place
        parts = [] if place is None else [self.model.table.part.take(slice(place, place + 1))]
        return Batch(parts)


def _grid_columns(columns: list[Column]) -> list[GridColumn]:
    return [
        GridColumn(c.name, c.title, c.width, c.right, c.rank, c.least, c.most, c.tail)
        for c in columns
    ]


def _line(groups: Groups, place: int) -> Line:
    return [
        str(groups.members[place]),
        rate_text(groups.rate_out[place]),
        rate_text(groups.rate_in[place]),
        known_duration(groups.rtt[place]),
        percent(groups.retransmit_share[place]) if groups.retransmit_share[place] else "",
        size(groups.send_queue[place]) if groups.send_queue[place] else "",
        size(groups.receive_queue[place]) if groups.receive_queue[place] else "",
        groups.labels[place],
    ]
