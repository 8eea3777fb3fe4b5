"""A connection is broken off from the other end, or by silence: rows of docs/connections.md."""

import socket
from contextlib import closing

import pytest

from tests.support.capture import Packet
from tests.support.conversation import fill
from tests.support.netns import FIN_WAIT2
from tests.support.wire import Wire

from .endings import lingers_not, lingers_not_in_close_wait, lingers_not_in_fin_wait2
from .ways import (
    CLOSE_WAIT,
    CLOSING,
    FIN_WAIT1,
    LAST_ACK,
    TCP_LINGER2,
    TCP_USER_TIMEOUT,
    abort,
    await_lost,
    await_state,
    await_true,
    configured,
    fail_to_answer,
    following,
    lose_everything,
    lose_fins,
    refuse,
    see_reset,
    way,
)

# Data comes when nobody is there to read it.


@way("closes, data comes before its FIN is acknowledged")
def data_in_fin_wait1(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with following(wire, lose_fins(True)):
        client.close()
        server.sendall(b"late")
        see_reset(server)


@way("closes, data comes with the acknowledgement of its FIN")
def data_with_fin_ack(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with following(wire, lose_bare_acks):
        client.close()
        assert server.recv(1) == b""
        server.sendall(b"late")
        await_state(wire.server, port)
    server.close()


def lose_bare_acks(packet: Packet, to_server: bool) -> float | None:
    return None if not to_server and packet.flags == "ACK" and not packet.payload else 0.0


@way("closes, data comes after its FIN is acknowledged")
def data_in_fin_wait2(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.close()
    await_state(wire.client, port, FIN_WAIT2)
    server.sendall(b"late")
    await_state(wire.server, port)
    server.close()


@way("closes, TCP_LINGER2 above a minute, data comes after its FIN is acknowledged")
def data_in_long_fin_wait2(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, 119)
    client.close()
    await_state(wire.client, port, FIN_WAIT2)
    server.sendall(b"late")
    await_state(wire.server, port)
    server.close()


@way("shuts both directions down, data comes")
def data_after_shutdown(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.shutdown(socket.SHUT_RDWR)
    await_state(wire.client, port, FIN_WAIT2)
    server.sendall(b"late")
    await_state(wire.server, port)
    client.close()
    server.close()


# A RST comes.


@way("a RST comes in ESTABLISHED", this="server")
def reset_in_established(wire: Wire, port: int) -> None:
    lingers_not(wire, port)


@way("a RST comes in CLOSE_WAIT", this="server")
def reset_in_close_wait(wire: Wire, port: int) -> None:
    lingers_not_in_fin_wait2(wire, port)


@way("a RST comes in FIN_WAIT1")
def reset_in_fin_wait1(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with following(wire, lose_fins(True)):
        client.close()
        await_state(wire.client, port, FIN_WAIT1)
        abort(server)
        await_state(wire.client, port)


@way("a RST comes in FIN_WAIT2", this="server")
def reset_in_fin_wait2(wire: Wire, port: int) -> None:
    lingers_not_in_close_wait(wire, port)


@way("a RST comes in CLOSING")
def reset_in_closing(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with following(wire, lose_fins(True)):
        client.close()
        server.shutdown(socket.SHUT_WR)
        await_state(wire.client, port, CLOSING)
        await_state(wire.server, port, FIN_WAIT2)
        abort(server)
        await_state(wire.client, port)


@way("a RST comes in LAST_ACK")
def reset_in_last_ack(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    with following(wire, lose_fins(True)):
        client.close()
        await_state(wire.client, port, LAST_ACK)
        abort(server)
        await_state(wire.client, port)


# Nobody answers.


@way("no answer to data (tcp_retries2)")
def retries_out(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with configured(wire.client, tcp_retries2=2), following(wire, lose_everything):
        client.send(b"x")
        fail_to_answer(wire, port, client, server)


@way("no answer to data (TCP_USER_TIMEOUT)")
def user_timeout(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 300)
    with following(wire, lose_everything):
        client.send(b"x")
        fail_to_answer(wire, port, client, server)


@way("no answer to keepalives")
def keepalive(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
        client.setsockopt(socket.IPPROTO_TCP, option, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    lost = len(wire.lost)
    with following(wire, lose_everything):
        await_true(lambda: len(wire.lost) > lost + 1)  # also the reset, which comes with the end
        fail_to_answer(wire, port, client, server)


@way("no answer to probes of a closed window")
def zero_window(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port, receive_buffer=4096)
    client.setblocking(False)
    fill(client)
    with configured(wire.client, tcp_retries2=2), following(wire, lose_everything):
        fail_to_answer(wire, port, client, server)


@way("no answer to its FIN (tcp_orphan_retries)")
def fin_unanswered(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    with configured(wire.client, tcp_orphan_retries=2), following(wire, lose_everything):
        client.close()
        fail_to_answer(wire, port, client, server)


@way("no answer to its FIN, sent after the other's")
def last_fin_unanswered(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    server.shutdown(socket.SHUT_WR)
    await_state(wire.client, port, CLOSE_WAIT)
    await_state(wire.server, port, FIN_WAIT2)  # what acknowledges its FIN is not lost
    with configured(wire.client, tcp_orphan_retries=2), following(wire, lose_all_to_server):
        client.close()
        await_state(wire.client, port)
    server.close()


def lose_all_to_server(_packet: Packet, to_server: bool) -> float | None:
    return None if to_server else 0.0


@way("no answer to data but ICMP host unreachable")
def unreachable(wire: Wire, port: int) -> None:
    client, server = wire.connection(4, port)
    refuse(wire.server, port, "host-unreachable")
    with configured(wire.client, tcp_retries2=2):
        client.send(b"x")
        await_state(wire.client, port)
    wire.server.run("nft", "delete table inet refuse")
    fail_to_answer(wire, port, client, server)


# It never began.


def attempt(wire: Wire, port: int, error: type[OSError]) -> None:
    with closing(wire.client.socket()) as client, pytest.raises(error):
        client.connect((wire.server_addresses[4], port))


@way("nobody listens")
def refused(wire: Wire, port: int) -> None:
    attempt(wire, port, ConnectionRefusedError)


@way("no answer to SYNs")
def syns_unanswered(wire: Wire, port: int) -> None:
    with configured(wire.client, tcp_syn_retries=1), following(wire, lose_everything):
        attempt(wire, port, TimeoutError)


@way("closes before there is an answer to its SYN")
def gives_up(wire: Wire, port: int) -> None:
    with closing(wire.client.socket()) as client, following(wire, lose_everything):
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect((wire.server_addresses[4], port))
        client.close()
        await_lost(wire, port, "SYN")
