"""A million requests in the page: rows are right wherever one scrolls, and scrolling is smooth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tcprism.web.server import Server
from tcprism.web.store import Store
from tcprism.web.views import Views
from tests.support.browser import SCROLLING

from .million import FAILED, RESOURCES, million
from .page import has_text

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

pytestmark = pytest.mark.browser

COUNT = 1_000_000
ROWS = """() => [...document.querySelectorAll('.body .row')].map((row) =>
    [Number(row.getAttribute('aria-rowindex')), row.innerText])"""

ALL_THERE = """() => [...document.querySelectorAll('.body .row')].every(
    (row) => row.querySelector('.split span'))"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    store = Store(1 << 30)
    for batch in million(COUNT):
        store.write(batch)
    store.end()
    server = Server(Views(store, "a million", live=False), "127.0.0.1", 0)
    server.start()
    yield server.url
    server.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}#/requests?sort=start")
    has_text(page, "[role=status]", f"{COUNT:,}")
    yield page
    context.close()


def shown(number: int) -> set[str]:
    """Return what a row says of a request, by how million() makes it."""
    took = number % 977 + 1
    status = "503 failed" if number % FAILED == 0 else "200"
    return {f"http GET /item/{number % RESOURCES}", f"{took} ms", status}


def test_rows_are_right_wherever_one_scrolls(page: Any) -> None:
    for share in (0.5, 0.123, 0.987, 1, 0):
        first = int((COUNT - 30) * share)
        page.evaluate("(top) => { document.querySelector('.grid').scrollTop = top }", first * 28)
        page.wait_for_selector(f".body .row[aria-rowindex='{first + 12}'] .split span")
        page.wait_for_function(ALL_THERE)  # others may be of another block, which comes later
        rows = page.evaluate(ROWS)
        assert len(rows) > 10
        for index, text in rows:
            assert shown(index - 2) <= set(text.splitlines())  # counted from 1, after the heads


def test_it_scrolls_about_as_smoothly_as_the_page_rests(page: Any) -> None:
    """As a share of what this machine draws at the same time when nothing moves."""
    found = page.evaluate(SCROLLING, 90)
    assert found["moved"] == 900  # rows
    assert found["scrolling"] > 0.4 * found["resting"]
    assert found["drawn"] > 0.3  # of the frames had all rows; the others wait for the server


def test_a_filter_and_the_heatmap_take_all_of_them(page: Any) -> None:
    page.fill("input", "failed")
    has_text(page, "[role=status]", f"{COUNT // FAILED:,} of {COUNT:,}")
    text = f"{COUNT // FAILED:,} requests, red: {COUNT // FAILED:,} failed"
    has_text(page, ".heatmap + .chart-said", text)
    page.get_by_role("button", name="took").click()
    has_text(page, "[aria-rowindex='2']", re.compile("977 ms"))
