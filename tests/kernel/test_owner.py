"""Whose a connection is, against the processes that the test itself started."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.conversation import await_acknowledged
from tests.support.netns import Pair
from tests.support.peer import Peer
from tests.support.tracer import Tracer, tracing

from .test_connection import of


def test_sockets_that_were_there_before(pair: Pair, tmp_path: Path) -> None:
    """Their owners are found at the start, in every namespace; a send or recv tells better."""
    with closing(pair.server.socket()) as listener:
        listener.bind((pair.server_addresses[4], 5306))
        listener.listen()
        peer = Peer(pair, "client", "connect", pair.server_addresses[4], 5306)
        server, _ = listener.accept()
    arguments = ("--kinds", "transmit,close", "--netns", pair.client.path)
    with tracing(tmp_path / "events", *arguments) as tracer:
        server.sendall(b"before it has made a call")  # its socket acknowledges
        await_acknowledged(server)
        server.shutdown(socket.SHUT_WR)
        peer.do("r")
        peer.quit()
        assert server.recv(1) == b""
        server.close()
        pair.await_closed()
    first, *_ = of(tracer.events, "transmit")
    (closed,) = of(tracer.events, "close")
    assert (first["pid"], first["owner_source"]) == (peer.pid, "iterator")
    assert (closed["pid"], closed["owner_source"]) == (peer.pid, "socket")
    assert closed["comm"] == first["comm"] == peer.comm
    assert closed["elapsed_ns"] is None  # nobody saw it begin


@pytest.mark.native
def test_filter_by_owner(pair: Pair, tmp_path: Path) -> None:
    """--pid chooses connections by owner, in the kernel."""
    with closing(pair.server.socket()) as listener:
        listener.bind((pair.server_addresses[4], 5308))
        listener.listen()
        peers = [Peer(pair, "client", "connect", pair.server_addresses[4], 5308) for _ in range(2)]
        servers = [listener.accept()[0] for _ in peers]
    arguments = ("--kinds", "close,state", "--pid", str(peers[0].pid))
    with tracing(tmp_path / "events", *arguments) as tracer:
        for peer, server in zip(peers, servers, strict=True):
            peer.quit()
            server.close()
        pair.await_closed()
    assert {event["pid"] for event in tracer.events} == {peers[0].pid}
    assert tracer.ledger["close"]["received"] == 1
    assert tracer.ledger["close"]["filtered"] >= 3


def test_an_heir_owns_its_first_segment(pair: Pair, tmp_path: Path) -> None:
    """With segments alone: a segment that leaves while a process is at work is that process's."""
    arguments = ("--kinds", "transmit", "--netns", pair.client.path)
    with tracing(tmp_path / "events", *arguments) as tracer:
        with closing(pair.server.socket()) as listener:
            listener.bind((pair.server_addresses[4], 5309))
            listener.listen()
            heir = Peer(pair, "client", "heir", pair.server_addresses[4], 5309)
            server, _ = listener.accept()
        heir.do("s")
        heir.do("s")
        heir.quit()
        server.close()
        pair.await_closed()
    sent = of(tracer.events, "transmit", remote_port=5309)
    data = [event["pid"] for event in sent if event["bytes"]]
    assert sent[0]["pid"] == heir.parent
    assert data[1:] == [heir.pid]
    if hooks.packets_have_process():
        assert data == [heir.pid] * 2


@pytest.mark.parametrize("listens", ["before", "meanwhile"])
def test_a_listener_that_no_filter_is_about(listens: str, pair: Pair, tmp_path: Path) -> None:
    """A connection that passes by its other end's port has its listener's process all the same."""
    where = ("server", "accept", pair.server_addresses[4], 5310)
    there = [Peer(pair, *where)] if listens == "before" else []
    arguments = ("--kinds", "accept", "--port", "5311", "--netns", pair.server.path)
    with tracing(tmp_path / "events", *arguments) as tracer:
        (peer,) = there or [Peer(pair, *where)]
        with closing(pair.client.socket()) as client:
            client.bind(("", 5311))
            client.connect((pair.server_addresses[4], 5310))
            peer.await_word("connected")
        peer.quit()
        pair.await_closed()
    (accepted,) = of(tracer.events, "accept")
    assert accepted["pid"] == peer.listener


