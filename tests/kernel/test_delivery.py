"""How long messages wait, against the time that the test itself makes them wait."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from . import hooks
from .netns import Pair
from .test_loss import drain, fill, hang_up, hold_answers, receive
from .tracer import Event, Tracer, tracing
from .wire import Wire, deliver, wired

KINDS = ("--kinds", "send,recv,acked", "--payload", "0")


@contextmanager
def traced(wire: Wire, output: Path) -> Iterator[Tracer]:
    arguments = (*KINDS, "--netns", wire.client.path, "--netns", wire.server.path)
    with tracing(output, *arguments) as tracer:
        yield tracer


def of(tracer: Tracer, kind: str, port: int) -> list[Event]:
    """Return the client's sends and what became of them, or the server's recvs with bytes."""
    key = "local_port" if kind == "recv" else "remote_port"
    return [e for e in tracer.events if (e["kind"], e[key]) == (kind, port) and e["bytes"]]


def test_until_it_is_acknowledged(tmp_path: Path) -> None:
    """Each send has one record, which names it; the answers take 50 ms."""
    with wired() as wire, traced(wire, tmp_path / "events") as tracer:
        client, server = wire.connection(4, 5400)
        with closing(client), closing(server):
            wire.rule = hold_answers(0.05)
            began = time.monotonic()
            for length in (100, 5000, 1):
                client.sendall(b"x" * length)
                receive(server, length)
                server.sendall(b"y")
                receive(client, 1)
            took = (time.monotonic() - began) * 1e6
            wire.rule = deliver
            hang_up(client, server)
        wire.await_closed()
    sends, acked = of(tracer, "send", 5400), of(tracer, "acked", 5400)
    assert [e["send_ts_ns"] for e in acked] == [e["ts_ns"] for e in sends]
    assert [(e["seq"], e["bytes"]) for e in acked] == [(e["seq"], e["bytes"]) for e in sends]
    for event in acked:
        assert event["unsent_us"] == 0
        assert 50_000 <= event["unacked_us"] <= took
        assert event["ts_ns"] - event["send_ts_ns"] >= event["unacked_us"] * 1000


def test_in_the_send_queue(tmp_path: Path) -> None:
    """The receiver's window is shut for a while: the last bytes wait that long to leave."""
    with wired() as wire, traced(wire, tmp_path / "events") as tracer:
        client, server = wire.connection(4, 5401)
        with closing(client), closing(server):
            client.setblocking(False)
            fill(client)
            shut = time.monotonic()
            time.sleep(0.3)  # the time to be measured
            waited = (time.monotonic() - shut) * 1e6
            drain(client, server)
        wire.await_closed()
    sends, acked = of(tracer, "send", 5401), of(tracer, "acked", 5401)
    ledger = tracer.ledger["acked"]
    assert ledger["seen"] == len(sends)
    assert ledger["seen"] == ledger["submitted"] + ledger["map_full"]
    assert len(acked) == ledger["received"]
    assert max(event["unsent_us"] for event in acked) >= waited


def test_in_the_receive_queue(tmp_path: Path) -> None:
    """The reader sleeps; what it then reads, in pieces, has been there for so long."""
    with wired() as wire, traced(wire, tmp_path / "events") as tracer:
        client, server = wire.connection(4, 5402)
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
        wire.await_closed()
    recvs = [event for event in of(tracer, "recv", 5402) if event["flags"] != "PEEK"]
    assert [event["bytes"] for event in recvs] == [100, 200]
    for event in recvs:
        assert (woke - arrived) * 1e6 <= event["unread_us"] <= (after - before) * 1e6


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
