"""`tcprism connections` and `tcprism retransmits`, against what the test itself did."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.tracer import Tracer

# What the hooks see has its tests elsewhere; views choose from that and sum it up.
pytestmark = pytest.mark.native

PORT, NOBODY = 8000, 8001
REQUEST, ANSWER = b"q" * 5000, b"a" * 777


@contextmanager
def viewing(view: str, netns: Netns, output: Path, *arguments: str) -> Iterator[Tracer]:
    """Run a view of the namespace while the body runs; it must end well."""
    tracer = Tracer(output, "--netns", netns.path, *arguments, view=view)
    try:
        tracer.await_attached()
        yield tracer
        netns.await_closed()
        assert tracer.stop() == 0
    finally:
        tracer.close()


@contextmanager
def connected(netns: Netns) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Have a connection inside the namespace; its client closes first."""
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", PORT))
        listener.listen()
        client.connect(("127.0.0.1", PORT))
        with listener.accept()[0] as server:
            server.settimeout(60)
            yield client, server
            client.close()


def receive(sock: socket.socket, count: int) -> bytes:
    return sock.recv(count, socket.MSG_WAITALL)


def talk(netns: Netns) -> None:
    """Make a connection with a request and an answer, and one that is refused."""
    with connected(netns) as (client, server):
        client.sendall(REQUEST)
        assert receive(server, len(REQUEST)) == REQUEST
        server.sendall(ANSWER)
        assert receive(client, len(ANSWER)) == ANSWER
    with netns.socket() as client, suppress(ConnectionRefusedError):
        client.connect(("127.0.0.1", NOBODY))


def test_each_connection_is_one_event_with_its_totals(netns: Netns, tmp_path: Path) -> None:
    with viewing("connections", netns, tmp_path / "output") as tracer:
        talk(netns)
    ends = {(event["kind"], event["remote_port"]): event for event in tracer.events}
    assert len(tracer.events) == len(ends) == 3
    refused = ends.pop(("connect", NOBODY))
    assert (refused["error"], refused["pid"]) == ("ECONNREFUSED", os.getpid())
    to_server = ends.pop(("close", PORT))
    (to_client,) = ends.values()
    for event, sent, received in ((to_server, REQUEST, ANSWER), (to_client, ANSWER, REQUEST)):
        assert (event["kind"], event["ending"]) == ("close", "fin")
        assert event["bytes_sent"] - event["bytes_retrans"] == len(sent)
        assert event["bytes_received"] in (len(received), len(received) + 1)  # with the FIN
        assert event["pid"] == os.getpid()


def test_connections_as_lines_below_a_header(netns: Netns, tmp_path: Path) -> None:
    with viewing("connections", netns, tmp_path / "output", "--format", "text"):
        talk(netns)
    header, *lines = (tmp_path / "output").read_text().splitlines()
    assert header.split()[:3] == ["time", "process", "local"]
    assert len(lines) == 3
    assert [line for line in lines if line.endswith(" ECONNREFUSED, 1 SYN")]
    assert len([line for line in lines if line.endswith(" fin") and " 5 kB" in line]) == 2


def test_what_is_sent_again_names_the_send_and_is_summed_up(netns: Netns, tmp_path: Path) -> None:
    with viewing("retransmits", netns, tmp_path / "output") as tracer:
        netns.drop_every(2, PORT)
        with connected(netns) as (client, server):
            for message in (b"first " * 100, b"second" * 100):
                client.sendall(message)
                assert receive(server, len(message)) == message
        netns.drop_nothing()
    again = [event for event in tracer.events if event["kind"] == "retransmit" and event["bytes"]]
    assert {event["kind"] for event in tracer.events} <= {"retransmit", "undo", "drop"}
    assert again
    for event in again:
        assert (event["comm"], event["pid"]) == (event["message_comm"], os.getpid())
        assert (event["message_offset"], event["message_bytes"]) == (0, 600)
        assert event["message_text"].startswith("second")
    causes = tracer.stderr.index(next(line for line in tracer.stderr if "by cause" in line))
    assert tracer.stderr[causes + 1].split()[0] in {event["cause"] for event in again}
    assert any(line.split()[0] == "127.0.0.1" for line in tracer.stderr[causes + 1 :])


def test_what_is_sent_again_names_no_send_where_none_is_traced(
    netns: Netns, tmp_path: Path
) -> None:
    """All calls have returned long before, and nobody could know where they began."""
    with viewing("trace", netns, tmp_path / "output", "--kinds", "retransmit,drop") as tracer:
        netns.drop_every(2, PORT)
        with connected(netns) as (client, server):
            for message in (b"first " * 100, b"second" * 100):
                client.sendall(message)
                assert receive(server, len(message)) == message
        netns.drop_nothing()
    again = [event for event in tracer.events if event["kind"] == "retransmit" and event["bytes"]]
    assert again
    for event in again:
        assert {event["message_offset"], event["message_pid"], event["message_bytes"]} == {None}