HEIR = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
_, descriptors, *_ = socket.recv_fds(channel, 1, 1)
channel.recv(1)
socket.socket(fileno=descriptors[0]).sendall(b"by another process")
"""


@pytest.mark.native
def test_a_connection_that_is_handed_on(pair: Pair, tmp_path: Path) -> None:
    """--pid of who is given what another has accepted: it is known from its beginning."""
    here, there = socket.socketpair()
    command = [sys.executable, "-c", HEIR, str(there.fileno())]
    heir = subprocess.Popen(command, pass_fds=[there.fileno()])
    arguments = ("--kinds", "send,close", "--pid", str(heir.pid), "--netns", pair.server.path)
    with tracing(tmp_path / "events", *arguments) as tracer:
        client, server = pair.connection(4, 5312)
        socket.send_fds(here, [b"x"], [server.fileno()])
        server.close()
        here.sendall(b"y")  # now it is the only one that has it
        assert heir.wait(60) == 0
        client.close()
        pair.await_closed()
    here.close()
    there.close()
    sent, closed = tracer.events
    assert (sent["kind"], sent["bytes"], sent["pid"]) == ("send", 18, heir.pid)
    assert (closed["kind"], closed["pid"]) == ("close", heir.pid)
    assert closed["elapsed_ns"] > 0


CONTAINER = "0123456789abcdef" * 4
POD = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def container() -> Iterator[Path]:
    """A cgroup that is called as a container's in a pod."""
    roots = [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if " cgroup2 " in line
    ]
    if not roots:
        pytest.skip("no cgroup2 file system is mounted")
    pod = Path(roots[0], f"kubepods-burstable-pod{POD.replace('-', '_')}.slice")
    made = pod / f"cri-containerd-{CONTAINER}.scope"
    made.mkdir(parents=True)
    yield made
    for path in (made, pod):
        path.rmdir()


@pytest.mark.native
def test_containers(pair: Pair, container: Path, tmp_path: Path) -> None:
    """The container and the pod are read off the cgroup; --container chooses by it."""
    with closing(pair.server.socket()) as listener:
        listener.bind((pair.server_addresses[4], 5309))
        listener.listen()
        arguments = ("--kinds", "send,close", "--container", CONTAINER[:12])
        with tracing(tmp_path / "events", *arguments) as tracer:
            peers = [
                Peer(pair, "client", "connect", pair.server_addresses[4], 5309) for _ in range(2)
            ]
            servers = [listener.accept()[0] for _ in peers]
            (container / "cgroup.procs").write_text(str(peers[0].pid))
            for peer, server in zip(peers, servers, strict=True):
                peer.do("s")
                peer.quit()
                server.close()
            pair.await_closed()
    assert {event["pid"] for event in tracer.events} == {peers[0].pid}
    assert {event["kind"] for event in tracer.events} == {"send", "close"}
    for event in tracer.events:
        assert (event["container_id"], event["pod_uid"]) == (CONTAINER, POD)
        assert event["cgroup"].endswith(container.name)


@pytest.mark.native
def test_those_still_open(pair: Pair, tmp_path: Path) -> None:
    """--live lists an open connection, with every process that has it."""
    client, server = pair.connection(4, 5331)
    with closing(client), closing(server):
        client.set_inheritable(True)
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            arguments = ("--live", "--netns", pair.client.path)
            tracer = Tracer(tmp_path / "events", *arguments, view="connections")
            tracer.await_attached()
            assert tracer.stop() == 0
        finally:
            sleeper.kill()
            sleeper.wait()
    (event,) = tracer.events
    own = Path("/proc/self/comm").read_text().strip()
    assert (event["kind"], event["remote_port"], event["state"]) == (
        "snapshot",
        5331,
        "ESTABLISHED",
    )
    assert event["holders"] == ", ".join(sorted([f"{own}[{os.getpid()}]", f"sleep[{sleeper.pid}]"]))
    assert event["age_ns"] is None  # it is older than tcprism


@pytest.mark.native
def test_the_age_of_those_still_open(pair: Pair, tmp_path: Path) -> None:
    """At both ends as old as the test knows, which began between two moments of its own."""
    tracer = Tracer(tmp_path / "events", "--live", "--port", "5332", view="connections")
    tracer.await_attached()
    before = time.monotonic_ns()
    client, server = pair.connection(4, 5332)
    with closing(client), closing(server):
        begun = time.monotonic_ns()
        assert tracer.stop() == 0
    assert {event["local_port"] == 5332 for event in tracer.events} == {True, False}
    for event in tracer.events:
        assert before <= event["ts_ns"] - event["age_ns"] <= begun
