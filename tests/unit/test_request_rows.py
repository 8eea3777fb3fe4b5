"""Moments of what a server sends unasked, with each of its ends seen or not."""

import pytest

from tcprism.protocols import Exchange
from tcprism.stages.request_rows import moments, split
from tcprism.stages.timeline import Timeline

PUSH = Exchange("websocket", "text", "", None, None, 5000, 5100, answered=False)


def timelines() -> tuple[Timeline, Timeline]:
    """Nothing asked; the response written from 1 to 2 ms, arrived at 3 and read at 5 ms."""
    response = Timeline()
    response.written.add(5100, 2_000_000, 1_000_000)
    response.read.add(5100, 5_000_000, 2_000)
    return Timeline(), response


@pytest.mark.parametrize(
    ("client", "server", "parts"),
    [
        (True, True, {"network_back_ns": 2_000_000, "unread_ns": 2_000_000}),
        (False, True, {"transfer_ns": 1_000_000}),
        (True, False, {"unread_ns": 2_000_000}),
    ],
)
def test_a_push_takes_from_its_writing_to_its_reading(
    client: bool, server: bool, parts: dict[str, int]
) -> None:
    request, response = timelines()
    if not client:
        response.read = Timeline().read
    if not server:
        response.written = Timeline().written
    found, _ = split(moments(PUSH, request, response, client, server), server)
    assert found.items() >= parts.items()
