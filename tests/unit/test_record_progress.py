"""The line on a terminal that says how recording goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tcprism.cli.record import Progress
from tcprism.events.ledger import Entry, Ledger


def test_events_bytes_rate_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    files: Any = SimpleNamespace(events=0, size=0)
    progress = Progress(files)
    files.events, files.size = 12_345, 678_901
    progress.account(Ledger((Entry("send", 9, 0, 0, 2, 7, 0, 0, 0, 2, 0, 0),)))
    progress.close()
    shown, cleared = capsys.readouterr().err.split("\r")[1:]
    assert "12,345 events, 678,901 bytes" in shown
    assert "events/s, 7 lost" in shown
    assert cleared == "\x1b[K"
