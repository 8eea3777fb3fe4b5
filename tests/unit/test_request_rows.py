"""Moments of what a server sends unasked, with each of its ends seen or not."""

import pytest

from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation
from tcprism.stages.ends import Connection, View
from tcprism.stages.request_rows import answered, moments, split
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


def test_a_long_request_keeps_its_moments_while_others_come_and_go() -> None:
    connection = Connection((b"", b""), Conversation(()))
    connection.conversation.client = 0
    connection.views[0] = View(connection, 0, 1)
    request, response = connection.timelines
    for number in range(1000):
        request.written.add(100 * (number + 1), number + 10, number)
        response.read.add(100 * (number + 1), number + 20, 0)
    long = Exchange("http2", "GET", "/long", 0, 100, 99_900, 100_000)
    connection.finished.append(long)
    for number in range(1, 999):
        begin, end = 100 * number, 100 * (number + 1)
        found = answered(connection, Exchange("http2", "GET", "/", begin, end, begin, end))
        assert found.fields["start_ts_ns"] == number
    assert answered(connection, long).fields["start_ts_ns"] == 0


def test_bytes_of_others_between_the_ends_are_not_counted() -> None:
    connection = Connection((b"", b""), Conversation(()))
    connection.conversation.client = 0
    connection.views[0] = View(connection, 0, 1)
    exchange = Exchange("http2", "GET", "/", 0, 100, 0, 5000, request_bytes=60, response_bytes=70)
    fields = answered(connection, exchange).fields
    assert (fields["request_bytes"], fields["response_bytes"]) == (60, 70)
