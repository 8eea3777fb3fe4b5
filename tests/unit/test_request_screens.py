"""The screens of requests, by driven keys: routes, requests, one request, those of a connection."""

import pytest

pytest.importorskip("ddsketch")

from textual.pilot import Pilot

from tcprism.diagnosis.feeds import Recorded
from tcprism.diagnosis.request_history import RequestHistory, Route
from tcprism.diagnosis.search import Search
from tcprism.errors import ExtraMissing
from tcprism.sinks.request_summary import Group
from tcprism.tui.app import Top
from tcprism.tui.model import Model
from tcprism.tui.views.requests import RequestsView

from .asked import asked
from .screens import Drive, alone, drive, same_picture, settle, text_of, utc
from .session import Session

__all__ = ["drive", "utc"]


def feed() -> Recorded:
    return Recorded(Session(asked()), 1.0)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("requests", ("6",)),
        ("requests-route", ("6", "enter")),
        ("request", ("6", "enter", *("down",) * 4, "enter")),
    ],
)
def test_pictures(drive: Drive, name: str, keys: tuple[str, ...]) -> None:
    same_picture(drive(*keys, feed=feed()), name)


def test_routes_and_what_waits(drive: Drive) -> None:
    text = text_of(drive("6", feed=feed()))
    assert "1 without a response" in text
    assert "http GET /never (pending: response) curl[812] -> nginx[431] 192.0.2.20:80" in text
    assert "http GET /item/?" in text


def test_a_request_with_its_time_and_events(drive: Drive) -> None:
    app = drive("6", "enter", *("down",) * 4, "enter", feed=feed())
    text = text_of(app)
    assert "http GET /item/5 503" in text
    assert "took 53 ms" in text
    assert "a segment sent again (tlp)" in text
    assert "retransmit" in text
    assert "/item/4" not in text


def test_it_can_be_the_first_screen(utc: None) -> None:
    app = Top(Model(feed(), "out"), 1.0, "requests")

    async def session() -> None:
        async with app.run_test() as pilot:
            await settle(pilot)
            assert app.view.id == "requests"

    alone(session())


def test_the_slowest_or_the_latest(drive: Drive) -> None:
    first: list[str] = []

    async def turn(app: Top, pilot: Pilot[None]) -> None:
        for _ in range(2):
            first.append(app.query_one(RequestsView).grid.text_at_cursor())
            await pilot.press("s")
            await settle(pilot)

    drive("6", "enter", script=turn, feed=feed())
    assert ["/item/9" in first[0], "/item/3" in first[1]] == [True, True]


def test_its_events_are_on_a_time_axis_from_its_first_byte(drive: Drive) -> None:
    """Those of `asked`: a millisecond there, 50 in the server, two back, sent again amid them."""
    lines: list[list[str]] = []

    async def look(app: Top, _pilot: Pilot[None]) -> None:
        lines.extend(app.query_one(RequestsView).grid._lines(0, 6))

    drive("6", "enter", *("down",) * 4, "enter", script=look, feed=feed())
    assert [line[:2] for line in lines] == [
        ["+0 us", "send"], ["+1 ms", "recv"], ["+1 ms", "acked"], ["+51 ms", "send"],
        ["+52 ms", "retransmit"], ["+53 ms", "recv"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("search", "routes", "requests"),
    [
        ("item/5", 1, 1),
        ("status:503", 1, 1),
        ("nginx http", 1, 9),
        ("status:404", 0, 0),
        ("pid:812 /item/", 1, 9),
    ],
)
def test_the_filter_chooses_routes_and_requests(
    drive: Drive, search: str, routes: int, requests: int
) -> None:
    counts: list[int] = []

    async def look(app: Top, pilot: Pilot[None]) -> None:
        app.model.look_for(Search(search))
        for key in ("x", "enter"):
            await pilot.press(key)
            app.view.update_view()
            await settle(pilot)
            counts.append(app.query_one(RequestsView).grid.count)

    drive("6", script=look, feed=feed())
    assert counts == ([routes, requests] if routes else [0, 0])


def test_routes_are_ordered_by_any_column(drive: Drive) -> None:
    """Two routes: one has more time, the other more failures."""
    batches = asked()
    shown: list[list[str]] = []

    async def turn(app: Top, pilot: Pilot[None]) -> None:
        history, view = app.model.requests(), app.query_one(RequestsView)
        history.routes["fails"] = Route(Group(history._sketch(0.01)))
        history.routes["fails"].sums.failed = 5
        for column in (None, "failed", "failed", "count"):
            if column:
                view.sort_by(column)
            view.update_view()
            shown.append([line[-1] for line in view.grid._lines(0, 2)])

    drive("6", script=turn, feed=Recorded(Session(batches), 1.0))
    item = "http GET /item/?"
    assert shown == [[item, "fails"], ["fails", item], [item, "fails"], ["fails", item]]


def test_a_connection_shows_its_requests(drive: Drive) -> None:
    screen = text_of(drive("down", "enter", feed=feed()))
    lines = screen.splitlines()
    assert "http GET /item/9 200" in screen, screen
    (place,) = (n for n, line in enumerate(lines) if "http GET /item/9 200" in line)
    assert "http GET /never (pending: response)" in lines[place - 1]
    assert lines[place].lstrip().startswith("9")
    assert "http GET /item/5 503" in lines[place + 4]


def test_escape_leads_back_step_by_step(drive: Drive) -> None:
    async def back(app: Top, pilot: Pilot[None]) -> None:
        view = app.query_one(RequestsView)
        for there in ("request", "route", "routes"):
            assert (view._request is not None, view._route is not None) == {
                "request": (True, True), "route": (False, True), "routes": (False, False)
            }[there]  # fmt: skip
            await pilot.press("escape")
            await settle(pilot)
        assert app.view.id == "connections"

    drive("6", "enter", "enter", script=back, feed=feed())


def test_going_back_in_time_forgets_what_came_later(drive: Drive) -> None:
    async def seek(app: Top, pilot: Pilot[None]) -> None:
        assert app.recorded
        app._seek(app.recorded.span[0] + 700_000_000)
        await settle(pilot)

    text = text_of(drive("6", script=seek, feed=feed()))
    assert "http GET /item/?" in text
    assert "without a response" not in text


def test_without_the_library_it_says_what_to_install(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: RequestHistory, _finds_requests: bool) -> None:
        raise ExtraMissing("run `pip install 'tcprism[requests]'`")

    monkeypatch.setattr(RequestHistory, "__init__", missing)
    assert "tcprism[requests]" in text_of(drive("6", "enter", "s", feed=feed()))


@pytest.mark.parametrize("size", [(80, 24), (10, 2), (1, 1)])
def test_small_terminals(drive: Drive, size: tuple[int, int]) -> None:
    drive("6", "enter", "enter", "e", "escape", size=size, feed=feed())
