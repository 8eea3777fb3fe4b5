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
