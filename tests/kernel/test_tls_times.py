"""Requests inside TLS: the parts of their time and what was lost, as without it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.slow_requests import (
    FIRST_PORT,
    GET,
    OK,
    SCENARIOS,
    Took,
    check_lost,
    check_parts,
    play,
)
from tests.support.tls import certificate
from tests.support.tracer import Event, tracing
from tests.support.wire import wired

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests


class InMemory:
    """A session that encrypts into memory, as under asyncio; what it needs of a socket."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, server: bool) -> None:
        self.plain = plain
        self._read, self._written = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._read, self._written, server_side=server)
        self.setsockopt, self.close = plain.setsockopt, plain.close

    def do_handshake(self) -> None:
        self._call(self._session.do_handshake)
        self._flush()

    def sendall(self, data: bytes) -> None:
        self._session.write(data)
        self._flush()

    def recv(self, size: int) -> bytes:
        data: bytes = self._call(lambda: self._session.read(size))
        return data

    def _call(self, function: Callable[[], Any]) -> Any:
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                self._flush()
                self._read.write(self.plain.recv(65536))

    def _flush(self) -> None:
        if self._written.pending:
            self.plain.sendall(self._written.read())


def on_socket(plain: socket.socket, context: ssl.SSLContext, server: bool) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_side=server, do_handshake_on_connect=False)


HOW: dict[str, Callable[[socket.socket, ssl.SSLContext, bool], Any]] = {
    "on sockets": on_socket,
    "in memory": InMemory,
}


def secured(
    client: socket.socket, server: socket.socket, files: tuple[str, str], how: str
) -> tuple[Any, Any]:
    """Return both ends with TLS, their handshake done."""
    asks = ssl.create_default_context()
    asks.check_hostname, asks.verify_mode = False, ssl.CERT_NONE
    responds = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    responds.load_cert_chain(*files)
    responds.num_tickets = 0  # nothing but what the scenario says is on its way
    there, here = HOW[how](server, responds, True), HOW[how](client, asks, False)
    other = threading.Thread(target=there.do_handshake)
    other.start()
    here.do_handshake()
    other.join()
    return here, there


Requests = dict[tuple[str, str], tuple[Event, Took]]
EACH = [(name, how) for name in SCENARIOS for how in HOW]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Requests:
    """The request of each scenario, seen by both ends."""
    folder: Path = tmp_path_factory.mktemp("requests")
    files = certificate(folder)
    took: dict[tuple[str, str], Took] = {}
    with wired() as wire:
        wire.send_again_late(wire.server)  # what the client sends again is counted
        ends = ("--netns", wire.client.path, "--netns", wire.server.path)
        with tracing(folder / "out", "--tls", *ends, view="requests") as tracer:
            for place, (name, how) in enumerate(EACH):
                pair = secured(*wire.connection(4, FIRST_PORT + place), files, how)
                with closing(pair[0]), closing(pair[1]):
                    took[name, how] = play(SCENARIOS[name], wire, *pair)
    events = [event for event in tracer.events if event["protocol"] == "http"]
    assert len(events) == len(EACH)
    by_scenario = {EACH[event["remote_port"] - FIRST_PORT]: event for event in events}
    return {each: (event, took[each]) for each, event in by_scenario.items()}


@pytest.mark.parametrize(("name", "how"), EACH)
def test_the_time_is_where_it_was_spent(requests: Requests, name: str, how: str) -> None:
    event, took = requests[name, how]
    assert event["request_state"] == "complete"
    check_parts(event, took, name)


@pytest.mark.parametrize(("name", "how"), EACH)
def test_sizes_are_those_of_the_plaintext(requests: Requests, name: str, how: str) -> None:
    event, _ = requests[name, how]
    assert (event["request_bytes"], event["response_bytes"]) == (len(GET), len(OK))


@pytest.mark.parametrize("how", HOW)
def test_a_lost_record_is_what_its_request_waited_for(requests: Requests, how: str) -> None:
    check_lost(*requests["the request is lost", how])
    others = [event for (name, _), (event, _) in requests.items() if "is lost" not in name]
    assert not any(
        event["retransmission_wait_ns"] for event in others if not event["retransmissions"]
    )
