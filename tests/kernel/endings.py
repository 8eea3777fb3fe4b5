"""A connection is closed or broken off at this end: a row of docs/connections.md each."""

import ctypes
import socket

from tests.support.netns import FIN_WAIT2
from tests.support.wire import Wire

from .ways import (
    CLOSE_WAIT,
    ESTABLISHED,
    IP_RECVERR,
    LAST_ACK,
    TCP_LINGER2,
    TCP_REPAIR,
    CannotRunHere,
    abort,
    await_lost,
    await_state,
    await_true,
    configured,
    following,
    lose_fins,
    refuse,
    see_reset,
    send_unread,
    unreachables,
    way,
)

# Both ends say that they have no more to send.


@way("closes first")
def closes_first(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.close()
    assert server.recv(1) == b""
    server.close()


@way("closes after the other end")
def closes_second(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    server.close()
    assert client.recv(1) == b""
    client.close()


@way("closes as the other end does")
def closes_at_once(wire: Wire, port: int) -> None:
    """The FINs cross on the wire."""
    client, server = wire.connection(4, port)
    with following(wire, lambda _packet, _to_server: 0.1):
        client.close()
        server.close()
        wire.await_closed()


@way("shuts down, reads to the end, closes")
def shuts_down(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, FIN_WAIT2)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == server.recv(1) == b""
    client.close()
    server.close()


@way("closes first, the other end never does")
def other_end_stays(wire: Wire, port: int) -> None:
    """FIN-WAIT-2 ends by its timer."""
    with configured(wire.client, tcp_fin_timeout=1):
        client, server = wire.connection(4, port)
        client.close()
        assert server.recv(1) == b""
        await_state(wire.client, port)
        server.send(b"anybody?")
        see_reset(server)


@way("closes first, TCP_LINGER2 above a minute")
def long_fin_wait(wire: Wire, port: int) -> None:
    """The full socket waits in FIN-WAIT-2 for what is more than a minute."""
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, 61)
    client.close()
    assert server.recv(1) == b""
    await_state(wire.client, port, FIN_WAIT2)
    server.close()


@way("closes after an ICMP error that ended nothing (IP_RECVERR)")
def error_that_ends_nothing(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    refuse(wire.server, port, "host-unreachable")
    before = unreachables(wire.client)
    client.send(b"x")
    await_true(lambda: unreachables(wire.client) > before)
    wire.server.run("nft", "delete table inet refuse")
    assert server.recv(1) == b"x"
    client.close()
    assert server.recv(1) == b""
    server.close()


# The process breaks it off.


@way("closes with unread data")
def unread(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    send_unread(server, client)
    client.close()
    see_reset(server)


@way("closes with unread data after the other's FIN")
def unread_after_fin(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    send_unread(server, client)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    client.close()
    see_reset(server)


@way("closes with unread data, its own FIN under way")
def unread_in_last_ack(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    send_unread(server, client)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    with following(wire, lose_fins(True)):
        client.shutdown(socket.SHUT_WR)
        await_state(wire.client, port, LAST_ACK)
        client.close()
        see_reset(server)


@way("SO_LINGER 0")
def lingers_not(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    abort(client)
    see_reset(server)


@way("SO_LINGER 0 after the other's FIN")
def lingers_not_in_close_wait(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    abort(client)
    see_reset(server)


@way("SO_LINGER 0, its own FIN under way")
def lingers_not_in_fin_wait1(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with following(wire, lose_fins(True)):
        client.shutdown(socket.SHUT_WR)
        abort(client)
        see_reset(server)


@way("SO_LINGER 0, its own FIN acknowledged")
def lingers_not_in_fin_wait2(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, FIN_WAIT2)
    await_state(wire.server, port, CLOSE_WAIT)
    abort(client)
    await_state(wire.server, port)  # its FIN has been read already: no error but EPIPE shows it
    server.close()


@way("SO_LINGER 0, both FINs under way")
def lingers_not_in_last_ack(wire: Wire, port: int) -> None:
    """All is sent, and the kernel leaves it at that: there is no RST."""
    client, server = wire.connection(4, port)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    await_state(wire.server, port, FIN_WAIT2)
    with following(wire, lose_fins(True)):
        client.shutdown(socket.SHUT_WR)
        abort(client)
        await_lost(wire, port, "FIN")
        server.close()


@way("connect() to AF_UNSPEC")
def disconnects(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    assert ctypes.CDLL(None).connect(client.fileno(), bytes(16), 16) == 0
    see_reset(server)
    client.close()


@way("its listener closes before it is accepted", this="server")
def listener_closes(wire: Wire, port: int) -> None:
    client = wire.client.socket()
    with wire.server.socket() as listener:
        listener.bind((wire.server_addresses[4], port))
        listener.listen()
        client.connect((wire.server_addresses[4], port))
        await_state(wire.server, port, ESTABLISHED)
    see_reset(client)


@way("TCP_LINGER2 below 0, its FIN is acknowledged")
def no_fin_wait2(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    client.close()
    see_reset(server)


@way("TCP_LINGER2 below 0, its FIN acknowledged before")
def no_fin_wait2_at_close(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    client.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, FIN_WAIT2)
    await_state(wire.server, port, CLOSE_WAIT)
    client.close()
    await_state(wire.server, port)
    server.close()


@way("closes in repair mode (TCP_REPAIR)")
def repairs(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()
    server.send(b"anybody?")
    see_reset(server)


@way("`ss --kill`")
def killed(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    kill(wire, port)
    see_reset(server)
    client.close()


@way("`ss --kill`, both FINs under way")
def killed_in_last_ack(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    await_state(wire.server, port, FIN_WAIT2)
    with following(wire, lose_fins(True)):
        client.shutdown(socket.SHUT_WR)
        kill(wire, port)
        await_lost(wire, port, "FIN")
        client.close()
        server.close()


def kill(wire: Wire, port: int) -> None:
    if f":{port}" not in wire.client.run("ss", "-K", "-tnH", "dport", "=", f":{port}"):
        raise CannotRunHere("the kernel was built without CONFIG_INET_DIAG_DESTROY")
