"""Pushing metrics to a collector that refuses them for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tcprism.events.facts import Facts
from tcprism.metrics import instruments
from tcprism.metrics.otlp import Otlp, Url
from tcprism.metrics.series import Row
from tests.support.otlp import collecting


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_collector_that_refuses_is_said_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tcprism.metrics.otlp.EVERY", 0.01)
    with collecting() as collector:
        collector.refusal = 401
        rows = [Row((), 1.0, time.time())]
        otlp = Otlp(Url(collector.url), lambda: [(instruments.CPU, rows)])
        otlp.open(Facts(kinds=()))
        _await(lambda: otlp.dropped().counts["otlp_pushes_failed"] > 1)
        collector.refusal = 0
        _await(lambda: bool(collector.pushed))
        otlp.close()
    assert capsys.readouterr().err.splitlines() == [
        f"{collector.url}/v1/metrics takes no metrics (HTTP status 401): they will come when it"
        " does",
        f"{collector.url}/v1/metrics takes metrics again",
    ]


def test_a_later_failure_is_not_said_with_the_status_of_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the exporter's own libraries raise: then there is no status."""
    with collecting() as collector:
        otlp = Otlp(Url(collector.url), lambda: [(instruments.CPU, [Row((), 1.0, time.time())])])
        for refusal in (401, 0):
            collector.refusal = refusal
            otlp._push()
        monkeypatch.setattr(otlp, "_exporter", None)
        otlp._push()
    said = [line.removeprefix(collector.url) for line in capsys.readouterr().err.splitlines()]
    assert said[2:] == ["/v1/metrics takes no metrics: they will come when it does"]
    assert "401" in said[0]
