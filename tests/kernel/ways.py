"""What the ways share in which a connection can end: each is a row of docs/connections.md."""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from tests.support.capture import Packet
from tests.support.netns import CLOSE, FIN_WAIT2, LISTEN, TIME_WAIT, Netns
from tests.support.wire import Rule, Wire, deliver

ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING = "01", "04", "08", "09", "0B"
TCP_LINGER2, TCP_USER_TIMEOUT, TCP_REPAIR, IP_RECVERR = 8, 18, 19, 11
ABORT = struct.pack("ii", 1, 0)  # struct linger: on, no time
PATIENCE = 60.0

Scenario = Callable[[Wire, int], None]


class CannotRunHere(Exception):
    """This kernel cannot do it; the message says why."""


@dataclass(frozen=True)
class Way:
    """A row: what plays it, and which end of the wire is `this end`."""

    play: Scenario
    this: str = "client"


WAYS: dict[str, Way] = {}


def way(name: str, this: str = "client") -> Callable[[Scenario], Scenario]:
    def enter(play: Scenario) -> Scenario:
        WAYS[name] = Way(play, this)
        return play

    return enter


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def states(netns: Netns, port: int) -> set[str]:
    """Return the states of the namespace's connections from or to a port."""
    lines = [line.split() for line in netns.proc("tcp").splitlines()[1:]]
    hexadecimal = f":{port:04X}"
    return {line[3] for line in lines if hexadecimal in (line[1][-5:], line[2][-5:])}


def await_state(netns: Netns, port: int, *wanted: str) -> None:
    """Wait until a connection is in a state; with none named, until it is gone."""
    await_true(
        lambda: bool(states(netns, port) & set(wanted)) if wanted else not states(netns, port)
    )


def await_over(netns: Netns, port: int) -> None:
    """Wait until there are at most those states that need no full socket."""
    await_true(lambda: states(netns, port) <= {FIN_WAIT2, TIME_WAIT, CLOSE, LISTEN})


def lose_fins(to_the_server: bool) -> Rule:
    """Lose what says that one end has no more to send."""
    return lambda packet, to_server: (
        None if to_server == to_the_server and "FIN" in packet.flags else 0.0
    )


def await_lost(wire: Wire, port: int, flag: str) -> None:
    """Wait until the wire has lost a packet with a flag to the port."""
    await_true(
        lambda: any(flag in each.flags and each.destination_port == port for each in wire.lost)
    )


def lose_everything(_packet: Packet, _to_server: bool) -> None:
    return None


@contextmanager
def following(wire: Wire, rule: Rule) -> Iterator[None]:
    """Have the wire follow a rule meanwhile."""
    wire.rule = rule
    try:
        yield
    finally:
        wire.rule = deliver


@contextmanager
def configured(netns: Netns, **settings: int) -> Iterator[None]:
    """Change settings of net.ipv4 meanwhile."""
    before = {name: netns.run("sysctl", "-n", f"net.ipv4.{name}").strip() for name in settings}
    for name, value in settings.items():
        netns.configure(f"net/ipv4/{name}", str(value))
    try:
        yield
    finally:
        for name, old in before.items():
            netns.configure(f"net/ipv4/{name}", old)


def abort(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    end.close()


def send_unread(sender: socket.socket, receiver: socket.socket) -> None:
    """Send what the receiver has and does not read."""
    sender.sendall(b"unread")
    assert select.select([receiver], [], [], PATIENCE)[0]


def see_reset(end: socket.socket) -> None:
    """Wait for the error, and close."""
    with closing(end), suppress(ConnectionResetError, BrokenPipeError):
        while end.recv(1 << 16):
            pass


def fail_to_answer(wire: Wire, port: int, client: socket.socket, server: socket.socket) -> None:
    """After the client has given up: close the server, which is told that nobody is there."""
    await_state(wire.client, port)
    wire.rule = deliver
    client.close()
    server.settimeout(PATIENCE)
    with suppress(OSError):
        server.send(b"anybody?")
    see_reset(server)


def refuse(netns: Netns, port: int, icmp: str) -> None:
    """Have the namespace answer to a port with an ICMP error."""
    netns.run("nft", "add table inet refuse;"
              "add chain inet refuse in { type filter hook input priority 0; };"
              f"add rule inet refuse in tcp dport {port} reject with icmp type {icmp}")  # fmt: skip


def unreachables(netns: Netns) -> int:
    """Return how many ICMP errors the namespace has received."""
    names, values = (
        line.split() for line in netns.proc("snmp").splitlines() if line[:5] == "Icmp:"
    )
    return int(dict(zip(names, values, strict=True))["InDestUnreachs"])
