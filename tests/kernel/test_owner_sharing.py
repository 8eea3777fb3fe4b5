"""Whose a connection is where several processes come into question, and the kernel's own threads.

The truth: servers that answer with their pid, and the processes that the test itself started.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tcprism.kernel.object import BpfObject
from tcprism.probes.owner import FIND_OWNERS
from tests.support import hooks
from tests.support.forked import Script
from tests.support.netns import Netns, Pair
from tests.support.tracer import Tracer, tracing, tracing_all

from .test_connection import of

# A server that answers each connection with its pid; it shares its port with others.
SERVER = """
import os, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(1)
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""
PORT = 5340
IPPROTO_MPTCP = 262


@contextmanager
def servers(netns: Netns, *addresses: str) -> Iterator[list[int]]:
    """Have a server at each address, all on one port; yield their pids."""
    with ExitStack() as stack:
        pids = []
        for address in addresses:
            server = stack.enter_context(closing(Script(netns, SERVER, address, str(PORT))))
            assert server.stdout.readline() == "listening\n"
            pids.append(server.pid)
        yield pids


def ask_all(netns: Netns, address: str, pids: list[int], ports: range) -> dict[int, int]:
    """Connect until each server has answered twice; return who answered, by the client's port.

    The kernel chooses by a hash of the ends, so there must be ports enough.
    """
    answered: dict[int, int] = {}
    for port in ports:
        with netns.socket() as client:
            client.bind(("", port))
            client.connect((address, PORT))
            client.sendall(b"?")
            answered[port] = int(client.recv(100))
            assert client.recv(1) == b""
        if all(list(answered.values()).count(pid) >= 2 for pid in pids):
            return answered
    raise AssertionError(f"{pids} have not all been asked: {answered}")


def test_servers_that_share_a_port(pair: Pair, tmp_path: Path) -> None:
    """Each has the connections that it accepts, whether it was there or comes later."""
    address = pair.server_addresses[4]
    there = ("--netns", pair.server.path, "--ring-size", "1M")
    with servers(pair.server, address, address) as old:
        runs = {
            tmp_path / "chosen": [*there, "--port", str(PORT), "--pid", str(old[0]),
                                  "--kinds", "accept,transmit,send,close"],
            tmp_path / "all": [*there, "--port", "5341-5699", "--kinds", "accept"],
        }  # fmt: skip
        with tracing_all(runs) as (chosen, by_client):
            truth = ask_all(pair.client, address, old, range(5341, 5500))
            with servers(pair.server, address) as new:
                truth |= ask_all(pair.client, address, [*old, *new], range(5500, 5700))
            pair.await_closed()
    seen = {(event["kind"], event["remote_port"], event["pid"]) for event in chosen.events}
    assert seen == {
        (kind, port, pid)
        for kind in ("accept", "transmit", "send", "close")
        for port, pid in truth.items()
        if pid == old[0]
    }
    assert {event["remote_port"]: event["pid"] for event in by_client.events} == truth


LISTENERS = range(5404, 5444)


@pytest.mark.native
def test_listeners_that_several_have(pair: Pair, tmp_path: Path) -> None:
    """What one of them accepts is not shown as another's, though --pid is about that one.

    Where the hooks do not tell who accepts, the accept is the listener's owner's: of holders older
    than the trace the first, in each of two traces that look for owners at the same time.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(pair.server.socket()) for _ in LISTENERS]
        for listener, port in zip(listeners, LISTENERS, strict=True):
            listener.bind((pair.server_addresses[4], port))
            listener.listen()
            listener.set_inheritable(True)
        idle = stack.enter_context(
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
        )
        there = ("--netns", pair.server.path, "--kinds", "accept,transmit,close")
        runs = {
            tmp_path / "idle": [*there, "--pid", str(idle.pid)],
            tmp_path / "own": [*there, "--pid", str(os.getpid())],
        }
        with tracing_all(runs) as (of_idle, own):
            for listener, port in zip(listeners, LISTENERS, strict=True):
                with pair.client.socket() as client:
                    client.connect((pair.server_addresses[4], port))
                    server, _ = listener.accept()
                    server.close()
                    assert client.recv(1) == b""
            pair.await_closed()
    is_first = os.getpid() < idle.pid or hooks.has_fentry() or hooks.has_kprobes()
    accepts = [("accept", port) for port in LISTENERS]
    seen = [
        sorted((event["kind"], event["local_port"]) for event in run.events if event["local_port"])
        for run in (of_idle, own)
    ]
    assert seen[0] == ([] if is_first else accepts)
    assert [event for event in seen[1] if event[0] == "accept"] == (accepts if is_first else [])
    assert {kind for kind, _ in seen[1]} >= {"transmit", "close"}
    assert not [line for run in (of_idle, own) for line in run.stderr if "not remembered" in line]


def look_for_owners(bpf: BpfObject, together: threading.Barrier) -> None:
    together.wait()
    bpf.iterate(FIND_OWNERS.name)


@pytest.mark.native
def test_two_that_look_for_owners_at_once(netns: Netns) -> None:
    """Both remember those of all sockets, though both are the first to store something with one."""
    with ExitStack() as stack:
        tracers = [stack.enter_context(BpfObject()) for _ in range(2)]
        for bpf in tracers:
            bpf.select((FIND_OWNERS.name,))
            bpf.configure({"local_storage": True}, {})
            bpf.load()
        together = threading.Barrier(len(tracers))
        for _ in range(100):
            with ExitStack() as held, ThreadPoolExecutor() as threads:
                for _ in range(20):
                    held.enter_context(netns.socket())
                list(threads.map(look_for_owners, tracers, [together] * len(tracers)))
        assert [bpf.count("unremembered") for bpf in tracers] == [0, 0]


# Leaves a connection to an io_uring, whose file table a thread of the kernel closes.
LEFT_TO_IO_URING = """
import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
end = socket.create_connection((sys.argv[1], int(sys.argv[2])))
ring = libc.syscall(425, 8, ctypes.create_string_buffer(120))  # io_uring_setup
file = ctypes.c_int(end.fileno())
assert ring >= 0 and libc.syscall(427, ring, 2, ctypes.byref(file), 1) == 0  # IORING_REGISTER_FILES
end.close()
"""
# Closes an MPTCP socket, whose TCP sockets a thread of the kernel closes later.
BY_MPTCP = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)  # IPPROTO_MPTCP
end.connect((sys.argv[1], int(sys.argv[2])))
end.close()
"""


