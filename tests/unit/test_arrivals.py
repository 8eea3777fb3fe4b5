"""Tracing goes on without segments that arrive where the kernel does not show those."""

from typing import Any, Self

import numpy as np
import pytest

from tcprism.diagnosis import arrivals
from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events.kinds import RECORDS
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing


class Refusing:
    """Stands for a kernel that refuses what is asked of it beside transmit."""

    refuses: tuple[str, ...] = ()

    def __init__(self, request: Request) -> None:
        self.request = request

    def __enter__(self) -> Self:
        if set(self.request.kinds) & set(self.refuses):
            raise KernelRefused("no")
        return self


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(arrivals, "Tracing", Refusing)
    monkeypatch.setattr(Refusing, "refuses", ("receive",))
    return Refusing


ALL = Request(("transmit", "receive"), options=True)


def test_the_rest_is_traced(kernel: Any) -> None:
    assert arrivals.entered(ALL).request == Request(("transmit",))


def test_what_is_refused_for_another_reason(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refusing, "refuses", ("transmit",))
    for request in (ALL, Request(("transmit",))):
        with pytest.raises(KernelRefused):
            arrivals.entered(request)


def test_segments_are_given_up_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    coming = [segments(100), segments(10_000), segments(1)]  # in much less than a minute
    left = [segments(7), segments(7), Batch(())]
    stopped: list[Tracing] = []
    monkeypatch.setattr(Tracing, "read", lambda *_: coming.pop(0))
    monkeypatch.setattr(Tracing, "drain", lambda *_: left.pop(0))
    monkeypatch.setattr(Tracing, "stop", lambda tracing: stopped.append(tracing))
    monkeypatch.setattr(Tracing, "__enter__", lambda tracing: tracing)
    tracing = arrivals.Arrivals(ALL, 100).__enter__()
    assert len(tracing.read()) == 100
    assert not tracing.given_up
    assert len(tracing.read()) == len(tracing.read()) == len(tracing.drain()) == 0
    assert tracing.given_up
    assert stopped == [tracing]
    assert not left


def segments(count: int) -> Batch:
    return Batch([Part(np.zeros(count, RECORDS["segment"]))])
