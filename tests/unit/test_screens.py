"""Every screen by driven keys, as text and as a picture."""

import asyncio
import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tcprism.diagnosis.feeds import Recorded
from tcprism.diagnosis.table import Table
from tcprism.tui.app import Top
from tcprism.tui.views.connections import ConnectionsView

from .screens import Drive, drive, same_picture, settle, text_of, utc
from .session import SECOND, closed_window

__all__ = ["drive", "utc"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("connections", ()),
        ("connections-by-rtt", ("greater_than_sign",) * 3),
        ("groups", ("g",)),
        ("connection", ("down", "enter")),
        ("connection-hex", ("down", "down", "enter", "x")),
        ("retransmits", ("3",)),
        ("events", ("4",)),
        ("why", ("w",)),
        ("help", ("question_mark",)),
        ("light", ("t",)),
        ("export", ("e",)),
    ],
)
def test_pictures(drive: Drive, name: str, keys: tuple[str, ...]) -> None:
    same_picture(drive(*keys), name)


@pytest.mark.parametrize("view", ["1", "2", "3", "4"])
def test_wide_terminal(drive: Drive, view: str) -> None:
    """Nothing that is known is cut."""
    text = text_of(drive("enter", view, size=(200, 50)))
    assert "203.0.113.9:51000" in text or view in "34"
    assert r"backup\x1b[31m[977]" in text or view == "2"


@pytest.mark.parametrize("view", ["1", "2", "3", "4"])
def test_small_terminal(drive: Drive, view: str) -> None:
    same_picture(drive("enter", view, size=(80, 24)), f"small-{view}")


def test_connections_show_who_talks_and_what_limits_it(drive: Drive) -> None:
    text = text_of(drive())
    assert "nginx[431]+1 192.0.2.10:80 203.0.113.9:51000" in text
    assert "peer window" in text
    assert "loss" in text
    assert "900K" in text


def test_a_listener_has_nothing_of_a_connection(drive: Drive) -> None:
    text = text_of(drive("end", "enter"))
    assert "nginx[431] 0.0.0.0:80 LISTEN" in text
    assert "0 connections wait to be accepted, 511 may" in text
    for word in ("cwnd", "RTT", "mss", "window"):
        assert word not in text


def test_what_the_segments_of_a_connection_prove(drive: Drive) -> None:
    """A closed window counts up to the last snapshot, 1.5 s later."""
    proof = "zero windows arrived 1 time, for 1.5 s in all; it is still closed"
    assert f"the peer closed its receive window: {proof}" in text_of(
        drive("enter", feed=closed_window())
    )
    assert "receive window: zero" in text_of(drive("enter", "w", feed=closed_window()))


def test_events_that_come_as_a_view_is_taken_down(drive: Drive) -> None:
    async def take_down(app: Top, _pilot: Pilot[None]) -> None:
        await app.view.remove_children()
        app._show()

    drive("enter", feed=closed_window(), script=take_down)


def test_health(drive: Drive) -> None:
    text = text_of(drive("5"))
    assert "of a core" in text
    assert "HOOKS" in text
    assert "LEDGER" in text


def test_names_cannot_command_the_terminal(drive: Drive) -> None:
    app = drive(size=(160, 36))
    assert "\x1b" not in app.picture  # type: ignore[attr-defined]
    assert r"backup\x1b[31m[977]" in text_of(app)


def test_filter_as_you_type(drive: Drive) -> None:
    text = text_of(drive("slash", "4", "4", "3"))
    assert "curl[812]" in text
    assert "nginx[431]" not in text
    assert "nginx[431]" in text_of(drive("slash", "4", "4", "3", "enter", "escape"))


def test_filter_finds_events(drive: Drive) -> None:
    text = text_of(drive("4", "slash", *"retransmit"))
    assert " retransmit " in text
    assert " send " not in text


def test_sorting_by_key_and_back(drive: Drive) -> None:
    app = drive("less_than_sign", "r")
    assert (app.model.sort, app.model.reverse) == ("state", True)


def test_a_click_on_a_title_sorts_by_it(drive: Drive) -> None:
    async def click(app: Top, pilot: Pilot[None]) -> None:
        await pilot.click(ConnectionsView, offset=(2, 0))
        await settle(pilot)

    assert drive(script=click).model.sort == "owner"


def test_groups_lead_to_their_members(drive: Drive) -> None:
    app = drive("g", "enter")
    assert app.model.grouping == "connection"
    assert str(app.model.search) == "process nginx[431]"
    assert "filter: process nginx[431]" in text_of(app)


def test_a_group_without_a_name_leads_to_its_members(drive: Drive) -> None:
    """All are in no container, and that group is no search for a hyphen."""
    app = drive(*"gggg", "enter")
    assert str(app.model.search) == "container -"
    assert len(app.model.places()) == 4
    assert "nginx[431]" in text_of(app)