@pytest.mark.parametrize(
    ("program", "protocol"),
    [
        pytest.param(LEFT_TO_IO_URING, socket.IPPROTO_TCP, id="io_uring"),
        *([pytest.param(BY_MPTCP, IPPROTO_MPTCP, id="mptcp")] if hooks.has_mptcp() else []),
    ],
)
def test_what_the_kernel_closes(program: str, protocol: int, pair: Pair, tmp_path: Path) -> None:
    """A connection that a kernel thread closes stays its process's, also with --pid."""
    address = pair.server_addresses[4]
    with pair.server.entered():
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    with listener:
        listener.bind((address, 5401))
        listener.listen()
        process = Script(pair.client, f"input()\n{program}", address, "5401")
        arguments = ("--kinds", "connect,close,state,transmit", "--pid", str(process.pid))
        with closing(process), tracing(tmp_path / "events", *arguments) as tracer:
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.wait(300) == 0
            server, _ = listener.accept()
            assert server.recv(1) == b""
            server.close()
            pair.await_closed()
    assert len(of(tracer.events, "connect")) == len(of(tracer.events, "close")) == 1
    assert of(tracer.events, "state")[-1]["new_state"] == "CLOSE"
    assert {event["pid"] for event in tracer.events} == {process.pid}
    assert len({event["comm"] for event in tracer.events}) == 1


# Hands its connection to a child, which is told to abort it.
ABORTED_BY_A_CHILD = """
import os, socket, struct, sys
end = socket.create_connection((sys.argv[1], int(sys.argv[2])))
end.sendall(b"by the parent")
linger = struct.pack("ii", 1, 0)
if (child := os.fork()) == 0:
    sys.stdin.read()
    open("/proc/self/comm", "w").write("heir")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    end.close()
    os._exit(0)
end.close()
print(child, flush=True)
os.waitpid(child, 0)
"""


def test_a_child_that_aborts(pair: Pair, tmp_path: Path) -> None:
    """Who resets a connection by closing it is its owner from then on, whoever had it before.

    Without storage at sockets, one that is closed has been forgotten as its reset leaves.
    """
    address = pair.server_addresses[4]
    arguments = ("--kinds", "connect,close,reset,transmit", "--netns", pair.client.path)
    with pair.server.socket() as listener, tracing(tmp_path / "events", *arguments) as tracer:
        listener.bind((address, 5402))
        listener.listen()
        with closing(Script(pair.client, ABORTED_BY_A_CHILD, address, "5402")) as parent:
            server, _ = listener.accept()
            with server:
                child = int(parent.stdout.readline())
                parent.stdin.close()
                assert parent.wait(300) == 0
                pair.client.await_closed()
    owners = {
        (event["kind"], event["pid"], event["comm"] == "heir")
        for event in tracer.events
        if event["kind"] != "transmit" or "RST" in event["flags"]
    }
    after = (child, True) if hooks.has_socket_storage() else (None, False)
    assert owners == {
        ("connect", parent.pid, False),
        ("close", child, True),
        ("reset", *after),
        ("transmit", *after),
    }


# Ends without closing its connection; its child, too.
LEFT_OPEN = """
import os, socket, sys
if child := os.fork():
    os.waitpid(child, 0)
end = socket.create_connection((sys.argv[1], int(sys.argv[2])))
os._exit(0)
"""


def test_what_is_open_as_a_process_ends(pair: Pair, tmp_path: Path) -> None:
    """The kernel closes it, and that is shown of a process that is followed, and of its child."""
    where = (pair.server_addresses[4], "5405")
    with pair.server.socket() as listener:
        listener.bind((where[0], int(where[1])))
        listener.listen()
        command = pair.client.command(sys.executable, "-c", LEFT_OPEN, *where)
        tracer = Tracer(tmp_path / "events", "--kinds", "state", "--", *command, fork=True)
        assert tracer.wait() == 0
    ends = of(tracer.events, "state", new_state="FIN_WAIT1")
    connects = of(tracer.events, "state", new_state="SYN_SENT")
    assert len({event["pid"] for event in ends}) == 2
    assert [event["pid"] for event in ends] == [event["pid"] for event in connects]


@pytest.mark.native
def test_who_destroys_a_connection_does_not_own_it(pair: Pair, tmp_path: Path) -> None:
    """`ss -K` ends a connection of another process, and is not shown as its owner."""
    client, server = pair.connection(4, 5403)
    arguments = ("--kinds", "close,reset", "--netns", pair.client.path)
    with client, server, tracing(tmp_path / "events", *arguments) as tracer:
        client.sendall(b"x")
        pair.client.run("ss", "-K", "dport = 5403")
        with pytest.raises(ConnectionAbortedError):
            client.send(b"x")
    assert {(event["kind"], event["pid"]) for event in tracer.events} == {
        ("close", os.getpid()),
        ("reset", os.getpid()),
    }
