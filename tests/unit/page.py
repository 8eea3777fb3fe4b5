"""The page's server for tests, and what a browser shows of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind
from tests.support.netns import PATIENCE

from .asked import CLIENT, MS, SERVER, asked
from .recordings import written
from .records import messages
from .session import CLOCK_OFFSET, START

TCPRISM = Path(sys.executable).with_name("tcprism")
MARKUP = "<img/src=x/onerror=document.title=1>"


@contextmanager
def viewed(*arguments: str) -> Iterator[str]:
    """Run `tcprism view`; yield the address that it prints, once it has read all."""
    command = [str(TCPRISM), "view", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            _await_end(url)
            yield url
        finally:
            process.terminate()


def _await_end(url: str) -> None:
    """Wait until the page has all events: before, it asks for them again by itself."""
    cookie, end = cookie_of(url), time.monotonic() + PATIENCE
    while not json.loads(answer(url, "/api/summary", cookie)[1])["ended"]:
        assert time.monotonic() < end
        time.sleep(0.01)


def answer(url: str, path: str, cookie: str = "") -> tuple[HTTPResponse, bytes]:
    """Ask the server of an address for a path, and follow nothing."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    response = connection.getresponse()
    return response, response.read()


def cookie_of(url: str) -> str:
    """Return the cookie that who comes with the token gets."""
    at = urlsplit(url)
    response, _ = answer(url, f"{at.path}?{at.query}")
    return response.headers["Set-Cookie"].partition(";")[0]


def marked_up() -> Batch:
    """Return a request whose path, payload and processes are markup."""
    request = f"GET /{MARKUP} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n" + MARKUP.encode()
    client = CLIENT | {"comm": MARKUP.encode()[:15], "local_port": 45_679}
    server = SERVER | {"comm": b"<script>1</scri", "remote_port": 45_679}
    sent, received = EventKind.SEND, EventKind.RECV
    asking = {"payload": request, "seq": 100}
    telling = {"payload": response, "seq": 900}
    parts: list[Part] = [
        messages(
            {**client, **asking, "kind": sent, "ts_ns": START},
            {**server, **asking, "kind": received, "ts_ns": START + MS},
            {**server, **telling, "kind": sent, "ts_ns": START + 2 * MS},
            {**client, **telling, "kind": received, "ts_ns": START + 3 * MS},
            payload_class=256,
        )
    ]
    return Batch(parts, CLOCK_OFFSET)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = written(tmp_path_factory.mktemp("page") / "asked.tcpr", [*asked(), marked_up()])
    with viewed(str(path)) as found:
        yield found


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """A page of requests; what its console says fails the test.

    It says what the server refuses, too, such as a filter that is not whole yet.
    """
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}#/requests")
    page.wait_for_selector(".body .row .split span")
    yield page
    context.close()
    assert not [text for text in complaints if "400 (Bad Request)" not in text]


def has_text(page: Any, selector: str, text: re.Pattern[str] | str) -> None:
    """Wait for a text; to wait inside the page would need eval(), which its policy forbids."""
    from playwright.sync_api import expect

    expect(page.locator(selector).first).to_have_text(text)


def has_other_text(page: Any, selector: str, text: str) -> None:
    """Wait until a text is gone."""
    from playwright.sync_api import expect

    expect(page.locator(selector).first).not_to_have_text(text)


def await_same_text(one: Any, other: Any, selector: str) -> None:
    """Wait until two pages show the same: they may draw it more than once."""
    end = time.monotonic() + PATIENCE
    while (text := one.locator(selector).text_content()) != other.locator(selector).text_content():
        assert time.monotonic() < end, text
        other.wait_for_timeout(50)


def at_rest(page: Any) -> None:
    """Wait until what is drawn anew when its size changes has been: charts, a frame later."""
    frame = "new Promise((drawn) => requestAnimationFrame(drawn))"
    for _ in range(3):
        page.evaluate(frame)


def chosen(page: Any, text: str, count: int) -> None:
    """Type a filter, and wait until it has chosen so many rows."""
    page.fill("input", text)
    has_text(page, "[role=status]", re.compile(f"^{count} of"))
    page.locator("input").blur()  # closes the list of completions
