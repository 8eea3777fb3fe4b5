"""The latency heatmap: its cells are the requests of the table, and a choice of them filters it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcprism.events import Batch
from tcprism.web.heatmap import COLUMNS_MAX
from tcprism.web.store import Store
from tcprism.web.views import Views

from .asked import COUNT, MS, SERVER_MS, asked
from .page import TCPRISM, at_rest, chosen, has_text, page, url
from .recordings import written
from .records import requests
from .session import START

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

__all__ = ["page", "url"]

RANDOM = np.random.default_rng(7)


def _views(took: list[int], began: list[int], failed: list[bool]) -> Views:
    store = Store(64 << 20)
    part = requests(
        *(
            {"ts_ns": START + b, "start_ts_ns": START + b, "request_ns": t, "failed": f}
            for t, b, f in zip(took, began, failed, strict=True)
        )
    )
    store.write(Batch([part]))
    return Views(store, "made", live=False)


@pytest.mark.parametrize("most", [3, 1_000, 10**12])
def test_each_cell_is_what_the_table_shows_of_it(most: int) -> None:
    """Whatever the scale, also where durations are whole nanoseconds on the limits of rows."""
    took = [0, 1, 2, 10, 100, 99, *np.geomspace(1, most, 100).astype(int).tolist()]
    began = [0, *np.sort(RANDOM.integers(0, most, len(took) - 1)).tolist()]
    failed = [number % 7 == 0 for number in range(len(took))]
    views = _views(took, began, failed)
    found = views.answer("heatmap", {})
    cells = {(column, row): (n, bad) for column, row, n, bad in found["cells"]}
    assert sum(n for n, _ in cells.values()) == len(took)
    assert len(found["began"]) <= COLUMNS_MAX
    for column, since in enumerate(found["began"]):
        for row, (least, limit) in enumerate(zip(found["took"], found["took"][1:], strict=False)):
            query = {
                "since": since, "until": since + found["width"] - 1,
                "took_least": least, "took_most": limit - 1,
            }  # fmt: skip
            texts = {name: str(value) for name, value in query.items()}
            shown = [
                views.answer("requests", {**texts, "filter": text})["found"]
                for text in ("", "failed")
            ]
            inside = [
                (since <= b <= since + found["width"] - 1 and least <= t < limit, f)
                for t, b, f in zip(took, began, failed, strict=True)
            ]
            truth = sum(i for i, _ in inside), sum(i and f for i, f in inside)
            assert cells.get((column, row), (0, 0)) == truth == tuple(shown)


def test_what_has_no_duration_is_counted() -> None:
    views = _views([2**64 - 1, 5], [0, 0], [False, True])
    assert views.answer("heatmap", {})["unknown"] == 1
    assert sum(cell[2] for cell in views.answer("heatmap", {})["cells"]) == 1
    assert views.answer("requests", {"took_most": "9"})["found"] == 1
    assert views.answer("heatmap", {"filter": "no-such-word"})["cells"] == []


def _drag(page: Any, since: float, until: float, top: float, bottom: float) -> None:
    """Drag over a part of the heatmap: shares of its width and height."""
    at_rest(page)
    box = page.locator(".heatmap").bounding_box()
    page.mouse.move(box["x"] + since * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + until * box["width"], box["y"] + bottom * box["height"], steps=4)
    page.mouse.up()


@pytest.mark.browser
def test_a_choice_filters_the_table_and_a_link_keeps_it(page: Any, browser: Any, url: str) -> None:
    chosen(page, "item", COUNT)
    has_text(page, ".heatmap + .chart-said", f"{COUNT} requests, red: 1 failed")
    _drag(page, 0.02, 0.03, 0.02, 0.3)  # left of the cells: whenever, the longest ones
    page.wait_for_url(re.compile("took_least="))
    least = int(re.findall(r"took_least=(\d+)", page.url)[0])
    slow = [ms for ms in SERVER_MS if (ms + 3) * MS >= least]
    assert 0 < len(slow) < COUNT
    has_text(page, "[role=status]", f"{len(slow)} of {COUNT + 2}")
    context = browser.new_context()
    other = context.new_page()
    other.goto(f"{url}#{page.url.partition('#')[2]}")
    has_text(other, "[role=status]", f"{len(slow)} of {COUNT + 2}")
    has_text(other, ".chip", page.locator(".chip").text_content())
    context.close()
    page.locator(".chip").click()
    has_text(page, "[role=status]", f"{COUNT} of {COUNT + 2}")
    assert "took_least" not in page.url


@pytest.mark.browser
def test_a_choice_by_keyboard(page: Any) -> None:
    chosen(page, "item", COUNT)
    has_text(page, ".heatmap + .chart-said", f"{COUNT} requests, red: 1 failed")
    page.locator(".heatmap").focus()
    page.keyboard.press("ArrowLeft")  # the last column, the longest
    for _ in range(200):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    has_text(page, "[role=status]", f"1 of {COUNT + 2}")
    has_text(page, ".body .row", re.compile(f"/item/{COUNT}"))
    page.locator(".heatmap").focus()
    page.keyboard.press("Escape")
    has_text(page, "[role=status]", f"{COUNT} of {COUNT + 2}")


@pytest.mark.browser
def test_a_late_answer_does_not_replace_a_newer_one(page: Any) -> None:
    held: list[Any] = []
    item = re.compile(r"/api/heatmap\?filter=item")
    page.route(item, lambda route: held.append(route))
    with page.expect_request(item):
        page.fill("input", "item")
    page.fill("input", "failed")
    has_text(page, ".heatmap + .chart-said", "1 request, red: 1 failed")
    with page.expect_response(item) as late:
        held.pop().continue_()
    late.value.finished()
    page.wait_for_timeout(100)
    assert page.locator(".heatmap + .chart-said").text_content() == "1 request, red: 1 failed"


@pytest.mark.browser
def test_a_report_has_it(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "asked.tcpr", asked())
    report = tmp_path / "report.html"
    subprocess.run([str(TCPRISM), "report", str(path), "-o", str(report)], check=True)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{report.as_uri()}#/requests")
    has_text(page, ".heatmap + .chart-said", re.compile("red: 1 failed"))
    chosen(page, "item", COUNT)
    has_text(page, ".heatmap + .chart-said", f"{COUNT} requests, red: 1 failed")
    least = 70 * MS
    page.goto(f"{report.as_uri()}#/requests?filter=item&took_least={least}")
    slow = sum((ms + 3) * MS >= least for ms in SERVER_MS)
    has_text(page, "[role=status]", f"{slow} of {COUNT + 1}")
    context.close()
