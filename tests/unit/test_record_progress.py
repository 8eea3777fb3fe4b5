"""The line on a terminal that says how recording goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tcprism.cli.record import Progress


def test_events_bytes_rate_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    files: Any = SimpleNamespace(events=0, size=0)
    progress = Progress()
    files.events, files.size = 12_345, 678_901
    progress.show(files, 7)
    progress.end()
    shown, cleared = capsys.readouterr().err.split("\r")[1:]
    assert "12,345 events, 678,901 bytes" in shown
    assert "events/s, 7 lost" in shown
    assert cleared == "\x1b[K"
