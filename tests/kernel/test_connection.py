"""The life of connections: how they began and ended, their totals and their owners.

The truth: what the test did, `ss`, and the processes that it started.
"""

import errno
import os
import re
import socket
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import hooks
from tests.support.capture import capturing, read_packets
from tests.support.conversation import await_acknowledged, hang_up, receive
from tests.support.netns import Pair, joined
from tests.support.peer import Peer
from tests.support.tracer import Event, tracing

KINDS = ("--kinds", "connect,accept,close,reset,state")
PIECE = 20_000  # bytes
ABORT = b"\1\0\0\0\0\0\0\0"  # struct linger: on, no time
both_families = pytest.mark.parametrize("family", [4, 6])


def of(events: list[Event], kind: str, **values: object) -> list[Event]:
    """Return the events of a kind whose keys have these values."""
    return [
        event
        for event in events
        if event["kind"] == kind and all(event[key] == value for key, value in values.items())
    ]


def exchange(client: socket.socket, server: socket.socket, request: int, answer: int) -> None:
    """Send a request and an answer, no more at once than any buffers hold."""
    for sender, receiver, length in ((client, server, request), (server, client, answer)):
        for begin in range(0, length, PIECE):
            piece = min(PIECE, length - begin)
            sender.sendall(b"x" * piece)
            receive(receiver, piece)


def close_in_order(first: socket.socket, second: socket.socket) -> None:
    hang_up(first, second)
    first.close()


@dataclass
class Ss:
    """What `ss -tin` says of one socket."""

    text: str

    def number(self, name: str) -> int:
        """Return a counter; ss leaves those out that are 0."""
        found = re.search(rf"\b{name}:(\d+)", self.text)
        return int(found[1]) if found else 0

    def milliseconds(self, name: str) -> float:
        """Return a time, the first of two where there are two."""
        found = re.search(rf"\b{name}:([\d.]+)", self.text)
        assert found, self.text
        return float(found[1])


def ss(pair: Pair, end: str, port: int) -> Ss:
    filters = f"( dport = :{port} )" if end == "client" else f"( sport = :{port} )"
    return Ss(getattr(pair, end).run("ss", "-tinHO", "state", "established", filters))


TOTALS = {
    "bytes_sent": "bytes_sent",
    "bytes_acked": "bytes_acked",
    "bytes_received": "bytes_received",
    "bytes_retrans": "bytes_retrans",
    "data_segs_out": "data_segs_out",
    "data_segs_in": "data_segs_in",
}


@dataclass
class Played:
    """What each scenario knows of itself, all events, and the sequence numbers of all SYNs.

    The latter are by the ports that they were sent from and to.
    """

    known: dict[str, Any]
    events: list[Event]
    syns: dict[tuple[int, int], int]


def in_order(pair: Pair, family: int) -> dict[str, Any]:
    """Exchange some bytes and close, with what `ss` says just before and how long it took."""
    port = 5300 + family
    began = time.monotonic_ns()
    client, server = pair.connection(family, port)
    opened = time.monotonic_ns()
    exchange(client, server, 300_000, 70_000)
    for end in (client, server):
        await_acknowledged(end)
    told = {end: ss(pair, end, port) for end in ("client", "server")}
    lasted = time.monotonic_ns() - opened
    close_in_order(client, server)
    pair.await_closed()
    return {**told, "lasted_ns": lasted, "took_ns": time.monotonic_ns() - began}


