"""One connection: its numbers over time, its events, its conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from tcprism.diagnosis.connections import ends, owners
from tcprism.diagnosis.delta import LISTEN, Numbers, microseconds
from tcprism.diagnosis.explain import seen
from tcprism.diagnosis.request_history import pending
from tcprism.diagnosis.watch import Watch
from tcprism.events import Batch, Event
from tcprism.events.columns import BY_NAME
from tcprism.events.units import known_duration, rate_text, size
from tcprism.tui.chart import titled_chart
from tcprism.tui.grid import Grid
from tcprism.tui.layout import printable
from tcprism.tui.lines import COLUMNS, book_lines, style
from tcprism.tui.model import Model
from tcprism.tui.payload import payload_text
from tcprism.tui.pending import pending_lines
from tcprism.tui.request_lines import answered_lines
from tcprism.tui.views import GridView

_PLACES = [n for n, column in enumerate(COLUMNS) if column.name in ("time", "kind", "detail")]
_TIMELINE = [replace(COLUMNS[place], least=min(COLUMNS[place].width, 12)) for place in _PLACES]
_TALK = 12  # messages of the conversation on the screen
_CHARTS = 4
_PENDING = 2  # lines of requests without a response
_REQUESTS = 5  # and of the latest with one

_Chart = tuple[str, Numbers, Callable[[float], str]]


class ConnectionView(GridView):
    """Facts and charts above, the timeline at the left, the conversation at the right."""

    kinds: ClassVar[tuple[str, ...]] = (
        "send",
        "recv",
        "transmit",
        "receive",
        "acked",
        "retransmit",
        "undo",
        "drop",
        "close",
        "reset",
        "state",
    )
    payload: ClassVar[int] = 1024
    focus_id: ClassVar[str] = "timeline"

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._hex = False
        self._talk: tuple[int, bool] | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="connection-facts", classes="detail", markup=False)
        with Horizontal(id="connection-charts"):
            for number in range(_CHARTS):
                yield Static("", id=f"chart-{number}", classes="chart", markup=False)
        yield Static("", id="connection-requests", classes="detail", markup=False)
        with Horizontal(id="connection-events"):
            grid = Grid(_TIMELINE, style, id=self.focus_id)
            grid.empty = "no event yet"
            yield grid
            yield Static("", id="conversation", markup=False)

    def update_view(self) -> None:
        watch = self.model.watch
        if watch is None:
            self.query_one("#connection-facts", Static).update(
                "no connection is chosen: choose one in view 1 and press Enter"
            )
            return
        facts = self._facts(watch)
        self.query_one("#connection-facts", Static).update("\n".join(facts))
        self._update_charts(watch)
        self._update_requests()
        self._update_timeline()
        self._update_conversation()

    def _facts(self, watch: Watch) -> list[str]:
        row, part = watch.part.rows[0], watch.part
        local, remote = ends(part, "local")[0], ends(part, "remote")[0]
        state, ca_state, congestion = (
            BY_NAME[name].to_list(part)[0] for name in ("state", "ca_state", "congestion")
        )
        gone = "  (closed)" if self.model.watch_gone else ""
        if listens(watch):
            waiting = (
                f"{row['backlog']} connections wait to be accepted, {row['backlog_limit']} may"
            )
            return [printable(f"{owners(part)[0]}  {local}  {state}{gone}"), waiting]
        return [
            printable(f"{owners(part)[0]}  {local} -> {remote}  {state}{gone}"),
            f"{congestion or '-'}, {ca_state}; mss {row['mss']} B; buffers: send"
            f" {size(row['sndbuf'])}, receive {size(row['rcvbuf'])}",
            f"unsent {size(row['unsent'])}, in flight {size(row['unacked'])},"
            f" unread {size(row['unread'])}; windows: the peer's {size(row['snd_wnd'])},"
            f" ours {size(row['rcv_wnd'])}",
            *(f"{one.title}: {one.proof}" for one in seen(self.model.watched(watch))),
        ]

    def _update_charts(self, watch: Watch) -> None:
        charts = _listener_charts(watch) if listens(watch) else _connection_charts(watch)
        for number in range(_CHARTS):
            area = self.query_one(f"#chart-{number}", Static)
            width, height = area.size.width, max(area.size.height, 2)
            lines = [
                line
                for title, values, text in charts[number : number + 1]
                for line in titled_chart(title, values.tolist(), text, width, height)
            ]
            area.update("\n".join(lines))

    def _update_requests(self) -> None:
        """Show requests without a response, and the latest with one."""
        model, area = self.model, self.query_one("#connection-requests", Static)
        waiting, answered = pending(model.talk_stage), model.talk_requests
        now_ns, lines = model.feed.now_ns(), []
        if waiting:
            lines = list(pending_lines(waiting, model.table, now_ns, _PENDING))
        latest = answered.between(max(0, len(answered) - _REQUESTS), len(answered))
        lines += answered_lines(latest)
        area.update("\n".join(map(printable, lines)))
        area.display = bool(lines)

    def _update_timeline(self) -> None:
        book = self.model.timeline

        def lines(first: int, last: int) -> list[list[str]]:
            return [[line[place] for place in _PLACES] for line in book_lines(book, first, last)]

        self.grid.follow(len(book), lines)

    def _update_conversation(self) -> None:
        book = self.model.talk
        key = (len(book) + book.forgotten, self._hex)
        if key != self._talk:
            self._talk = key
            self.query_one("#conversation", Static).update(self._conversation())

    def _conversation(self) -> Text:
        """Return the last messages with their payload, each direction in a colour of its own."""
        text = Text()
        book = self.model.talk
        recent = book.between(max(0, len(book) - _TALK), len(book))
        for event in (event for batch in recent for event in batch):
            colour = "green" if event.kind == "send" else "cyan"
            text.append(_heading(event) + "\n", style=f"bold {colour}")
            if event.payload:
                text.append(payload_text(event.payload, self._hex) + "\n", style=colour)
        return text

    def toggle_hex(self) -> None:
        """Show payload in hexadecimal, or as text again."""
        self._hex = not self._hex
        self._update_conversation()

    def selection(self) -> Batch:
        found = self.model.timeline.batches()
        parts = [part for batch in found for part in batch.parts]
        watch = self.model.watch
        if watch:
            parts.append(watch.part)
        return Batch(parts, found[-1].clock_offset_ns if found else 0)


def listens(watch: Watch) -> bool:
    """Tell whether the socket has no connection but waits for some."""
    return bool(watch.part.rows[0]["state"] == LISTEN)


def _listener_charts(watch: Watch) -> list[_Chart]:
    return [("waiting", watch.rows["backlog"].astype(float), "{:.0f}".format)]


def _connection_charts(watch: Watch) -> list[_Chart]:
    rows = watch.rows
    return [
        ("cwnd", rows["cwnd"].astype(float), "{:.0f}".format),
        ("RTT", microseconds(rows, "srtt_us"), known_duration),
        ("rate", watch.rates("bytes_acked") + watch.rates("bytes_received"), rate_text),
        ("in flight", rows["unacked"].astype(float), size),
    ]


def _heading(event: Event) -> str:
    arrow = "->" if event.kind == "send" else "<-"
    cut = " (cut)" if event.payload_truncated else ""
    return f"{arrow} {event.time[11:26]} {event.bytes} bytes{cut} {event.error or ''}"
