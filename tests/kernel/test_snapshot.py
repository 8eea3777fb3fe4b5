"""Snapshots against what `ss` and the test itself know, on every kernel."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tcprism.filters import Criteria
from tcprism.metrics import instruments
from tcprism.metrics.aggregate import Metrics
from tcprism.metrics.instruments import Instrument
from tcprism.metrics.owners import Listeners, Owners, Peers, Processes
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.together import Together
from tests.support.conversation import await_unread, connected, fill
from tests.support.netns import Netns, Pair
from tests.support.serving import await_equal

PORT = 7100
TICK_US = 10_000  # the slowest kernel's
Rows = Any


def take(**chosen: Any) -> Rows:
    """Return the records of one snapshot."""
    with Snapshots(Criteria(**chosen)) as snapshots:
        (part,) = snapshots.take().parts
        return part.rows


def of_port(netns: Netns, port: int, **chosen: Any) -> Rows:
    return take(netns=(netns.inode,), local_ports=((port, port),), **chosen)


@pytest.fixture
def ends(netns: Netns) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A listener and both ends of a connection to it."""
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", PORT))
        listener.listen(7)
        client.connect(("127.0.0.1", PORT))
        server, _ = listener.accept()
        with server:
            yield listener, client, server


Ends = tuple[socket.socket, socket.socket, socket.socket]


def test_what_was_sent_received_and_left_unread(netns: Netns, ends: Ends) -> None:
    _, client, server = ends
    client.sendall(bytes(5000))
    server.recv(2000, socket.MSG_WAITALL)
    (row,) = of_port(netns, client.getsockname()[1])
    assert row["bytes_sent"] == 5000
    assert row["remote_port"] == PORT
    assert row["state"] == 1
    connected = [r for r in of_port(netns, PORT) if r["state"] == 1]
    assert [r["bytes_received"] for r in connected] == [5000]
    assert [r["unread"] for r in connected] == [3000]


@pytest.mark.native
def test_the_inode_is_the_one_of_the_descriptor(netns: Netns, ends: Ends) -> None:
    client = ends[1]
    (row,) = of_port(netns, client.getsockname()[1])
    assert row["inode"] == os.fstat(client.fileno()).st_ino
    assert row["pid"] == os.getpid()
    assert row["uid"] == os.getuid()


def test_a_listener_counts_those_who_wait(netns: Netns, ends: Ends) -> None:
    waiting = [netns.socket() for _ in range(3)]
    for client in waiting:
        client.connect(("127.0.0.1", PORT))

    def listener() -> Any:
        (row,) = [r for r in of_port(netns, PORT) if r["state"] == 10]
        return row

    await_equal(lambda: listener()["backlog"], 3)  # a connect can return before its ACK arrives
    assert listener()["backlog_limit"] == 7
    for client in waiting:
        client.close()


def at_rest(netns: Netns) -> tuple[Rows, str]:
    """Return a record and what ss shows, once nothing happens between the two any more."""
    while True:
        (before,) = take(netns=(netns.inode,), remote_ports=((PORT, PORT),))
        shown = netns.run("ss", "-tin", "state", "established")
        (after,) = take(netns=(netns.inode,), remote_ports=((PORT, PORT),))
        if before["segs_out"] == after["segs_out"]:
            return after, shown


def test_numbers_equal_those_of_ss(pair: Pair) -> None:
    client, server = pair.connection(4, PORT)
    with client, server:
        for _ in range(50):
            client.sendall(bytes(3000))
            server.recv(3000, socket.MSG_WAITALL)
            server.sendall(b"ok")
            client.recv(10)
        row, shown = at_rest(pair.client)
    for name, field in (
        ("bytes_sent", "bytes_sent"),
        ("bytes_acked", "bytes_acked"),
        ("bytes_received", "bytes_received"),
        ("segs_out", "segs_out"),
        ("segs_in", "segs_in"),
        ("data_segs_out", "data_segs_out"),
        ("data_segs_in", "data_segs_in"),
        ("cwnd", "cwnd"),
        ("mss", "mss"),
    ):
        assert int(re.findall(rf"\b{name}:(\d+)", shown)[0]) == row[field], name
    # ss has milliseconds with six digits, so microseconds as long as there is not a second.
    for name, field in (("rtt", "srtt_us"), ("minrtt", "min_rtt_us"), ("rto", "rto_us")):
        shown_ms = float(re.findall(rf"\b{name}:([\d.]+)", shown)[0])
        assert row[field] == pytest.approx(shown_ms * 1000, rel=1e-5, abs=0.5), name
    congestion = row["congestion"].split(b"\0")[0].decode()
    assert re.search(rf"\b{congestion}\b", shown)