def test_the_filter_holds_in_every_view_that_shows_it(drive: Drive) -> None:
    typed = ("slash", *"curl", "enter")
    assert "filter: curl" in text_of(drive(*typed))
    for view in ("3", "4"):
        text = text_of(drive(view, *typed))
        assert "filter: curl" in text
        assert "backup" not in text
        assert "backup" in text_of(drive(view))
    for view in ("2", "5"):
        assert "filter:" not in text_of(drive(*typed, view))

    async def closed(app: Top, pilot: Pilot[None]) -> None:
        assert not app.query_one("#search").has_class("open")

    drive("5", "slash", script=closed)


def test_a_recording_opens_where_something_happens(drive: Drive) -> None:
    """At the end of the first interval with traffic, and not at the end of all."""
    app = drive(at_end=False)
    assert app.recorded
    assert app.recorded.now_ns() == app.recorded.span[0] + 1_000_000_000
    assert "900K" in text_of(app)


def test_the_cursor_stays_on_its_connection(drive: Drive) -> None:
    async def turn_round(app: Top, pilot: Pilot[None]) -> None:
        grid = app.query_one(ConnectionsView).grid
        await pilot.press("down")
        before = grid.text_at_cursor()
        await pilot.press("r")
        await settle(pilot)
        assert grid.text_at_cursor() == before
        assert grid.cursor == grid.count - 2

    drive(script=turn_round)


def test_time_slider(drive: Drive) -> None:
    async def seek(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("shift+left")
        await settle(pilot)

    app = drive("4", script=seek)
    assert app.recorded
    assert app.recorded.now_ns() == app.recorded.span[1] - 10_000_000_000
    assert len(app.model.book) == 4 * 10
    assert "10 s of 20 s" in text_of(app)


def test_the_latest_moment_is_shown(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slider moves on while the snapshot of another moment is taken."""
    taken, go_on = threading.Event(), threading.Event()
    table = Recorded.table

    def slow(self: Recorded, previous: Table | None) -> Table:
        found = table(self, previous)
        taken.set()
        go_on.wait()
        return found

    async def move_on(app: Top, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(Recorded, "table", slow)
        app.action_step(-10)
        await asyncio.to_thread(taken.wait)
        app.action_step(-5)
        go_on.set()
        await settle(pilot)

    app = drive(script=move_on)
    assert app.recorded
    assert app.recorded.now_ns() == app.recorded.span[1] - 15 * SECOND
    assert {*app.model.table.part.rows["ts_ns"].tolist()} == {app.recorded.now_ns()}


def test_playing_goes_on_and_stops_at_the_end(drive: Drive) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("left", "left", "space")
        await settle(pilot)
        for _ in range(4):
            app._tick()
            await settle(pilot)

    app = drive(script=play)
    assert app.held
    assert app.recorded
    assert app.recorded.now_ns() == app.recorded.span[1]


def test_export(drive: Drive, tmp_path: Path) -> None:
    target = tmp_path / "one.json"

    async def export(app: Top, pilot: Pilot[None]) -> None:
        app.screen.query_one(Input).value = str(target)
        await pilot.press("enter")
        await settle(pilot)

    drive("down", "e", script=export)
    assert '"kind":"snapshot"' in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o600


def test_copy(drive: Drive) -> None:
    app = drive("c")
    assert app.clipboard.startswith("nginx[431]+1")


@pytest.mark.parametrize("view", ["1", "2", "3", "4", "5", "6"])
def test_a_terminal_of_no_size_does_not_crash_it(drive: Drive, view: str) -> None:
    async def shrink(app: Top, pilot: Pilot[None]) -> None:
        for size in ((1, 1), (200, 60), (10, 2)):
            await pilot.resize_terminal(*size)
            await settle(pilot)

    assert drive("enter", view, script=shrink).return_code in (None, 0)


def test_pasted_garbage_does_not_crash_it(drive: Drive) -> None:
    async def paste(app: Top, pilot: Pilot[None]) -> None:
        from textual.events import Paste

        garbage = "".join(map(chr, range(0x300))) + "[bold]]][/]\U0010ffff"
        app.post_message(Paste(garbage))
        await settle(pilot)
        await pilot.press("slash")
        app.screen.query_one("#search", Input).post_message(Paste(garbage))
        await settle(pilot)
        await pilot.press("enter", "g", "g", "w", "q")

    assert drive(script=paste).return_code in (None, 0)


def test_every_key_in_every_view(drive: Drive) -> None:
    async def press_all(app: Top, pilot: Pilot[None]) -> None:
        keys = ("w", "escape", "g", "r", "x", "t", "space", "c", "end", "home", "pagedown", "enter")
        for view in "123456":
            await pilot.press(view, *keys)

    drive(script=press_all)
