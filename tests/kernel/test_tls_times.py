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

from tests.kernel.test_requests import BUSY, FIRST_PORT, GET, OK, SCENARIOS, SPLIT, WAIT
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


Requests = dict[tuple[str, str], Event]
EACH = [(name, how) for name in SCENARIOS for how in HOW]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Requests:
    """The request of each scenario, seen by both ends."""
    folder: Path = tmp_path_factory.mktemp("requests")
    files = certificate(folder)
    with wired() as wire:
        ends = ("--netns", wire.client.path, "--netns", wire.server.path)
        with tracing(folder / "out", "--tls", *ends, view="requests") as tracer:
            for place, (name, how) in enumerate(EACH):
                pair = secured(*wire.connection(4, FIRST_PORT + place), files, how)
                with closing(pair[0]), closing(pair[1]):
                    SCENARIOS[name].play(wire, *pair)
    events = [event for event in tracer.events if event["protocol"] == "http"]
    assert len(events) == len(EACH)
    return {EACH[event["remote_port"] - FIRST_PORT]: event for event in events}


@pytest.mark.parametrize(("name", "how"), EACH)
def test_the_time_is_where_it_was_spent(requests: Requests, name: str, how: str) -> None:
    event, part = requests[name, how], SCENARIOS[name].part
    assert (event["view"], event["request_state"]) == ("both", "complete")
    assert event[part] >= WAIT * 0.6e9  # a probe for a loss comes after 200 ms
    for other in set(SPLIT) - {part}:
        assert (event[other] or 0) < BUSY * 1e9, other
    assert sum(event[each] or 0 for each in SPLIT) == event["request_ns"]


@pytest.mark.parametrize(("name", "how"), EACH)
def test_sizes_are_those_of_the_plaintext(requests: Requests, name: str, how: str) -> None:
    assert requests[name, how]["request_bytes"] == len(GET)
    assert requests[name, how]["response_bytes"] == len(OK)


@pytest.mark.parametrize("how", HOW)
def test_a_lost_record_is_what_its_request_waited_for(requests: Requests, how: str) -> None:
    lost = requests["the request is lost", how]
    assert lost["retransmissions"] == 1
    assert lost["retransmission_causes"] in ("tlp", "rto")
    assert 0.1e9 < lost["retransmission_wait_ns"] <= lost["request_ns"]
    others = [event for (name, _), event in requests.items() if "is lost" not in name]
    assert not any(
        event["retransmission_wait_ns"] for event in others if not event["retransmissions"]
    )
