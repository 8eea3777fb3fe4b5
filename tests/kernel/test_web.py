"""`tcprism web` and `tcprism serve --web`: the page shows what ab has asked for, while it runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Netns, namespace
from tests.support.nginx import nginx
from tests.support.serving import serving, statuses_of_threads
from tests.support.tracer import PATIENCE, TCPRISM, note_skipped, parse_ledger

pytestmark = pytest.mark.native

COUNT = 300
EXPRESSION = "where%20status%20%3D%20%27200%27%20and%20comm%20%3D%20%27ab%27"


class Page:
    """A viewer of the page who has its address."""

    def __init__(self, url: str) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.open(url, timeout=60).read()
        self._base = url.partition("?")[0]

    def ask(self, what: str) -> Any:
        """Return an answer."""
        with self._opener.open(f"{self._base}api/{what}", timeout=60) as answer:
            return json.load(answer)

    def await_total(self, what: str, count: int) -> Any:
        """Ask until there are so many rows, or for long enough."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.ask(what))["total"] < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def load(netns: Netns) -> None:
    said = netns.run("ab", "-q", "-n", str(COUNT), "http://127.0.0.1:8080/hello")
    assert re.search(rf"Complete requests:\s+{COUNT}\n", said)


def check(page: Page) -> None:
    try:
        check_all(page)
    finally:
        if ledger := page.ask("summary")["ledger_table"]:
            missed = {kind: row["missed"] for kind, row in parse_ledger(ledger).items()}
            note_skipped("the page", missed)


def check_all(page: Page) -> None:
    found = page.await_total("requests?filter=ab+/hello+200", COUNT)
    assert found["total"] == found["found"] == COUNT
    assert page.ask("connections?filter=ab+nginx")["found"] == COUNT
    cells = page.ask("heatmap?filter=ab")["cells"]
    assert sum(cell[2] for cell in cells) == COUNT
    deadline = time.monotonic() + PATIENCE  # the cost comes with the account, each second
    while (cost := (summary := page.ask("summary"))["cost"]) is None or not cost["bpf"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert summary["live"]
    assert not summary["lost"]
    assert 0 < cost["cpu"] < 60
    assert 0 < cost["bpf"] < 10


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    pytest.importorskip("uvicorn")
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")


def test_requests_are_there_while_they_are_made(tmp_path: Path) -> None:
    with namespace() as netns, nginx(netns, tmp_path):
        command = [TCPRISM, "web", "--netns", netns.path]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout
        try:
            viewers = [Page(url := process.stdout.readline().strip()), Page(url)]
            load(netns)
            for viewer in viewers:
                check(viewer)
        finally:
            process.terminate()
        assert process.wait(60) == 0


@pytest.mark.browser
def test_two_browsers_follow_what_happens(browser: Any, tmp_path: Path) -> None:
    """Neither is loaded again; one only looks at what failed."""
    playwright = pytest.importorskip("playwright.sync_api")
    with namespace() as netns, nginx(netns, tmp_path):
        command = [TCPRISM, "web", "--netns", netns.path]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout
        pages: list[Any] = []
        try:
            url = process.stdout.readline().strip()
            pages += [browser.new_context().new_page() for _ in range(2)]
            for page, query in zip(pages, ("", "?filter=failed"), strict=True):
                page.goto(f"{url}#/requests{query}")
                page.wait_for_selector(".grid .none")
            netns.run("ab", "-q", "-n", "30", "http://127.0.0.1:8080/broken")
            load(netns)
            for page, text in zip(pages, ("330", "30 of 330"), strict=True):
                status = page.locator("[role=status]")
                playwright.expect(status).to_have_text(text, timeout=60_000)
                assert page.locator(".body .row .split span").count()
                counted = page.locator("#health summary")
                playwright.expect(counted).to_contain_text("330 requests", timeout=60_000)
        finally:
            process.terminate()
            for page in pages:
                page.context.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_it_stays_on_without_privileges(user: str, tmp_path: Path) -> None:
    """All threads that answer have given up what test_serve_privileges.py checks."""
    options = ("--web", "127.0.0.1:0", "--requests", "--user", user)
    with (
        namespace() as netns,
        nginx(netns, tmp_path),
        serving(*options, "--netns", netns.path) as server,
    ):
        assert server.process.stdout
        url = server.process.stdout.readline().strip()
        page = Page(url)
        load(netns)
        check(page)
        if user == "root":  # DuckDB imports modules late, and Python may be root's alone
            assert page.ask(f"requests?filter={EXPRESSION}")["found"] == COUNT
        assert page.ask("explain")["total"] > 0
        statuses = statuses_of_threads(server.process.pid)
        assert len(statuses) >= 4
        for status in statuses:
            assert re.search(r"^CapEff:\t0+$", status, re.M)
            assert re.search(r"^Seccomp:\t2$", status, re.M)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.partition("?")[0])
        assert '"ab"' in server.get()  # the metrics are there, too
        assert server.stop() == 0
