"""The screens of requests, by driven keys: routes, requests, one request, those of a connection."""

import pytest

pytest.importorskip("ddsketch")

from textual.pilot import Pilot

from tcprism.diagnosis.feeds import Recorded
from tcprism.diagnosis.request_history import RequestHistory
from tcprism.errors import ExtraMissing
from tcprism.tui.app import Top
from tcprism.tui.views.requests import RequestsView

from .asked import asked
from .screens import Drive, drive, same_picture, settle, text_of, utc
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


def test_the_slowest_or_the_latest(drive: Drive) -> None:
    first: list[str] = []

    async def turn(app: Top, pilot: Pilot[None]) -> None:
        for _ in range(2):
            first.append(app.query_one(RequestsView).grid.text_at_cursor())
            await pilot.press("s")
            await settle(pilot)

    drive("6", "enter", script=turn, feed=feed())
    assert ["/item/9" in first[0], "/item/3" in first[1]] == [True, True]


def test_a_connection_shows_its_requests(drive: Drive) -> None:
    lines = text_of(drive("down", "enter", feed=feed())).splitlines()
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
    def missing(self: RequestHistory) -> None:
        raise ExtraMissing("run `pip install 'tcprism[requests]'`")

    monkeypatch.setattr(RequestHistory, "__init__", missing)
    assert "tcprism[requests]" in text_of(drive("6", "enter", "s", feed=feed()))


@pytest.mark.parametrize("size", [(80, 24), (10, 2), (1, 1)])
def test_small_terminals(drive: Drive, size: tuple[int, int]) -> None:
    drive("6", "enter", "enter", "e", "escape", size=size, feed=feed())
