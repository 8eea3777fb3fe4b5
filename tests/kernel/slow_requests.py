"""Requests that are slow on purpose, and what must be told of them."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.conversation import await_unread, receive
from tests.support.tracer import Event
from tests.support.wire import Wire, deliver, lose_data

WAIT = 0.3  # seconds that stand out on a busy machine
BUSY = 0.25  # what a busy machine may add to another part
GET = b"GET /cart/7?token=secret HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SPLIT = (
    "send_queue_ns",
    "network_there_ns",
    "server_queue_ns",
    "server_ns",
    "network_back_ns",
    "unread_ns",
    "transfer_ns",
)

Play = Callable[[Wire, socket.socket, socket.socket], None]


@dataclass(frozen=True)
class Scenario:
    """What makes a request slow, and the part of its time that is then long."""

    play: Play
    part: str


def think(_wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET)
    receive(server, len(GET))
    time.sleep(WAIT)
    server.sendall(OK)
    receive(client, len(OK))


def await_arrival(end: Any) -> None:
    """Wait until what was sent is there: the wire may be late."""
    await_unread(getattr(end, "plain", end), 1)


def read_late(_wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET)
    await_arrival(server)
    time.sleep(WAIT)
    receive(server, len(GET))
    server.sendall(OK)
    receive(client, len(OK))


def leave_unread(_wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET)
    receive(server, len(GET))
    server.sendall(OK)
    await_arrival(client)
    time.sleep(WAIT)
    receive(client, len(OK))


def respond_slowly(_wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET)
    receive(server, len(GET))
    server.sendall(OK[:-3])
    receive(client, len(OK) - 3)
    time.sleep(WAIT)
    server.sendall(OK[-3:])
    receive(client, 3)


def ask_slowly(_wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET[:20])
    await_arrival(server)
    time.sleep(WAIT)
    client.sendall(GET[20:])
    receive(server, len(GET))
    server.sendall(OK)
    receive(client, len(OK))


def hold_request(wire: Wire, client: socket.socket, server: socket.socket) -> None:
    wire.rule = lambda packet, to_server: WAIT if to_server and packet.payload else 0.0
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(GET)
    receive(server, len(GET))
    wire.rule = deliver
    server.sendall(OK)
    receive(client, len(OK))


def hold_response(wire: Wire, client: socket.socket, server: socket.socket) -> None:
    client.sendall(GET)
    receive(server, len(GET))
    wire.rule = lambda packet, to_server: 0.0 if to_server or not packet.payload else WAIT
    server.sendall(OK)
    receive(client, len(OK))
    wire.rule = deliver


def lose_request(wire: Wire, client: socket.socket, server: socket.socket) -> None:
    wire.rule = lose_data(0)
    client.sendall(GET)
    receive(server, len(GET))
    wire.rule = deliver
    server.sendall(OK)
    receive(client, len(OK))


SCENARIOS = {
    "the server thinks": Scenario(think, "server_ns"),
    "the server reads late": Scenario(read_late, "server_queue_ns"),
    "the client reads late": Scenario(leave_unread, "unread_ns"),
    "the response comes in two": Scenario(respond_slowly, "transfer_ns"),
    "the request comes in two": Scenario(ask_slowly, "transfer_ns"),
    "the request is held up": Scenario(hold_request, "network_there_ns"),
    "the response is held up": Scenario(hold_response, "network_back_ns"),
    "the request is lost": Scenario(lose_request, "network_there_ns"),
}
FIRST_PORT = 5700


@dataclass(frozen=True)
class Took:
    """How long a scenario took, in seconds, and how many segments the client sent again.

    A machine that stands still for a moment makes more of both.
    """

    seconds: float
    again: int

    @property
    def most_ns(self) -> float:
        """What another part of the time may have been than the one that was made long."""
        return (BUSY + max(self.seconds - WAIT, 0)) * 1e9


def play(scenario: Scenario, wire: Wire, client: Any, server: Any) -> Took:
    """Have a scenario happen."""
    before, began = wire.client.tcp_counters()["RetransSegs"], time.monotonic()
    scenario.play(wire, client, server)
    seconds = time.monotonic() - began
    return Took(seconds, wire.client.tcp_counters()["RetransSegs"] - before)


def check_parts(event: Event, took: Took, name: str) -> None:
    """Check that a request's time is where its scenario has it spent."""
    part = SCENARIOS[name].part
    assert event["view"] == "both"
    assert event[part] >= WAIT * 0.6e9  # a probe for a loss comes after 200 ms
    for other in set(SPLIT) - {part}:
        assert (event[other] or 0) < took.most_ns, other
    assert sum(event[each] or 0 for each in SPLIT) == event["request_ns"]


def check_lost(event: Event, took: Took) -> None:
    """Check that a request has waited for what was lost of it."""
    assert event["retransmissions"] == took.again >= 1
    assert {*event["retransmission_causes"].split(", ")} <= {"tlp", "rto"}
    assert 0.1e9 < event["retransmission_wait_ns"] <= event["request_ns"]
