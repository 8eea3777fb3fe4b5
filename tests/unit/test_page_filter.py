"""Filters of the page: expressions as of `--where`, and the completion of what is typed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.web.store import Store
from tcprism.web.views import Views

from .asked import COUNT, SERVER_MS
from .million import million
from .page import has_text, page, url
from .records import requests
from .session import START

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("duckdb")

__all__ = ["page", "url"]


def found(views: Views, text: str) -> set[int]:
    answer = views.answer("requests", {"filter": text, "count": "500"})
    return {row["n"] for row in answer["rows"]}


def test_an_expression_holds_for_the_same_requests_however_they_came() -> None:
    """While more come and the oldest are forgotten; in batches whose requests are in no order."""
    store = Store(2 * 500 * 100)  # room for a hundred
    views = Views(store, "made", live=True)
    text = "where request_ns >= 300 and not failed or comm = 'x'"
    seen: dict[int, bool] = {}
    for first in range(0, 300, 10):
        numbers = [*range(first + 5, first + 10), *range(first, first + 5)]
        fields = [
            {
                "ts_ns": START + number,
                "start_ts_ns": START + number,
                "request_ns": (number * 7919) % 1000,
                "failed": number % 3 == 0,
                "pid": 1,
                "comm": b"x" if number % 50 == 0 else b"y",
            }
            for number in numbers
        ]
        for one in fields:
            took, failed, name = one["request_ns"], one["failed"], one["comm"]
            seen[len(seen)] = bool((took >= 300 and not failed) or name == b"x")
        store.write(Batch([requests(*fields)]))
        kept = range(store.requests.forgotten, len(seen))
        if first % 20:  # not always, so that several batches are new
            assert found(views, text) == {number for number in kept if seen[number]}
    assert store.requests.forgotten
    assert found(views, "where true") == set(kept)
    assert found(views, "where COLUMNS('.*failed') and true") == {
        number for number in kept if number in found(views, "failed")
    }
    assert found(views, "where ") == set(kept)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("stat = 1", r"^where: there is no column stat .*; write for example where \"method"),
        ("status = '5", "^where: unterminated string"),
        ("status = (SELECT 1 FROM 'x')", "^where: "),
    ],
)
def test_what_is_no_expression_is_one_sentence(expression: str, said: str) -> None:
    store = Store(64 << 20)
    for batch in million(10):
        store.write(batch)
    with pytest.raises(UsageError, match=said):
        Views(store, "made", live=True).answer("requests", {"filter": f"where {expression}"})


def test_an_expression_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcprism.web.expressions._LONGEST", 0.2)
    endless = "where (SELECT count(*) FROM range(1000000000000)) > 5"
    with pytest.raises(UsageError, match=r"^where: takes longer than 0\.2 s"):
        Views(Store(64 << 20), "made", live=True).answer("requests", {"filter": endless})


def options(page: Any) -> list[str]:
    """Return what is offered."""
    texts: list[str] = page.locator("[role=option] span:first-child").all_text_contents()
    return texts


def offered(page: Any, *first: str) -> None:
    """Wait until these are offered first."""
    from playwright.sync_api import expect

    for place, text in enumerate(first):
        expect(page.locator("[role=option] span:first-child").nth(place)).to_have_text(text)


@pytest.mark.browser
def test_an_expression_is_completed_by_keyboard(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("whe")
    offered(page, "where")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    offered(page, "protocol", "method", "resource", "status")
    page.keyboard.type("stat")
    offered(page, "status")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    offered(page, "=", "!=", "like")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert {"'200'", "'503'"} == set(options(page))
    page.keyboard.type("50")
    offered(page, "'503'")
    page.keyboard.press("ArrowUp")  # from the end
    page.keyboard.press("Enter")
    offered(page, "and", "or")
    assert page.input_value("input") == "where status = '503' "
    has_text(page, "[role=status]", f"1 of {COUNT + 2}")
    page.keyboard.press("Escape")
    assert options(page) == []
    assert page.evaluate("document.activeElement.tagName") == "INPUT"
    page.keyboard.type("or request_ns > 90e6")
    slow = sum(ms + 3 > 90 for ms in SERVER_MS)
    has_text(page, "[role=status]", f"{slow + 1} of {COUNT + 2}")
    page.keyboard.type(" and nothing = 1")
    has_text(page, ".wrong", re.compile("there is no column nothing"))
    page.fill("input", "")
    has_text(page, ".wrong", "")


@pytest.mark.browser
def test_words_are_completed_with_values_that_are_known(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.keyboard.press("/")
    page.keyboard.type("-item/3 ngi")
    offered(page, "nginx")
    assert page.get_attribute("input", "aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    active = page.get_attribute("input", "aria-activedescendant")
    assert page.locator(f"#{active}[aria-selected=true]").count() == 1
    violations = axe.run(page).response["violations"]
    assert not violations
    page.locator(f"#{active}").click()
    assert page.input_value("input") == "-item/3 nginx "
    has_text(page, "[role=status]", f"{COUNT} of {COUNT + 2}")
    page.keyboard.type("/item/7")
    assert options(page) == []  # it is whole
    page.get_by_role("link", name="Connections").click()
    page.wait_for_selector("[data-shown='connections'] h1", state="attached")
    page.fill("input", "")
    page.keyboard.press("ArrowDown")
    offered(page, "failed", "open", "repeated")


def test_the_manual_has_every_term() -> None:
    from tcprism.web.vocabulary import CONNECTION_TERMS, REQUEST_TERMS

    manual = (Path(__file__).parents[2] / "docs/web.md").read_text()
    for term in (*REQUEST_TERMS, *CONNECTION_TERMS):
        assert f"`{term.strip()}" in manual
