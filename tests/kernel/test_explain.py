"""`tcprism explain`: each verdict from what truly produces it; healthy connections get none."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tcprism
from tcprism.diagnosis.port_exhaustion import exhausted
from tests.support import netns as namespaces
from tests.support.tracer import PATIENCE, TCPRISM

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


def ask_once(client: Socket, _server: Socket) -> None:
    client.sendall(b"question")
    client.recv(100)


def ask_soon(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(b"ask")
        client.recv(100)
        time.sleep(0.005)


def send_a_little(client: Socket, _server: Socket) -> None:
    while True:
        client.sendall(b"a little")
        time.sleep(0.5)


def read_once(_client: Socket, server: Socket) -> None:
    server.recv(100)


def close(_client: Socket, server: Socket) -> None:
    server.close()


def nothing(_client: Socket, _server: Socket) -> None:
    pass


def ask_often(client: Socket, _server: Socket) -> None:
    """As a client of Redis: small requests, small answers, one after the other."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        client.sendall(b"GET key")
        client.recv(100)


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
    7008: (ask_once, read_once, {}, {}),
    7009: (nothing, close, {}, {}),
    7010: (ask_often, answer, {}, {}),
}
SHAPED: dict[int, Scenario] = {7011: (send_all, read_all, {}, {})}
SMALL_BUFFER: dict[int, Scenario] = {7012: (send_all, read_all, {socket.SO_SNDBUF: 4608}, {})}
LOSSY: dict[int, Scenario] = {7021: (send_all, read_all, {}, {})}
LOST_REQUESTS: dict[int, Scenario] = {7022: (ask_soon, answer, {}, {})}
LOST_ANSWERS: dict[int, Scenario] = {7024: (ask_soon, answer, {}, {})}
LOST_ACKS: dict[int, Scenario] = {7023: (send_a_little, read_all, {}, {})}


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


