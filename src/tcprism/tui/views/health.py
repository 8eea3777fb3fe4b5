"""The health of tcprism itself: the ledger, the hooks in use, its CPU and memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from tcprism.tui.model import Model
from tcprism.tui.views import View

_PAGE = resource.getpagesize()


class HealthView(View):
    """A page of text."""

    focus_id: ClassVar[str] = "health-scroll"

    def __init__(self, model: Model, id: str) -> None:
        super().__init__(model, id)
        self._cpu = 0.0
        self._wall = time.monotonic()
        self._spent = time.process_time()

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="health-scroll"):
            yield Static("", id="health-text", markup=False)

    def update_view(self) -> None:
        self._measure()
        self.query_one("#health-text", Static).update("\n".join(self._lines()))

    def _measure(self) -> None:
        wall, spent = time.monotonic(), time.process_time()
        if wall - self._wall >= 1:
            self._cpu = (spent - self._spent) / (wall - self._wall)
            self._wall, self._spent = wall, spent

    def _lines(self) -> Iterator[str]:
        yield "THIS PROGRAM"
        yield f"  CPU     {self._cpu * 100:.1f} % of a core"
        yield f"  memory  {_resident() / 1e6:.0f} MB, the rings included (each counts twice)"
        yield f"  pid     {os.getpid()}"
        yield ""
        yield "HOOKS"
        choices = self.model.feed.choices
        if not choices:
            yield "  none: no view of this moment needs any; snapshots cost nothing a packet"
        for choice in choices:
            yield f"  {choice.probe.family:<11} {choice.hook.name if choice.hook else 'nothing'}"
            for limit in choice.hook.cannot_tell if choice.hook else ():
                yield f"  {'':<11}   cannot tell: {limit}"
        yield ""
        yield "LEDGER"
        ledger = self.model.feed.ledger()
        lines = ledger.whole() if ledger else ["no events were asked for"]
        yield from (f"  {line}" for line in lines)


def _resident() -> int:
    """Return the bytes of memory in use."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
