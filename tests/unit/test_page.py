"""The page in a browser: Chromium, as a user sees it."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .asked import COUNT, asked
from .page import (
    MARKUP,
    TCPRISM,
    at_rest,
    await_same_text,
    chosen,
    has_other_text,
    has_text,
    marked_up,
    page,
    url,
    viewed,
)
from .recordings import written

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

pytestmark = pytest.mark.browser
__all__ = ["page", "url"]


def test_the_token_is_in_no_address_that_stays(page: Any) -> None:
    assert "token" not in page.url
    assert page.evaluate("document.cookie") == ""


def test_requests_are_filtered_sorted_and_opened_by_keyboard(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("item took>72.9ms")
    has_text(page, "[role=status]", re.compile("^4 of"))
    page.get_by_role("button", name="took").click()
    has_text(page, ".body .row[aria-rowindex='2']", re.compile("/item/3"))
    page.get_by_role("grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    has_text(page, "h1", "http GET /item/9")
    page.go_back()
    has_text(page, "[role=status]", re.compile("^4 of"))
    assert "sort=-took" in page.url
    assert page.input_value("input") == "item took>72.9ms"


@pytest.mark.parametrize("late", [0, 100])
def test_rows_in_sight_stay_until_all_of_a_new_answer_is_there(page: Any, late: int) -> None:
    """The count is that of the rows, whichever block of them is answered last."""
    has_text(page, "[role=status]", "11")
    held: list[Any] = []
    page.route(re.compile(f"filter=failed&first={late}&"), lambda route: held.append(route))
    with page.expect_response(re.compile(f"filter=failed&first={100 - late}&")) as other:
        page.fill("input", "failed")
    other.value.finished()
    page.wait_for_timeout(100)
    assert page.locator("[role=status]").text_content() == "11"
    assert page.locator(".body .row .split span").count() > 1
    for route in held:
        route.continue_()
    has_text(page, "[role=status]", "1 of 11")
    assert page.locator(".body .row").count() == page.locator(".body .row .split").count() == 1


def test_a_screen_that_waits_for_its_answer_says_so(page: Any) -> None:
    said = "getComputedStyle(document.getElementById('main'), '::before').content"
    held: list[Any] = []
    page.route(re.compile("/api/map"), lambda route: held.append(route))
    with page.expect_request(re.compile("/api/map")):
        page.get_by_role("link", name="Map").click()
    page.wait_for_selector("main[aria-busy]")
    assert page.locator(".row").count() > 1  # those of the screen before
    held.pop().continue_()
    has_text(page, "h1", "Who talks to whom")
    page.wait_for_selector("main:not([aria-busy])")
    with page.expect_request(re.compile("/api/map")):
        page.reload()
    page.wait_for_selector("main[aria-busy]")
    assert "Loading" in page.evaluate(said)
    held.pop().continue_()
    page.wait_for_selector("main:not([aria-busy])")
    assert page.evaluate(said) == "none"


def test_what_is_refused_is_asked_once(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.fill("input", "where nothing = ")
    page.wait_for_selector(".wrong:not(:empty)")
    page.wait_for_timeout(300)
    assert len([url for url in asked if "/api/requests" in url]) == 2  # a block each


def test_a_mark_is_explained(page: Any) -> None:
    chosen(page, "failed", 1)
    page.locator(".body .row").first.click()
    page.wait_for_selector(".proven h2")  # comes last, and moves the rest
    at_rest(page)
    page.locator(".axis rect.retransmit").first.hover(force=True)
    has_text(page, ".said", re.compile("were sent again: .*tail loss probe"))
    page.locator(".axis").focus()
    page.keyboard.press("Home")
    has_text(page, ".said", re.compile("GET /item/5"))


def test_a_link_reproduces_a_view(page: Any, browser: Any, url: str) -> None:
    page.locator(".body .row").first.click()
    page.wait_for_selector(".axis rect.send")
    whole = page.locator(".axis").text_content()
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_url(re.compile("since="))
    has_other_text(page, ".axis", whole)
    fragment = page.url.partition("#")[2]
    context = browser.new_context()
    other = context.new_page()  # another viewer
    other.goto(f"{url}#{fragment}")
    other.wait_for_selector(".axis .tick", state="attached")
    assert other.url.partition("#")[2] == fragment
    await_same_text(page, other, ".axis")
    context.close()


def test_markup_in_bytes_stays_text(page: Any) -> None:
    chosen(page, "onerror", 1)
    page.locator(".body .row").first.click()
    page.wait_for_selector(".axis rect.send")
    page.locator(".axis").focus()
    page.keyboard.press("Home")
    has_text(page, ".said pre", re.compile(re.escape(MARKUP)))
    has_text(page, "h1", re.compile(re.escape(MARKUP)))
    assert page.locator("img").count() == 0
    page.get_by_role("link", name="Connections").click()
    has_text(page, ".body", re.compile("<script>"))
    assert page.locator("main script").count() == 0
    assert page.title() == "connections - tcprism"


def test_what_is_shown_is_saved(page: Any) -> None:
    chosen(page, "item", COUNT)
    with page.expect_download() as found:
        page.get_by_role("button", name="Save as CSV").click()
    lines = Path(found.value.path()).read_text().splitlines()
    assert len(lines) == 1 + COUNT
    assert {re.findall(r"/item/\d", line)[0] for line in lines[1:]} == {
        f"/item/{number}" for number in range(1, COUNT + 1)
    }


SCREENS = (
    "overview", "requests", "connections", "requests/4", "connections/0", "map", "explain",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, url: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    for screen in SCREENS:
        page.evaluate(f"location.hash = '#/{screen}'")
        page.wait_for_selector(f"[data-shown='{screen}'] h1", state="attached")
        found = axe.run(page)
        assert not found.response["violations"], found.generate_report()
        assert found.response["passes"]
    context.close()


def test_a_narrow_window_has_all(browser: Any, url: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.goto(url)
    for screen in SCREENS:
        page.evaluate(f"location.hash = '#/{screen}'")
        page.wait_for_selector(f"[data-shown='{screen}'] h1", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_a_report_needs_no_server_and_loads_nothing(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "asked.tcpr", [*asked(), marked_up()])
    report = tmp_path / "report.html"
    subprocess.run([str(TCPRISM), "report", str(path), "-o", str(report)], check=True)
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    asked_for: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto(report.as_uri() + "#/requests")
    chosen(page, "item took>72.9ms", 4)
    chosen(page, "failed", 1)
    page.locator(".body .row").first.click()
    page.wait_for_selector(".axis rect.retransmit")
    page.goto(report.as_uri() + "#/requests?filter=onerror")
    page.locator(".body .row").first.click()
    has_text(page, "h1", re.compile(re.escape(MARKUP)))
    for screen in ("overview", "map", "explain"):
        page.goto(report.as_uri() + f"#/{screen}")
        page.wait_for_selector(f"[data-shown='{screen}'] h1", state="attached")
    context.close()
    assert not complaints
    assert {address.partition("#")[0] for address in asked_for} == {report.as_uri()}


def test_a_server_that_was_started_anew_says_so(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "asked.tcpr", asked())
    context = browser.new_context()
    page = context.new_page()
    with socket.socket() as held:  # nobody else gets the port between the two
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        again = (str(path), "--listen", f"127.0.0.1:{held.getsockname()[1]}")
        with viewed(*again) as first:
            page.goto(f"{first}#/requests")
            page.wait_for_selector(".body .row .split span")
        has_text(page, "#source", re.compile("no connection|ended"))
        with viewed(*again):
            page.wait_for_selector("text=tcprism has been started anew")
    context.close()
