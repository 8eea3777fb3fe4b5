"""How long messages wait, against the time that the test itself makes them wait."""

import fcntl
import os
import socket
import struct
import termios
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.conversation import drain, fill, hang_up, receive
from tests.support.netns import Netns, Pair
from tests.support.tracer import Event, Tracer, tracing
from tests.support.wire import Wire, deliver, hold_answers, wired

KINDS = ("--kinds", "send,recv,acked", "--payload", "0")
LATE_ANSWERS, SHUT_WINDOW, LATE_READER, AT_ONCE = 5400, 5401, 5402, 5404


@dataclass
class Played:
    """What each conversation measured itself, in microseconds, and what tcprism told."""

    took: dict[str, float]
    tracer: Tracer

    def of(self, kind: str, port: int) -> list[Event]:
        """Return the client's sends and what became of them, or the server's recvs with bytes."""
        key = "local_port" if kind == "recv" else "remote_port"
        events = [e for e in self.tracer.events if (e["kind"], e[key]) == (kind, port)]
        return [event for event in events if event["bytes"]]


def late_answers(wire: Wire) -> dict[str, float]:
    """Have each packet from the server take 50 ms."""
    client, server = wire.connection(4, LATE_ANSWERS)
    with closing(client), closing(server):
        wire.rule = hold_answers(0.05)
        slowest = 0.0
        began = time.monotonic()
        for length in (100, 5000, 1):
            called = time.monotonic()
            client.sendall(b"x" * length)
            slowest = max(slowest, time.monotonic() - called)
            receive(server, length)
            server.sendall(b"y")
            receive(client, 1)
        took = time.monotonic() - began
        wire.rule = deliver
        hang_up(client, server)
    return {"answered": took * 1e6, "slowest call": slowest * 1e6}


def shut_window(wire: Wire) -> dict[str, float]:
    """Have the last bytes wait until the receiver has room for them."""
    client, server = wire.connection(4, SHUT_WINDOW, receive_buffer=4096)
    with closing(client), closing(server):
        client.setblocking(False)
        fill(client)
        shut = time.monotonic()
        time.sleep(0.3)  # the time to be measured
        waited = time.monotonic() - shut
        drain(client, server)
    return {"shut": waited * 1e6}


def late_reader(wire: Wire) -> dict[str, float]:
    """Have the reader sleep, and then read in two pieces."""
    client, server = wire.connection(4, LATE_READER)
    with closing(client), closing(server):
        before = time.monotonic()
        client.sendall(b"x" * 300)
        server.recv(300, socket.MSG_PEEK)  # it is there
        arrived = time.monotonic()
        time.sleep(0.2)  # the time to be measured
        woke = time.monotonic()
        receive(server, 100)
        receive(server, 200)
        after = time.monotonic()
        hang_up(client, server)
    return {"unread at least": (woke - arrived) * 1e6, "unread at most": (after - before) * 1e6}


def unacknowledged(end: socket.socket) -> int:
    """Return how many bytes the kernel still keeps to send again: tcp(7), SIOCOUTQ."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, b"    "))
    return int(waiting)


def at_once(netns: Netns) -> dict[str, float]:
    """Send over loopback, where the acknowledgement may come during the call; then be silent."""
    with closing(netns.socket()) as listener, closing(netns.socket()) as client:
        listener.bind(("127.0.0.1", AT_ONCE))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with closing(server):
            called = time.monotonic()
            client.sendall(b"x" * 300)
            while unacknowledged(client):
                os.sched_yield()
            acknowledged = time.monotonic()
            time.sleep(0.3)  # until the next segment
            receive(server, 300)
            hang_up(client, server)
    return {"acknowledged": (acknowledged - called) * 1e6}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All conversations under one trace."""
    output = tmp_path_factory.mktemp("delivery") / "events"
    with wired() as wire:
        arguments = (*KINDS, "--netns", wire.client.path, "--netns", wire.server.path)
        with tracing(output, *arguments) as tracer:
            took = shut_window(wire) | late_reader(wire) | at_once(wire.client)
            wire.send_again_late()  # or the window would shrink, and bytes wait for it
            took |= late_answers(wire)
            wire.await_closed()
    return Played(took, tracer)


def test_until_it_is_acknowledged(played: Played) -> None:
    """Each send has one record, which names it; it is no faster than the wire.

    What leaves during the call counts from the call's return, which a busy machine delays.
    """
    sends, acked = played.of("send", LATE_ANSWERS), played.of("acked", LATE_ANSWERS)
    assert [e["send_ts_ns"] for e in acked] == [e["ts_ns"] for e in sends]
    assert [(e["seq"], e["bytes"]) for e in acked] == [(e["seq"], e["bytes"]) for e in sends]
    for event in acked:
        assert event["unsent_us"] == 0
        fastest = 50_000 - played.took["slowest call"]
        assert fastest <= event["unacked_us"] <= played.took["answered"]
        assert event["ts_ns"] - event["send_ts_ns"] >= event["unacked_us"] * 1000


def test_acknowledged_during_the_call(played: Played) -> None:
    """It does not count until the next segment comes, which may be much later."""
    (send,), (acked,) = played.of("send", AT_ONCE), played.of("acked", AT_ONCE)
    assert (acked["send_ts_ns"], acked["seq"]) == (send["ts_ns"], send["seq"])
    assert acked["unsent_us"] == 0
    assert acked["unacked_us"] <= played.took["acknowledged"]


def test_in_the_send_queue(played: Played) -> None:
    """The last bytes have waited as long as the window was shut."""
    acked = played.of("acked", SHUT_WINDOW)
    assert max(event["unsent_us"] for event in acked) >= played.took["shut"]


def test_in_the_receive_queue(played: Played) -> None:
    """What is read late, in pieces, had been there for so long; a peek takes nothing."""
    recvs = [event for event in played.of("recv", LATE_READER) if event["flags"] != "PEEK"]
    assert [event["bytes"] for event in recvs] == [100, 200]
    for event in recvs:
        assert played.took["unread at least"] <= event["unread_us"]
        assert event["unread_us"] <= played.took["unread at most"]


def test_no_send_is_forgotten(played: Played) -> None:
    """Each is acknowledged, or counted as one too many to follow."""
    sends = [e for e in played.tracer.events if e["kind"] == "send" and e["bytes"]]
    ledger = played.tracer.ledger["acked"]
    assert ledger["seen"] == len(sends)
    assert ledger["seen"] == ledger["submitted"] + ledger["map_full"]
    assert ledger["received"] == ledger["submitted"]


def test_what_is_remembered_is_bounded(pair: Pair, tmp_path: Path) -> None:
    """Where the kernel keeps nothing at the socket, --max-connections counts what has no room."""
    arguments = ("--kinds", "close", "--max-connections", "3", "--netns", pair.client.path)
    with tracing(tmp_path / "events", *arguments) as tracer:
        ends = [pair.connection(4, 5403 + number) for number in range(6)]
        for client, server in ends:
            hang_up(client, server)
            client.close()
        pair.await_closed()
    assert len(tracer.events) == 6, "not to remember is no reason to lose"
    forgot = any("--max-connections" in line for line in tracer.stderr)
    assert forgot is not hooks.has_socket_storage()
