"""What a screen shows, as a file and as a link; curves of the axis, and nodes of the map."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcprism.events import Batch
from tcprism.events._wire import WSCALE_KNOWN, WSCALE_SHIFT, EventKind
from tcprism.events.context import Context, Owner
from tcprism.events.names import TcpFlag
from tcprism.web.store import Store
from tcprism.web.views import Views

from .asked import CLIENT, COUNT, SERVER
from .page import await_same_text, has_text, page, url
from .records import messages, segments
from .session import START

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

__all__ = ["page", "url"]


def views_of(*parts: Any) -> Views:
    store = Store(64 << 20)
    store.write(Batch(parts))
    return Views(store, "made", live=False)


def scaled(by: int) -> int:
    return TcpFlag.ACK | WSCALE_KNOWN | by << WSCALE_SHIFT


def test_windows_are_those_that_an_end_offers() -> None:
    sent = {**CLIENT, "kind": EventKind.TRANSMIT, "ts_ns": START, "window": 501}
    came = {**CLIENT, "kind": EventKind.RECEIVE, "ts_ns": START + 1, "window": 64}
    later = {"flags": scaled(3), "window": 7, "ts_ns": START + 2}
    views = views_of(
        segments(
            {**sent, "flags": scaled(7)},
            {**came, "flags": scaled(10)},  # of the server, which is not seen
            {**sent, **later},
            {**SERVER, **came, **later, **{name: CLIENT[name] for name in CLIENT}},
            {**sent, "flags": TcpFlag.SYN | scaled(7), "ts_ns": START + 3},  # never scaled
            {**sent, "flags": TcpFlag.ACK, "ts_ns": START + 4},  # by how much is not known
        )
    )
    curves = views.answer("connection", {"n": "0"})["curves"]["window"]
    assert curves == [[[0, 501 << 7], [2, 7 << 3]], [[1, 64 << 10], [2, 7 << 3]]]


def test_what_an_end_sent_itself_goes_before_what_its_peer_got() -> None:
    of_client = {"flags": scaled(1), "window": 9}
    views = views_of(
        segments(
            {**CLIENT, **of_client, "kind": EventKind.TRANSMIT, "ts_ns": START},
            {**SERVER, **of_client, "kind": EventKind.RECEIVE, "ts_ns": START + 5},
        )
    )
    assert views.answer("connection", {"n": "0"})["curves"]["window"] == [[[0, 18]], []]


def test_processes_in_a_container_are_one_node_of_the_map() -> None:
    owners = {5: Owner(container="web"), 6: Owner(container_id="0123456789abcdef")}
    context = Context(owner=lambda cgroup: owners.get(cgroup, Owner()))
    made = []
    for port, pid in ((1, 11), (2, 12)):
        of: dict[str, Any] = {"kind": EventKind.SEND, "ts_ns": START, "bytes": 1}
        made += [
            {**CLIENT, **of, "local_port": port, "pid": pid, "cgroup_id": 5},
            {**SERVER, **of, "remote_port": port, "pid": 20 + pid, "cgroup_id": 6},
        ]
    views = views_of(replace(messages(*made), context=context))
    answer = views.answer("map", {})
    assert answer["clients"] == [{"name": "web", "word": "web", "kind": "container"}]
    name = "0123456789ab"
    assert answer["servers"] == [{"name": f"{name} :80", "word": name, "kind": "container"}]
    (edge,) = answer["edges"]
    assert edge["connections"] == 2
    assert views.answer("connections", {"filter": f"web {name}"})["found"] == 2
    assert views.answer("connections", {"filter": "others"})["found"] == 0


NOTE_WHAT_IS_SAID = """() => {
  const said = document.querySelector("#export span");
  const noted = document.createElement("p");
  noted.id = "noted";
  document.body.append(noted);
  const note = () => { noted.textContent ||= said.textContent; };
  new MutationObserver(note).observe(said, { childList: true });
}"""


def saved(page: Any, form: str) -> str:
    with page.expect_download() as found:
        page.get_by_role("button", name=f"Save as {form}").click()
    page.wait_for_timeout(150)  # Chromium ignores more than ten in a second
    return Path(found.value.path()).read_text()


def goto(page: Any, screen: str) -> None:
    page.evaluate(f"location.hash = '#/{screen}'")
    page.wait_for_selector(f"[data-shown='{screen.partition('?')[0]}'] h1", state="attached")


@pytest.mark.browser
def test_every_screen_is_saved_as_a_table_and_as_it_is(page: Any) -> None:
    counts = {"connections": 2, "map": 2, "requests": COUNT + 2}
    for screen in ("overview", "map", "explain", "requests", "connections"):
        goto(page, screen)
        rows = list(csv.DictReader(saved(page, "CSV").splitlines()))
        json.loads(saved(page, "JSON"))
        assert len(rows) == counts.get(screen, len(rows))
        if screen == "overview":
            assert len(rows) == len(json.loads(saved(page, "JSON"))["series"]["t"])
            assert sum(int(float(row["retransmitted.tlp"])) for row in rows) == 1
    for screen in ("requests/5", "connections/0"):
        goto(page, screen)
        page.wait_for_selector(".axis rect.send")
        whole = json.loads(saved(page, "JSON"))
        rows = list(csv.DictReader(saved(page, "CSV").splitlines()))
        assert [row["text"] for row in rows] == [mark["text"] for mark in whole["marks"]]
        assert whole["connection"]["n"] == 0


@pytest.mark.browser
def test_a_link_has_the_zoom_and_what_is_chosen(page: Any, browser: Any, url: str) -> None:
    goto(page, "connections/0")
    page.wait_for_selector(".axis rect.send")
    page.evaluate("document.querySelector('.axis').id = 'whole'")
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_selector(".axis:not(#whole) rect.send")
    assert "since=" in page.url
    page.locator(".axis").focus()
    page.keyboard.press("End")
    page.wait_for_url(re.compile("mark="))
    page.evaluate(NOTE_WHAT_IS_SAID)  # it is gone again after two seconds
    page.get_by_role("button", name="Copy link").click()
    has_text(page, "#noted", "copied")
    context = browser.new_context()
    other = context.new_page()
    other.goto(f"{url}#{page.url.partition('#')[2]}")
    await_same_text(page, other, ".said")
    await_same_text(page, other, ".axis")
    assert "token" not in page.url
    context.close()


@pytest.mark.browser
def test_a_link_has_the_row_that_is_chosen(page: Any, browser: Any, url: str) -> None:
    page.get_by_role("grid").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.wait_for_url(re.compile("row=3"))
    chosen = page.locator("[aria-selected=true]").text_content()
    context = browser.new_context()
    other = context.new_page()
    other.goto(f"{url}#{page.url.partition('#')[2]}")
    has_text(other, "[aria-selected=true]", chosen)
    context.close()
