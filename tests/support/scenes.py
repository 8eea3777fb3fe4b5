"""What happens on a wire between a client and a server, for captures to show."""

import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from .capture import Packet
from .conversation import hang_up, ping_pong, receive
from .netns import Netns
from .wire import Rule, Wire

DELAY = 0.02  # seconds, each way: tshark calls what comes sooner again a case of disorder
BYTES = 60_000
SENT = random.Random(17).randbytes(BYTES)
LOST = (5, 20)  # data segments to the server
LATE = (12,)
REVERSED, EARLY = 4, 6  # of the data segments of each end, so many change order, and one is lost
LOSS = 0.03  # part of all packets
SMALL_BUFFER = 4096
IPPROTO_MPTCP = 262
TCP_FASTOPEN = 23
CLASSIC_ECN, ACCURATE_ECN = "1", "3"  # Documentation/networking/ip-sysctl


def steady(_packet: Packet, _to_server: bool) -> float:
    """Let everything pass, in its time."""
    return DELAY


def disturbing() -> Rule:
    """Lose some data to the server, hold some of it up; all takes its time."""
    known: list[int] = []

    def rule(packet: Packet, to_server: bool) -> float | None:
        if not to_server or not packet.payload or packet.seq in known:
            return DELAY
        known.append(packet.seq)
        place = len(known) - 1
        return None if place in LOST else DELAY * (3 if place in LATE else 1)

    return rule


def disturbed(wire: Wire, family: int, port: int) -> None:
    """Talk while segments are lost and come late."""
    client, server = wire.connection(family, port)
    with closing(client), closing(server):
        wire.rule = disturbing()
        client.sendall(SENT)
        receive(server, BYTES)
        wire.rule = steady
        ping_pong(client, server, 2)
        hang_up(client, server)


def disordering_early() -> Rule:
    """Turn the first data segments of each end round and lose one, whatever chance does.

    They leave at once: no end sends fewer before it is answered.
    """
    known: dict[bool, list[int]] = {False: [], True: []}

    def rule(packet: Packet, to_server: bool) -> float | None:
        seen = known[to_server]
        if not packet.payload or packet.seq in seen:
            return 0.0
        seen.append(packet.seq)
        return None if len(seen) == EARLY else 3 * DELAY * max(0, REVERSED - len(seen))

    return rule


def scattering() -> Rule:
    """Lose some packets, hold all up for different times."""
    choose, certain = random.Random(19), disordering_early()

    def rule(packet: Packet, to_server: bool) -> float | None:
        held = certain(packet, to_server)
        if held is None or choose.random() < LOSS:
            return None
        return held + DELAY * (1 + choose.random())

    return rule


@contextmanager
def scattered(wire: Wire) -> Iterator[None]:
    """Lose and reorder packets both ways: by netem where the kernel has it."""
    netem = f"netem delay {1.5 * DELAY}s {DELAY / 2}s loss {LOSS:%}"
    devices = ("to-client", "to-server")
    try:
        for device in devices:
            wire.middle.run(*f"tc qdisc add dev {device} root {netem}".split())
    except RuntimeError:
        wire.rule = scattering()
        yield
        wire.rule = steady
    else:
        wire.rule = disordering_early()
        yield
        wire.rule = steady
        for device in devices:
            wire.middle.run(*f"tc qdisc delete dev {device} root".split())


def disordered(wire: Wire, family: int, port: int) -> None:
    """Send much both ways over a path that loses and reorders."""
    client, server = wire.connection(family, port)
    with closing(client), closing(server):
        with scattered(wire):
            for sender, receiver in ((client, server), (server, client)):
                sender.sendall(SENT)
                receive(receiver, BYTES)
        hang_up(client, server)


def stopped(wire: Wire, port: int) -> None:
    """Have the server not read until its window is closed."""
    client, server = wire.connection(4, port, SMALL_BUFFER)
    with closing(client), closing(server):
        size = 4 * SMALL_BUFFER
        sender = threading.Thread(target=client.sendall, args=(b"s" * size,))
        sender.start()
        while not any(p.source_port == port and not p.window for p in wire.passed):
            os.sched_yield()
        receive(server, size)
        sender.join()
        hang_up(client, server)


def congested(wire: Wire, family: int, port: int, ecn: str) -> None:
    """Have the path mark what passes, both ways; both ends know ECN, or as much as they can."""
    for end in (wire.client, wire.server):
        end.configure("net/ipv4/tcp_ecn", CLASSIC_ECN)
        with suppress(OSError):  # before 7.0 there is no accurate one
            end.configure("net/ipv4/tcp_ecn", ecn)
    client, server = wire.connection(family, port)
    with closing(client), closing(server):
        for marks in (False, True, False):
            wire.congested = marks
            ping_pong(client, server, 3)
        hang_up(client, server)


def opened_fast(wire: Wire, family: int, port: int) -> None:
    """Ask for a cookie, then send data with the SYN."""
    for end in (wire.client, wire.server):
        end.configure("net/ipv4/tcp_fastopen", "3")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with closing(wire.server.socket(kind)) as listener:
        listener.bind((wire.server_addresses[family], port))
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        listener.listen()
        for _ in range(2):
            client = wire.client.socket(kind)
            client.setblocking(True)  # else it sends nothing where it has no cookie yet
            client.sendto(b"sooner", socket.MSG_FASTOPEN, (wire.server_addresses[family], port))
            server, _ = listener.accept()
            with closing(client), closing(server):
                receive(server, len(b"sooner"))
                ping_pong(client, server, 1)
                hang_up(client, server)


def multipath(wire: Wire, port: int) -> None:
    """Talk over MPTCP."""
    with closing(_multipath_socket(wire.server)) as listener:
        listener.bind((wire.server_addresses[4], port))
        listener.listen()
        client = _multipath_socket(wire.client)
        client.connect((wire.server_addresses[4], port))
        server, _ = listener.accept()
        with closing(client), closing(server):
            ping_pong(client, server, 2)
            hang_up(client, server)


def _multipath_socket(netns: Netns) -> socket.socket:
    with netns.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    made.settimeout(60)
    return made