def explain(*target: str, meanwhile: Callable[[], None] | None = None) -> list[dict[str, Any]]:
    """Return what explain says; `meanwhile` is called once it watches."""
    command = [TCPRISM, "explain", *target, "--duration", str(DURATION), "--format", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        said = process.stderr.readline()
        if meanwhile and said.startswith("watching"):
            meanwhile()
        shown, rest = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said + rest
    return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture(scope="module")
def explained() -> Iterator[list[dict[str, Any]]]:
    """Explain all scenarios at once, while they go on."""
    with ExitStack() as stack:
        plain, shaped, other, lossy, requests = (
            stack.enter_context(namespaces.joined()) for _ in range(5)
        )
        for pair in (shaped, other):
            pair.client.run("tc", "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", "1mbit",
                            "burst", "3000", "latency", "800ms")  # fmt: skip
        # Else a flow with losses has tens of thousands a second, which takes both CPUs.
        lossy.client.run("tc", "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", "20mbit",
                         "burst", "30000", "latency", "50ms")  # fmt: skip
        for pair, scenarios in (
            (plain, SCENARIOS),
            (shaped, SHAPED),
            (other, SMALL_BUFFER),
            (lossy, LOSSY),
            (requests, LOST_REQUESTS),
            (requests, LOST_ANSWERS),
            (requests, LOST_ACKS),
        ):
            for port, scenario in scenarios.items():
                stack.enter_context(talking(pair, port, scenario))
        lossy.server.drop_every(8, 7021)
        drop_data(requests.server, 16, "dport 7022")
        drop_data(requests.client, 16, "sport 7024")
        drop_acknowledgements(requests, 7023)
        stack.enter_context(unanswered(plain))
        stack.enter_context(cut_off(plain))
        stack.enter_context(in_accept_queue(plain))
        stack.enter_context(vanished(plain))
        time.sleep(SETTLING)
        yield explain(str(os.getpid()), meanwhile=lambda: connect_late(stack, requests))


def drop_data(netns: namespaces.Netns, nth: int, port: str) -> None:
    """Drop one in `nth` of the packets with payload that arrive from or at a port, 6 % for 16."""
    netns.run("nft", "add table inet some; add chain inet some input"
              " { type filter hook prerouting priority 0; };"
              f" add rule inet some input tcp {port} meta length > 54"
              f" numgen inc mod {nth} == {nth - 1} drop")  # fmt: skip


def drop_acknowledgements(pair: namespaces.Pair, port: int) -> None:
    """Drop all that only acknowledge, but those with a DSACK: all data is sent again in vain."""
    pair.client.run("nft", "add table inet acks; add chain inet acks input"
                    " { type filter hook prerouting priority 0; };"
                    f" add rule inet acks input tcp sport {port} meta length 52 drop")  # fmt: skip


@contextmanager
def in_accept_queue(pair: namespaces.Pair) -> Iterator[None]:
    """Ask a server that accepts nobody, over loopback."""
    with pair.server.socket() as listener, pair.server.socket() as client:
        listener.bind(("127.0.0.1", 7033))
        listener.listen()
        client.connect(("127.0.0.1", 7033))
        client.sendall(b"question")
        yield


@contextmanager
def vanished(pair: namespaces.Pair) -> Iterator[None]:
    """Have keepalive probes go to a peer that does not answer any more."""
    with talking(pair, 7034, (nothing, nothing, {}, {})) as (client, _):
        pair.server.run("nft", "add rule inet deaf input tcp dport 7034 drop")
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            client.setsockopt(socket.IPPROTO_TCP, option, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        yield


def connect_late(stack: ExitStack, pair: namespaces.Pair) -> None:
    """Connect, once explain watches, to a port to which the first SYN does not get through."""
    listener, client = pair.server.socket(), pair.client.socket()
    for one in (listener, client):
        stack.callback(one.close)
    listener.bind((pair.server_addresses[4], 7035))
    listener.listen()
    pair.server.run("nft", "add table inet once; add chain inet once input"
                    " { type filter hook prerouting priority 0; };"
                    " add rule inet once input tcp dport 7035 tcp flags syn"
                    " numgen inc mod 1000 == 0 drop")  # fmt: skip
    client.connect((pair.server_addresses[4], 7035))


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


def rules(explained: list[dict[str, Any]], **which: Any) -> dict[str, dict[str, Any]]:
    """Return the verdicts about one end of a connection."""
    (one,) = [e for e in explained if all(e.get(name) == value for name, value in which.items())]
    return {verdict["rule"]: verdict for verdict in one["verdicts"]}


@pytest.mark.parametrize(
    ("port", "rule"),
    [
        (7001, "receiver-window"),
        (7002, "application"),
        (7004, "slow-peer"),
        (7008, "slow-peer"),
        (7009, "close-wait"),
        (7005, "nagle"),
        (7006, "small-segments"),
        (7007, "receiver-window"),
        (7011, "bufferbloat"),
        (7012, "send-buffer"),
        (7021, "loss"),
        (7022, "retransmission-wait"),
        (7023, "spurious"),
        (7024, "retransmission-wait"),
        (7033, "unaccepted"),
        (7034, "half-open"),
        (7035, "syn-retry"),
        (7031, "syn-unanswered"),
        (7032, "unanswered"),
    ],
)
def test_verdict(explained: list[dict[str, Any]], port: int, rule: str) -> None:
    found = rules(explained, remote_port=port)
    assert rule in found, found


def test_a_request_that_nobody_answers_is_told_at_both_ends(
    explained: list[dict[str, Any]],
) -> None:
    proof = rules(explained, remote_port=7008)["slow-peer"]["proof"]
    assert re.fullmatch(r"has waited [\d.]+ s for an answer to what it sent, acknowledged", proof)
    proof = rules(explained, local_port=7008)["slow-here"]["proof"]
    assert re.fullmatch(
        r"read a request [\d.]+ s ago and has not answered; its process ran for .*", proof
    )


def test_who_works_on_answers_is_told_on_its_own_side(explained: list[dict[str, Any]]) -> None:
    assert "slow-here" in rules(explained, local_port=7004)


def not_blamed(found: Any, rule: str, waited: Any) -> None:
    """Whoever answers late on a busy machine is told so, but not for the time of losses."""
    assert rule not in found or found[rule]["share"] < waited["share"]


def test_the_peer_is_not_blamed_for_lost_requests(explained: list[dict[str, Any]]) -> None:
    found = rules(explained, remote_port=7022)
    waited = found["retransmission-wait"]
    assert "tlp" in waited["proof"]
    assert "loss" not in found  # no window holds one request back
    not_blamed(found, "slow-peer", waited)
    not_blamed(rules(explained, local_port=7022), "slow-here", waited)


def test_nor_for_lost_answers(explained: list[dict[str, Any]]) -> None:
    found = rules(explained, remote_port=7024)
    waited = found["retransmission-wait"]
    assert "by the peer" in waited["proof"]
    not_blamed(found, "slow-peer", waited)
    not_blamed(rules(explained, local_port=7024), "slow-here", waited)


def test_what_arrived_was_not_lost_out_there(explained: list[dict[str, Any]]) -> None:
    found = rules(explained, remote_port=7023)
    assert not {"loss", "retransmission-storm", "retransmission-wait", "slow-peer"} & set(found)
    assert not any("lost out there" in verdict["proof"] for verdict in found.values())


def test_an_accept_queue_is_told_at_both_ends(explained: list[dict[str, Any]]) -> None:
    proof = rules(explained, remote_port=7033)["slow-peer"]["proof"]
    assert f"accept queue of {Path('/proc/self/comm').read_text().strip()}[{os.getpid()}]" in proof
    assert "no-accept" in rules(explained, local_port=7033, state="LISTEN")


def test_how_long_connecting_took(explained: list[dict[str, Any]]) -> None:
    proof = rules(explained, remote_port=7035)["syn-retry"]["proof"]
    took = int(re.findall(r"connecting took ([\d,]+) ms", proof)[0].replace(",", ""))
    assert 1000 <= took < 3000  # one timeout of a second, and not the next


def test_small_requests_and_answers_are_no_waste(explained: list[dict[str, Any]]) -> None:
    for which in ({"remote_port": 7010}, {"local_port": 7010}):
        assert not {"small-segments", "bufferbloat"} & set(rules(explained, **which))


def test_slow_reader_is_named_on_its_own_side(explained: list[dict[str, Any]]) -> None:
    assert "slow-reader-here" in rules(explained, local_port=7001)


def test_losses_here_are_told_from_losses_out_there(explained: list[dict[str, Any]]) -> None:
    proof = rules(explained, remote_port=7021)["loss"]["proof"]
    assert "this host dropped" in proof
    assert "NETFILTER_DROP" in proof


def test_a_healthy_connection_is_not_accused(explained: list[dict[str, Any]]) -> None:
    for which in ({"remote_port": 7003}, {"local_port": 7003}):
        assert not [v for v in rules(explained, **which).values() if v["accuses"]]


def test_python_asks_too(netns: namespaces.Netns) -> None:
    """And filters leave out what is not asked about: here the listener of another port."""
    with netns.socket() as listener, netns.socket() as client, netns.socket() as other:
        for port, one in ((7054, listener), (7055, other)):
            one.bind(("127.0.0.1", port))
            one.listen()
        client.connect(("127.0.0.1", 7054))
        server, _ = listener.accept()
        with server:
            client.sendall(b"question")
            server.recv(100)
            asked = tcprism.Filter(netns=netns.path, port=7054)
            found = tcprism.explain(duration=1.5, filters=asked)
    told = {one.local_port == 7054: [v.rule for v in one.verdicts] for one in found}
    assert told == {True: ["slow-here"], False: ["slow-peer"]}
    assert found.states == {"ESTABLISHED": 2, "LISTEN": 1}


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
