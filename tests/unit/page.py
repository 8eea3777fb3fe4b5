"""The page's server for tests, and a browser that opens it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import pytest

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind

from .asked import CLIENT, MS, SERVER
from .records import messages
from .session import CLOCK_OFFSET, START

TCPRISM = Path(sys.executable).with_name("tcprism")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MARKUP = "<img/src=x/onerror=document.title=1>"


@contextmanager
def viewed(*arguments: str) -> Iterator[str]:
    """Run `tcprism view`; yield the address that it prints."""
    command = [str(TCPRISM), "view", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
        process.wait(30)


def answer(url: str, path: str, cookie: str = "") -> tuple[HTTPResponse, bytes]:
    """Ask the server of an address for a path, and follow nothing."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    response = connection.getresponse()
    return response, response.read()


def cookie_of(url: str) -> str:
    """Return the cookie that who comes with the token gets."""
    at = urlsplit(url)
    response, _ = answer(url, f"{at.path}?{at.query}")
    return response.headers["Set-Cookie"].partition(";")[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = which("chromium") or which("chromium-browser")
    if not chromium:
        pytest.skip("there is no Chromium (Debian: chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


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