@pytest.mark.native
def test_ages_are_those_of_ss(pair: Pair) -> None:
    client, server = pair.connection(4, PORT)
    with client, server:
        client.sendall(b"question")
        server.recv(100)
        time.sleep(0.3)  # so that the two ages differ
        server.sendall(b"answer")
        client.recv(100)
        chosen: dict[str, Any] = {"netns": (pair.client.inode,), "remote_ports": ((PORT, PORT),)}
        (before,) = take(**chosen)
        shown = pair.client.run("ss", "-tin", "state", "established")
        (after,) = take(**chosen)
    for name, field in (("lastsnd", "last_data_sent_us"), ("lastrcv", "last_data_recv_us")):
        age = int(re.findall(rf"\b{name}:(\d+)", shown)[0]) * 1000
        assert before[field] - TICK_US <= age <= after[field] + TICK_US
    assert after["last_data_sent_us"] - after["last_data_recv_us"] >= 300_000 - TICK_US


def test_time_that_a_full_window_takes(pair: Pair) -> None:
    client, server = pair.connection(4, PORT)
    with client, server, Snapshots(Criteria(netns=(pair.client.inode,))) as snapshots:
        client.setblocking(False)
        fill(client)
        (part,) = snapshots.take().parts
        (row,) = part.rows[part.rows["remote_port"] == PORT]
    assert row["busy_us"] >= row["rwnd_limited_us"] > 100_000
    assert row["unsent"] > 0


@pytest.mark.native
def test_ipv6_and_mapped_addresses(pair: Pair) -> None:
    client, server = pair.connection(6, PORT)
    with client, server:
        (row,) = take(netns=(pair.client.inode,), family=6)
    assert bytes(row["remote_ip"]) == socket.inet_pton(socket.AF_INET6, "fd77::2")


@pytest.mark.native
def test_filters_choose_processes_and_networks(netns: Netns, ends: Ends) -> None:
    port = ends[1].getsockname()[1]
    assert len(of_port(netns, port, pids=(os.getpid(),))) == 1
    assert len(of_port(netns, port, pids=(os.getpid() + 1,))) == 0
    assert len(of_port(netns, port + 1 if port < 65535 else 1)) == 0


def test_every_holder_has_a_record(netns: Netns, ends: Ends) -> None:
    port = ends[1].getsockname()[1]
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(into)
        os.read(out, 1)
        os._exit(0)
    try:
        rows = of_port(netns, port)
        assert set(rows["pid"].tolist()) == {os.getpid(), child}
        assert len(np.unique(rows["inode"])) == 1
    finally:
        os.close(into)
        os.waitpid(child, 0)
        os.close(out)


Look = Callable[[Instrument], float]


@pytest.fixture
def look(netns: Netns) -> Iterator[Look]:
    """What takes a snapshot of the namespace, and returns the sum of an instrument."""
    metrics = Metrics(Owners(Peers({}), Processes(proc=True), Listeners((32_768, 60_999))))
    with Snapshots(Criteria(netns=(netns.inode,)), every=0.0, share=float("inf")) as snapshots:
        source = Together(snapshots)
        metrics.watch(lambda: snapshots.latest)

        def look(instrument: Instrument) -> float:
            metrics.write(source.read())
            metrics.account(source.ledger())
            return sum(row.value for row in dict(metrics.families())[instrument])

        yield look


@pytest.mark.native
def test_metrics_learn_that_nothing_is_open(netns: Netns, look: Look) -> None:
    """A snapshot without a socket makes no batch, but ends what the one before has told."""
    assert look(instruments.OPEN) == 0
    with connected(netns) as (client, server):
        client.sendall(bytes(1000))
        await_unread(server, 1000)
        assert look(instruments.OPEN) == 2
        assert look(instruments.IO) == 0  # without a cookie, what begins later counts at its end
        assert "ESTAB" in netns.run("ss", "-tne")  # now it has one
        assert look(instruments.IO) == 2 * 1000  # sent here, received here
    assert look(instruments.OPEN) == 0


@pytest.mark.native
def test_connections_that_have_no_cookie_yet_are_in_metrics(netns: Netns, look: Look) -> None:
    """Those that are older than tcprism. Whoever asks, such as `ss`, has the kernel make one."""
    with connected(netns) as (client, server):
        client.sendall(bytes(5000))
        await_unread(server, 5000)
        assert look(instruments.OPEN) == 2
        assert look(instruments.IO) == 0  # was before us
        client.sendall(bytes(300))
        await_unread(server, 5300)
        assert look(instruments.IO) == 2 * 300
        assert "ESTAB" in netns.run("ss", "-tne")
        client.sendall(bytes(20))
        await_unread(server, 5320)
        assert look(instruments.IO) == 2 * 320
        assert look(instruments.OPEN) == 2
