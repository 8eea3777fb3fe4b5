"""What the two ends of a connection do with it, as tests have them do."""

import fcntl
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from .netns import FIN_WAIT2, PATIENCE, Netns, Pair

ROUNDS = 100
BULK = 600_000


@contextmanager
def connected(netns: Netns) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give the two ends of a connection over the namespace's loopback."""
    with closing(netns.socket()) as listener, closing(netns.socket()) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with closing(server):
            yield client, server


def receive(end: socket.socket, length: int) -> None:
    """Receive so many bytes."""
    while length:
        length -= len(end.recv(min(length, 1 << 16)))


def unread(end: socket.socket) -> int:
    """Return how many bytes have arrived that nobody has read."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


def await_unread(end: socket.socket, length: int) -> None:
    """Wait until so much can be read, without a call that reads."""
    _await(lambda: unread(end) >= length)


def await_acknowledged(end: socket.socket) -> None:
    """Wait until all that was sent is acknowledged (tcpi_unacked of struct tcp_info)."""
    _await(lambda: not any(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24:28]))


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # the CPU is for those who are waited for


def ping_pong(client: socket.socket, server: socket.socket, rounds: int = ROUNDS) -> None:
    """Send requests of 300 bytes, each answered by 50."""
    for _ in range(rounds):
        client.sendall(b"q" * 300)
        receive(server, 300)
        server.sendall(b"a" * 50)
        receive(client, 50)


def bulk(client: socket.socket, server: socket.socket) -> None:
    """Send much in one direction."""
    receiver = threading.Thread(target=receive, args=(server, BULK))
    receiver.start()
    client.sendall(b"b" * BULK)
    receiver.join()


def send_over_loss(netns: Netns, port: int) -> None:
    """Send 200,000 bytes to a port of the loopback, in pieces that each arrive before the next."""
    with closing(netns.socket()) as listener, closing(netns.socket()) as sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with closing(receiver):
            for _ in range(200):
                sender.sendall(b"x" * 1000)
                receiver.recv(1000, socket.MSG_WAITALL)


def hang_up(client: socket.socket, server: socket.socket) -> None:
    """End both directions, the client's first, each when the other end has seen it."""
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.close()
    assert client.recv(1) == b""


def orderly(pair: Pair, family: int, port: int, work: Callable[..., None], *arguments: int) -> None:
    """Do the work on a new connection and close it so that its sockets answer to the end."""
    client, server = pair.connection(family, port)
    with closing(client), closing(server):
        work(client, server, *arguments)
        hang_up(client, server)


def lossy(
    pair: Pair, family: int, port: int, work: Callable[..., None], nth: int, *arguments: int
) -> None:
    """Do the work while one in `nth` of the client's longer packets is lost."""

    def work_with_loss(client: socket.socket, server: socket.socket) -> None:
        pair.server.drop_every(nth, port)
        work(client, server, *arguments)
        pair.server.drop_nothing()

    orderly(pair, family, port, work_with_loss)


def abandoned(pair: Pair, family: int, port: int) -> None:
    """Close the client first: what is left of it, and is no socket, answers the server's FIN."""
    client, server = pair.connection(family, port)
    with closing(server):
        client.close()
        assert server.recv(1) == b""
        pair.client.await_state(FIN_WAIT2)


def refused(pair: Pair, family: int, port: int) -> None:
    """Connect to nobody: the reset has no socket."""
    client = pair.client.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    with closing(client), pytest.raises(ConnectionRefusedError):
        client.connect((pair.server_addresses[family], port))


def aborted(pair: Pair, family: int, port: int) -> None:
    """Reset a connection by its own socket."""
    client, server = pair.connection(family, port)
    with closing(server):
        client.sendall(b"x" * 10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with pytest.raises(ConnectionResetError):
            receive(server, 11)


def fill(client: socket.socket) -> None:
    """Write until neither end takes any more.

    Tries are counted, not seconds: a machine that stalls would let them pass between two tries.
    """
    refused = 0
    while refused < 50:
        try:
            client.send(b"x" * 65536)
            refused = 0
        except BlockingIOError:
            refused += 1
            time.sleep(0.01)


def drain(client: socket.socket, server: socket.socket) -> None:
    """Send no more, and take all that has been sent."""
    client.shutdown(socket.SHUT_WR)
    while server.recv(1 << 20):
        pass
