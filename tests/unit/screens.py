"""What the tests of the screens share: the app over a recorded session, and pictures of it."""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

import textual
from textual.pilot import Pilot

from tcprism.diagnosis.feeds import Recorded
from tcprism.tui.app import Top
from tcprism.tui.model import Model

from .session import recorded

DRAWN_BY = "8.2.8"
PICTURES = Path(__file__).parents[1] / "golden/screens"

Script = Callable[[Top, Pilot[None]], Awaitable[None]]
Drive = Callable[..., Top]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are local; here that is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def drive(utc: None) -> Drive:
    """Run the app, press keys or follow a script, and return it."""

    def run(
        *keys: str,
        script: Script | None = None,
        size: tuple[int, int] = (120, 36),
        at_end: bool = True,
        feed: Recorded | None = None,
    ) -> Top:
        app = Top(Model(feed or recorded(), "out"), 1.0)
        app.animation_level = "none"

        async def session() -> None:
            async with app.run_test(size=size) as pilot:
                await settle(pilot)
                if at_end and app.recorded:
                    app._seek(app.recorded.span[1])
                    await settle(pilot)
                for key in keys:
                    await pilot.press(key)
                    await settle(pilot)
                if script:
                    await script(app, pilot)
                app.picture = app.export_screenshot()  # type: ignore[attr-defined]

        alone(session())
        return app

    return run


def alone(session: Coroutine[Any, Any, None]) -> None:
    """Run a session in a thread of its own: after a test with a browser, this one has a loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, session).result()


async def settle(pilot: Pilot[None]) -> None:
    """Wait until workers and messages are done, and the screen stays as it is."""
    before, picture = "", pilot.app.export_screenshot()
    while before != picture:
        before = picture
        await pilot.pause()
        while len(pilot.app.workers):
            await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        picture = pilot.app.export_screenshot()


def text_of(app: Top) -> str:
    """Return the words on the screen, a line each."""
    picture: str = app.picture  # type: ignore[attr-defined]
    words = re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>(.*?)</text>', picture)
    lines: dict[str, list[str]] = {}
    for y, word in words:
        lines.setdefault(y, []).append(word)
    text = "\n".join(" ".join(line) for line in lines.values())
    for entity, character in (("&#160;", " "), ("&gt;", ">"), ("&lt;", "<"), ("&#x27;", "'")):
        text = text.replace(entity, character)
    return re.sub(r" +", " ", text.replace("&amp;", "&"))


def same_picture(app: Top, name: str) -> None:
    """Compare the screen with the picture of that name; TCPRISM_PICTURES=new takes it anew."""
    if textual.__version__ != DRAWN_BY:
        pytest.skip(f"Textual {DRAWN_BY} drew the pictures; another one may draw otherwise")
    picture = re.sub(r"terminal-\d+", "terminal", app.picture)  # type: ignore[attr-defined]
    path = PICTURES / f"{name}.svg"
    if os.environ.get("TCPRISM_PICTURES") == "new":
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture)
    assert path.exists(), f"run the tests with TCPRISM_PICTURES=new, look at {path}, check it in"
    assert picture == path.read_text(), f"{name}: compare {path} with what the test shows"
