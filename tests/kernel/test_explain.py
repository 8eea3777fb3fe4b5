"""`tcprism explain`: each verdict from what truly produces it; healthy connections get none."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tcprism.diagnosis.port_exhaustion import exhausted

from . import netns as namespaces
from .tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

Socket = socket.socket
Talk = Callable[[Socket, Socket], None]
DURATION = 4
SETTLING = 1.5  # seconds until each scenario shows what it is
BLOCK = bytes(10_000)


def send_all(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(BLOCK)


def read_all(_client: Socket, server: Socket) -> None:
    while server.recv(1 << 16):
        pass


def read_slowly(_client: Socket, server: Socket) -> None:
    while server.recv(2000):
        time.sleep(0.1)


def send_now_and_then(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(BLOCK)
        time.sleep(0.2)


def ask(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(b"ask")
        client.recv(100)
        time.sleep(0.05)


def ask_in_pieces(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(b"a" * 100)
        client.sendall(b"b" * 100)
        client.recv(100)


def answer_pieces(_client: Socket, server: Socket) -> None:
    while server.recv(200, socket.MSG_WAITALL):
        server.sendall(b"ok")


def answer(_client: Socket, server: Socket) -> None:
    while server.recv(100):
        server.sendall(b"answer")


def answer_late(_client: Socket, server: Socket) -> None:
    while server.recv(100):
        time.sleep(0.3)
        server.sendall(b"answer")


def small_sends(client: Socket, _server: Socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        client.sendall(b"tiny")
        time.sleep(0.002)


# Port: who does what, and the options that the client's and the server's sockets have before.
Scenario = tuple[Talk, Talk, dict[int, int], dict[int, int]]
SCENARIOS: dict[int, Scenario] = {
    7001: (send_all, read_slowly, {}, {}),
    7002: (send_now_and_then, read_all, {}, {}),
    7003: (ask, answer, {}, {}),
    7004: (ask, answer_late, {}, {}),
    7005: (ask_in_pieces, answer_pieces, {}, {}),
    7006: (small_sends, read_all, {}, {}),
    7007: (send_all, read_all, {}, {socket.SO_RCVBUF: 2304}),
}
SHAPED: dict[int, Scenario] = {7011: (send_all, read_all, {}, {})}
SMALL_BUFFER: dict[int, Scenario] = {7012: (send_all, read_all, {socket.SO_SNDBUF: 4608}, {})}
LOSSY: dict[int, Scenario] = {7021: (send_all, read_all, {}, {})}


@contextmanager
def talking(pair: namespaces.Pair, port: int, scenario: Any) -> Iterator[tuple[Socket, Socket]]:
    """Have both ends of a connection do their part, each in a thread, until the end."""
    do_client, do_server, client_options, server_options = scenario
    client = pair.client.socket()
    with pair.server.socket() as listener:
        for name, value in server_options.items():
            listener.setsockopt(socket.SOL_SOCKET, name, value)
        for name, value in client_options.items():
            client.setsockopt(socket.SOL_SOCKET, name, value)
        with suppress(OSError):  # where there is no cubic, the kernel's own will do
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        listener.bind((pair.server_addresses[4], port))
        listener.listen()
        client.connect((pair.server_addresses[4], port))
        server, _ = listener.accept()
    for part in (do_client, do_server):
        threading.Thread(target=quietly, args=(part, client, server), daemon=True).start()
    try:
        yield client, server
    finally:
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def quietly(part: Talk, client: Socket, server: Socket) -> None:
    with suppress(OSError):
        part(client, server)


def explain(*target: str) -> list[dict[str, Any]]:
    command = [TCPRISM, "explain", *target, "--duration", str(DURATION), "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def explained() -> Iterator[list[dict[str, Any]]]:
    """Explain all scenarios at once, while they go on."""
    with ExitStack() as stack:
        plain, shaped, other, lossy = (stack.enter_context(namespaces.joined()) for _ in range(4))
        for pair in (shaped, other):
            pair.client.run("tc", "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", "1mbit",
                            "burst", "3000", "latency", "800ms")  # fmt: skip
        for pair, scenarios in (
            (plain, SCENARIOS),
            (shaped, SHAPED),
            (other, SMALL_BUFFER),
            (lossy, LOSSY),
        ):
            for port, scenario in scenarios.items():
                stack.enter_context(talking(pair, port, scenario))
        lossy.server.drop_every(8, 7021)
        stack.enter_context(unanswered(plain))
        stack.enter_context(cut_off(plain))
        time.sleep(SETTLING)
        yield explain(str(os.getpid()))


@contextmanager
def unanswered(pair: namespaces.Pair) -> Iterator[None]:
    """Begin a connection whose SYN is lost, again and again."""
    pair.server.run("nft", "add table inet deaf; add chain inet deaf input"
                    " { type filter hook prerouting priority 0; };"
                    " add rule inet deaf input tcp dport 7031 drop")  # fmt: skip
    with pair.client.socket() as client:
        client.setblocking(False)
        client.connect_ex((pair.server_addresses[4], 7031))
        yield


@contextmanager
def cut_off(pair: namespaces.Pair) -> Iterator[None]:
    """Send on a connection from whose network nothing comes back any more."""
    with talking(pair, 7032, (send_all, read_all, {}, {})):
        pair.server.run("nft", "add rule inet deaf input tcp dport 7032 drop")
        yield


def rules(explained: list[dict[str, Any]], **which: int) -> dict[str, dict[str, Any]]:
    """Return the verdicts about one end of a connection."""
    (one,) = [e for e in explained if all(e.get(name) == value for name, value in which.items())]
    return {verdict["rule"]: verdict for verdict in one["verdicts"]}


@pytest.mark.parametrize(
    ("port", "rule"),
    [
        (7001, "receiver-window"),
        (7002, "application"),
        (7004, "slow-peer"),
        (7005, "nagle"),
        (7006, "small-segments"),
        (7007, "receiver-window"),
        (7011, "bufferbloat"),
        (7012, "send-buffer"),
        (7021, "loss"),
        (7031, "syn-unanswered"),
        (7032, "unanswered"),
    ],
)
def test_verdict(explained: list[dict[str, Any]], port: int, rule: str) -> None:
    found = rules(explained, remote_port=port)
    assert rule in found, found


def test_slow_reader_is_named_on_its_own_side(explained: list[dict[str, Any]]) -> None:
    assert "slow-reader-here" in rules(explained, local_port=7001)


def test_losses_here_are_told_from_losses_out_there(explained: list[dict[str, Any]]) -> None:
    proof = rules(explained, remote_port=7021)["loss"]["proof"]
    assert "this host dropped" in proof
    assert "NETFILTER_DROP" in proof


def test_a_healthy_connection_is_not_accused(explained: list[dict[str, Any]]) -> None:
    for which in ({"remote_port": 7003}, {"local_port": 7003}):
        assert not [v for v in rules(explained, **which).values() if v["accuses"]]


HOLD_CONNECTIONS = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 7041))
held = [socket.create_connection(("127.0.0.1", 7041)) for _ in range(9)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_destination_that_takes_nearly_all_local_ports(netns: namespaces.Netns) -> None:
    netns.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009")
    command = netns.command(sys.executable, "-c", HOLD_CONNECTIONS)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()
        (found,) = exhausted([(netns.inode, process.pid), (netns.inode, os.getpid())])
        process.communicate()
    assert (found.remote, found.taken, found.available) == ("127.0.0.1:7041", 9, 10)
    assert "9 of 10 local ports" in str(found)
