"""Tracing goes on without segments that arrive where the kernel does not show those."""

from typing import Any, Self

import pytest

from tcprism.diagnosis import arrivals
from tcprism.errors import KernelRefused
from tcprism.sources.request import Request


class Refusing:
    """Stands for a kernel that refuses what is asked of it beside transmit."""

    refuses: tuple[str, ...] = ()

    def __init__(self, request: Request) -> None:
        self.request = request

    def __exit__(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self.stopped += 1

    def __enter__(self) -> Self:
        self.stopped = 0
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


def test_segments_are_given_up_where_they_are_too_many(kernel: Any) -> None:
    with arrivals.Arrivals(Request(("transmit",)), 100) as segments:
        source: Any = segments.sources[0]
        segments.count(100)
        assert not segments.given_up
        segments.count(10_000)  # in much less than a minute
        segments.count(1)
        assert segments.given_up
        assert source.stopped == 1


def test_nothing_is_given_up_where_nothing_is_shown(kernel: Any) -> None:
    with arrivals.Arrivals(ALL, 100) as segments:
        assert segments.sources == []
        assert not segments.given_up