def refused(pair: Pair, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with closing(pair.client.socket(kind)) as client, pytest.raises(ConnectionRefusedError):
        client.connect((pair.server_addresses[family], 5310 + family))


def timed_out(pair: Pair) -> int:
    """Connect to nobody; return how many SYNs were seen.

    SO_ERROR takes the error away, before 6.11 maybe before the kernel has ended the attempt.
    """
    pair.server.run("nft", "add table inet loss; add counter inet loss syns;"
                    "add chain inet loss in { type filter hook input priority 0; };"
                    "add rule inet loss in tcp dport 5320 counter name syns drop")  # fmt: skip
    with closing(pair.client.socket()) as client:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        with pytest.raises(BlockingIOError):
            client.connect((pair.server_addresses[4], 5320))
        while not (error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            pass
    assert error == errno.ETIMEDOUT
    return pair.server.named_counter("syns")


def unreachable(pair: Pair) -> None:
    """Connect to a host that is not there; blocking, so that the call itself has the error."""
    pair.client.configure("net/ipv4/neigh/veth0/retrans_time_ms", "100")
    with closing(pair.client.socket()) as client:
        client.settimeout(None)
        with pytest.raises(OSError, match="No route"):
            client.connect(("10.77.0.99", 5321))


def aborted(pair: Pair) -> None:
    client, server = pair.connection(4, 5322)
    exchange(client, server, 10, 10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    client.close()
    with closing(server), pytest.raises(ConnectionResetError):
        server.recv(1)


def half_closed(pair: Pair) -> None:
    """Shut the sending direction down, and close when the peer has answered."""
    client, server = pair.connection(4, 5324)
    with closing(server), closing(client):
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendall(b"late")
        assert client.recv(4) == b"late"


def preforked(pair: Pair) -> tuple[int, int]:
    """Have a child accept on its parent's listener; return the pids of both."""
    peer = Peer(pair, "server", "prefork", pair.server_addresses[4], 5323)
    with closing(pair.client.socket()) as client:
        client.connect((pair.server_addresses[4], 5323))
        child = peer.await_word("connected")
        client.sendall(b"hello")
        peer.do("r")
        peer.quit()
        assert client.recv(1) == b""
    return peer.listener, child


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All scenarios under one trace."""
    output = tmp_path_factory.mktemp("connection") / "events"
    capture = output.with_name("pcap")
    with joined() as pair:
        arguments = (*KINDS, "--netns", pair.client.path, "--netns", pair.server.path)
        with (
            tracing(output, *arguments) as tracer,
            capturing(pair.client, "veth0", capture, pair.server_addresses[4]),
        ):
            known: dict[str, Any] = {
                f"in order {family}": in_order(pair, family) for family in (4, 6)
            }
            for family in (4, 6):
                refused(pair, family)
            known["syns"] = timed_out(pair)
            unreachable(pair)
            aborted(pair)
            half_closed(pair)
            known["listener"], known["child"] = preforked(pair)
            pair.await_closed()
    packets = [packet for packet in read_packets(capture) if "SYN" in packet.flags]
    syns = {(packet.source_port, packet.destination_port): packet.seq for packet in packets}
    return Played(known, tracer.events, syns)


def test_initial_sequence_numbers_are_those_of_the_capture(played: Played) -> None:
    ports = set()
    for event in (*of(played.events, "connect", error=None), *of(played.events, "accept")):
        here, there = event["local_port"], event["remote_port"]
        assert event["iss"] == played.syns[here, there]
        assert event["irs"] == played.syns[there, here]
        ports.add((here, there))
    assert len(ports) == 10  # both ends of five connections
    ends = (*of(played.events, "close"), *of(played.events, "reset"))
    told = {(e["local_port"], e["remote_port"], e["iss"], e["irs"]) for e in ends}
    known = {
        (here, there, played.syns[here, there], played.syns[there, here]) for here, there in ports
    }
    assert known <= told
    for here, there, iss, irs in told:
        assert iss in (None, played.syns.get((here, there)))
        assert irs in (None, played.syns.get((there, here)))
    for event in of(played.events, "state"):
        assert event["iss"] is event["irs"] is None


@both_families
def test_totals_are_those_of_ss(played: Played, family: int) -> None:
    """As `ss` said just before the end, and as many bytes as were written."""
    told = played.known[f"in order {family}"]
    for end, port in (("client", "remote_port"), ("server", "local_port")):
        (closed,) = of(played.events, "close", **{port: 5300 + family})
        fin = {"bytes_acked": 1, "bytes_received": 1}  # the kernel counts it as a byte
        for name, in_ss in TOTALS.items():
            assert closed[name] - fin.get(name, 0) == told[end].number(in_ss), name
        assert closed["segs_out"] >= told[end].number("segs_out")
        assert closed["min_rtt_us"] / 1000 <= told[end].milliseconds("minrtt") + 0.002
        assert closed["congestion"] in told[end].text
        assert (closed["family"], closed["ending"], closed["error"]) == (family, "fin", None)
    (closed,) = of(played.events, "close", remote_port=5300 + family)
    sent_again = closed["bytes_retrans"]
    assert (closed["bytes_sent"] - sent_again, closed["bytes_received"]) == (300_000, 70_001)


@both_families
def test_a_life(played: Played, family: int) -> None:
    """From handshake to close, each transition, and how long it took."""
    events, port = played.events, 5300 + family
    (connect,) = of(events, "connect", remote_port=port)
    (accept,) = of(events, "accept", local_port=port)
    (closed,) = of(events, "close", remote_port=port)
    lived, known = closed["ts_ns"] - connect["ts_ns"], played.known[f"in order {family}"]
    assert connect["error"] is None
    assert known["lasted_ns"] < closed["elapsed_ns"]
    for its in (lived, closed["elapsed_ns"]):
        assert 0 < connect["elapsed_ns"] + its < known["took_ns"]
    assert connect["ts_ns"] <= accept["ts_ns"] < closed["ts_ns"]
    states = [(e["old_state"], e["new_state"]) for e in of(events, "state", remote_port=port)]
    assert states == [
        ("CLOSE", "SYN_SENT"),
        ("SYN_SENT", "ESTABLISHED"),
        ("ESTABLISHED", "FIN_WAIT1"),
        ("FIN_WAIT1", "FIN_WAIT2"),
        ("FIN_WAIT2", "CLOSE"),  # TIME_WAIT is no state of a full socket
    ]
    assert {event["pid"] for event in (connect, accept, closed)} == {os.getpid()}


@both_families
def test_refused(played: Played, family: int) -> None:
    """A connect that fails, the reset that made it fail, and since 6.10 who sent that."""
    port = 5310 + family
    (connect,) = of(played.events, "connect", remote_port=port)
    assert (connect["error"], connect["total_retrans"]) == ("ECONNREFUSED", 0)
    (received,) = of(played.events, "reset", sent=False, remote_port=port)
    assert received["old_state"] == "SYN_SENT"
    sent = of(played.events, "reset", sent=True, local_port=port)
    assert [event["reset_reason"] for event in sent] == ["NO_SOCKET"] * hooks.has_reset_reasons()
    assert of(played.events, "close", remote_port=port) == []


def test_a_state_that_stays_is_no_change(played: Played) -> None:
    """As the kernel sets it when close() follows shutdown()."""
    changes = [(e["old_state"], e["new_state"]) for e in of(played.events, "state")]
    assert not [change for change in changes if change[0] == change[1]]
    half = of(played.events, "state", remote_port=5324)
    assert [e["new_state"] for e in half][2:4] == ["FIN_WAIT1", "FIN_WAIT2"]
    assert {"CLOSE"} == {e["new_state"] for e in half[4:]}


def test_timed_out(played: Played) -> None:
    """Nobody answers: the error, and how many SYNs there were."""
    (connect,) = of(played.events, "connect", remote_port=5320)
    assert (connect["error"], 1 + connect["total_retrans"]) == ("ETIMEDOUT", played.known["syns"])
    assert connect["elapsed_ns"] > 1e9


def test_unreachable(played: Played) -> None:
    """A host that nobody answers for."""
    (connect,) = of(played.events, "connect", remote_port=5321)
    assert connect["error"] == "EHOSTUNREACH"


def test_aborted(played: Played) -> None:
    """One end aborts: what each end knows of it."""
    (here,) = of(played.events, "close", remote_port=5322)
    (there,) = of(played.events, "close", local_port=5322)
    assert (here["ending"], here["error"]) == ("reset_sent", None)
    assert (there["ending"], there["error"]) == ("reset_received", "ECONNRESET")
    assert len(of(played.events, "reset", sent=True, remote_port=5322)) == 1
    assert len(of(played.events, "reset", sent=False, local_port=5322)) == 1


def test_the_process_that_accepts(played: Played) -> None:
    """A connection is its listener's at first, then that of the process that accepts it."""
    (accept,) = of(played.events, "accept", local_port=5323)
    (closed,) = of(played.events, "close", local_port=5323)
    assert (accept["pid"], accept["owner_source"]) == (played.known["listener"], "socket")
    assert closed["pid"] == played.known["child"] != accept["pid"]


@pytest.mark.native
def test_a_flood_of_short_connections(pair: Pair, tmp_path: Path) -> None:
    """As many connects and accepts as the kernel counts, and a close for each end.

    Whatever else is traced, no event of a connection is lost.
    """
    rounds = 2000
    arguments = ("--kinds", "all", "--netns", pair.client.path, "--netns", pair.server.path)
    before = [end.tcp_counters() for end in (pair.client, pair.server)]
    with tracing(tmp_path / "events", *arguments) as tracer:
        with closing(pair.server.socket()) as listener:
            listener.bind((pair.server_addresses[4], 5330))
            listener.listen(64)
            for _ in range(rounds):
                with closing(pair.client.socket()) as client:
                    client.connect((pair.server_addresses[4], 5330))
                    listener.accept()[0].close()
        pair.await_closed()
    after = [end.tcp_counters() for end in (pair.client, pair.server)]
    opened = after[0]["ActiveOpens"] - before[0]["ActiveOpens"]
    accepted = after[1]["PassiveOpens"] - before[1]["PassiveOpens"]
    assert opened == accepted == rounds
    assert len(of(tracer.events, "connect")) == len(of(tracer.events, "accept")) == rounds
    assert len(of(tracer.events, "close")) == 2 * rounds
    for kind in ("connect", "accept", "close", "state"):
        entry = tracer.ledger[kind]
        assert entry["seen"] == entry["filtered"] + entry["submitted"]
        assert entry["received"] == entry["submitted"]
