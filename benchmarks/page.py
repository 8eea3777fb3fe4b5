"""The page with a million requests: how long its answers take, and how smoothly it scrolls."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_least
from tcprism.web.server import Server
from tcprism.web.store import Store
from tcprism.web.views import Views
from tests.support.browser import SCROLLING, chromium
from tests.unit.million import million

COUNT = 1_000_000
QUERIES = {
    "a window": {"first": "500000"},
    "sorted by time taken": {"sort": "-took"},
    "filter: a word": {"filter": "item/77"},
    "filter: where status = '503'": {"filter": "where status = '503'"},
}
FRAMES = at_least(50, "{:.0f} frames/s")


def run(rounds: Rounds) -> None:
    """Print the tables."""
    store = Store(1 << 30)
    for batch in million(COUNT):
        store.write(batch)
    store.end()
    views = Views(store, "a million", live=False)
    answers = Table(
        "The page, a million requests: CPU time of answers", ("answer", "first", "again")
    )
    for name, query in QUERIES.items():
        answers.add(name, *(f"{_answered(views, 'requests', query):.1f} ms" for _ in range(2)))
    answers.add("heatmap", *(f"{_answered(views, 'heatmap', {}):.1f} ms" for _ in range(2)))
    answers.print()
    _scroll(views, rounds.pick(1, 3, 9))


def _answered(views: Views, name: str, query: dict[str, str]) -> float:
    begin = time.process_time()
    views.answer(name, query)
    return 1000 * (time.process_time() - begin)


def _scroll(views: Views, times: int) -> None:
    server = Server(views, "127.0.0.1", 0)
    server.start()
    table = Table("Scrolling by ten rows a frame", ("", "figure", "target", ""))
    try:
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f"{server.url}#/requests")
            page.wait_for_selector(".body .row .split span")
            found: list[dict[str, Any]] = [page.evaluate(SCROLLING, 180) for _ in range(times)]
    finally:
        server.close()
    table.add("at rest", f"{median(one['resting'] for one in found):.0f} frames/s", "", "")
    table.add("scrolling", *FRAMES.cells(median(one["scrolling"] for one in found)))
    drawn = median(one["drawn"] for one in found)
    table.add("frames with every row's text", f"{100 * drawn:.0f} %", "", "")
    table.print()
